package e2e

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// ci builds a project as CI systems do: each time from a new checkout and on a machine that has a base image at most. All that is kept
// is kept in a remote cache.
type ci struct {
	*site
	cache string    // the remote cache
	stamp time.Time // of every file of a checkout; each checkout's files are new where it is zero
	image string    // a local root that has the base image, where machines are to start with it
	count int       // of machines
}

// newCI is a project of files that is built on one of the base images. Machines that start with a large one in place have it from an
// earlier build; busybox they pull.
func newCI(t *testing.T, base string, files map[string]string) *ci {
	t.Helper()
	c := &ci{site: newSite(t, "")}
	c.cache = c.registry.Addr + "/cache"
	if err := os.RemoveAll(filepath.Join(c.dir, "src")); err != nil {
		t.Fatal(err)
	}
	if base != "busybox" {
		c.registry.PushBase(t, base)
		c.image = c.baseImage(t, base)
	}
	c.edit(t, files)
	return c
}

// edit writes files of the project; directories are made.
func (c *ci) edit(t *testing.T, files map[string]string) {
	t.Helper()
	for name, text := range files {
		if err := os.MkdirAll(filepath.Join(c.dir, filepath.Dir(name)), 0o755); err != nil {
			t.Fatal(err)
		}
		c.write(t, name, text)
	}
}

// machine gives the local root of a new machine.
func (c *ci) machine(t *testing.T) string {
	t.Helper()
	c.count++
	root := filepath.Join(c.work, fmt.Sprintf("machine%d", c.count))
	if c.image == "" {
		return root
	}
	tool(t, "cp", "-a", c.image, root)
	moveFiles(t, c.image+"-layers", filepath.Join(root, "layers"), c.image+"-layers")
	t.Cleanup(func() { c.takeBack(t, root) })
	return root
}

// takeBack takes the files of the base image, which nobody writes to, for the next machine.
func (c *ci) takeBack(t *testing.T, root string) {
	t.Helper()
	if _, err := os.Stat(root); err == nil && c.image != "" {
		moveFiles(t, filepath.Join(root, "layers"), c.image+"-layers", c.image+"-layers")
	}
}

// baseImage gives a local root that knows a base image, and lays the files of its layers beside it: they go from machine to machine, as
// to unpack or copy them takes longer than all that is tested here.
func (c *ci) baseImage(t *testing.T, base string) string {
	t.Helper()
	image := filepath.Join(filepath.Dir(program), "image-"+base)
	if _, err := os.Stat(image + "-layers"); err == nil {
		return image
	}
	c.write(t, "Dockerfile", "ARG REGISTRY\nFROM ${REGISTRY}/"+base+"\nRUN true\n")
	c.larder(t, os.Environ(), image, "-o", "type=cacheonly")
	layers, err := filepath.Glob(filepath.Join(image, "layers", "*", "fs"))
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range layers {
		if err := os.MkdirAll(filepath.Join(image+"-layers", filepath.Base(filepath.Dir(l))), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	moveFiles(t, filepath.Join(image, "layers"), image+"-layers", image+"-layers")
	return image
}

// moveFiles moves the files of layers, those of which list has a directory, from one directory of layers to another.
func moveFiles(t *testing.T, from, to, list string) {
	t.Helper()
	layers, err := os.ReadDir(list)
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range layers {
		if err := os.Rename(filepath.Join(from, l.Name(), "fs"), filepath.Join(to, l.Name(), "fs")); err != nil {
			t.Fatal(err)
		}
	}
}

// checkout gives every file of the project the time that a checkout leaves.
func (c *ci) checkout(t *testing.T) {
	t.Helper()
	err := filepath.WalkDir(c.dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		at := c.stamp
		if at.IsZero() {
			at = time.Now()
		}
		return os.Chtimes(path, at, at)
	})
	if err != nil {
		t.Fatal(err)
	}
}

// built is what came of a build.
type built struct {
	said string
	dir  string // the files of the result
	took time.Duration
}

// file reads a file of the result.
func (b *built) file(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(b.dir, name))
	if err != nil {
		t.Fatalf("%v; the build said:\n%s", err, b.said)
	}
	return string(text)
}

var stepLine = regexp.MustCompile(`^#\d+ \d+\.\d+ (.*)$`)

// printed are the lines that RUN steps printed.
func (b *built) printed() []string {
	var lines []string
	for line := range strings.Lines(b.said) {
		if m := stepLine.FindStringSubmatch(strings.TrimSuffix(line, "\n")); m != nil {
			lines = append(lines, m[1])
		}
	}
	return lines
}

// command is one build of a new checkout over a root.
func (c *ci) command(t *testing.T, root string, flags ...string) *exec.Cmd {
	t.Helper()
	c.checkout(t)
	args := []string{"build", "--root", root, "--progress", "plain", "--build-arg", "REGISTRY=" + c.registry.Addr, "--cache", c.cache}
	if !slices.Contains(flags, "-o") {
		args = append(args, "-o", "type=local,dest="+root+"-out")
	}
	return exec.CommandContext(t.Context(), program, append(append(args, flags...), c.dir)...)
}

// fresh builds on a new machine, of which only the result is left.
func (c *ci) fresh(t *testing.T, flags ...string) *built {
	t.Helper()
	root := c.machine(t)
	b, err := c.on(t, root, flags...)
	if err != nil {
		t.Fatal(err)
	}
	c.takeBack(t, root)
	if err := os.RemoveAll(root); err != nil {
		t.Fatal(err)
	}
	return b
}

// on builds on a machine that there is.
func (c *ci) on(t *testing.T, root string, flags ...string) (*built, error) {
	t.Helper()
	cmd := c.command(t, root, append([]string{"--cache-strict"}, flags...)...)
	var text bytes.Buffer
	cmd.Stdout, cmd.Stderr = &text, &text
	start := time.Now()
	err := cmd.Run()
	b := &built{said: text.String(), dir: root + "-out", took: time.Since(start)}
	if err != nil {
		err = fmt.Errorf("larder build: %w\n%s", err, b.said)
	}
	return b, err
}

package e2e

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"larder/internal/report"
)

// outcome is a build, and what larder explain says of it.
type outcome struct {
	digest string // of the image, whose times are fixed
	said   string
	build  report.Build
}

// observed builds a new checkout over a root.
func (c *ci) observed(t *testing.T, root string, flags ...string) *outcome {
	t.Helper()
	o, err := c.tryObserved(t, root, flags...)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func (c *ci) tryObserved(t *testing.T, root string, flags ...string) (*outcome, error) {
	t.Helper()
	c.checkout(t)
	digest, err := c.tryBuild(t.Context(), root, root+"-out", flags...)
	o := &outcome{digest: digest, said: c.said.Load().(string)}
	if err == nil {
		o.build = explained(t, root)
	}
	return o, err
}

// explained is what larder explain says of the last build over a root.
func explained(t *testing.T, root string) report.Build {
	t.Helper()
	var b report.Build
	if err := json.Unmarshal(tool(t, program, "explain", "--root", root, "--json"), &b); err != nil {
		t.Fatal(err)
	}
	return b
}

// hows says how each RUN step came about, by the order of their names: stages first.
func (o *outcome) hows() string {
	steps := slices.Clone(o.build.Steps)
	slices.SortFunc(steps, func(a, b report.Step) int { return strings.Compare(a.Name, b.Name) })
	var list []string
	for _, s := range steps {
		if s.Type == report.Run {
			list = append(list, string(s.How))
		}
	}
	return strings.Join(list, " ")
}

// step finds a step by a part of its name.
func (o *outcome) step(t *testing.T, part string) report.Step {
	t.Helper()
	for _, s := range o.build.Steps {
		if strings.Contains(s.Name, part) {
			return s
		}
	}
	t.Fatalf("larder explain has no step %q", part)
	return report.Step{}
}

// same fails unless a build over a root gave the image that a build from nothing gives. root lends that the files of the base image.
func (c *ci) same(t *testing.T, root string, got *outcome) {
	t.Helper()
	c.takeBack(t, root)
	other := c.machine(t)
	want := c.build(t, other, other+"-out")
	if got.digest != want {
		t.Errorf("image %s, a build from nothing gives %s:\n%s\n%s", got.digest, want, differ(t, root+"-out.tar", other+"-out.tar"), got.said)
	}
	c.takeBack(t, other)
	if err := os.RemoveAll(other); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(root); err == nil && c.image != "" {
		moveFiles(t, c.image+"-layers", filepath.Join(root, "layers"), c.image+"-layers")
	}
}

// edit is a change of a project, and what becomes of its RUN steps in the next build.
type edit struct {
	name string
	do   func(t *testing.T, c *ci)
	hows string
}

// writes is an edit that writes a file.
func writes(name, text string) func(t *testing.T, c *ci) {
	return func(t *testing.T, c *ci) { t.Helper(); c.edit(t, map[string]string{name: text}) }
}

// shell is an edit that a shell does in the context.
func shell(script string) func(t *testing.T, c *ci) {
	return func(t *testing.T, c *ci) { t.Helper(); tool(t, "sh", "-ec", "cd "+c.dir+"\n"+script) }
}

// try makes the edits one after the other, builds after each over one root, and compares with builds from nothing.
func (c *ci) try(t *testing.T, root string, edits []edit, flags ...string) {
	t.Helper()
	for _, e := range edits {
		e.do(t, c)
		o := c.observed(t, root, flags...)
		t.Run(e.name, func(t *testing.T) {
			if got := o.hows(); got != e.hows {
				t.Errorf("the steps were %q, want %q\n%s\n%s", got, e.hows, o.said, tool(t, program, "explain", "--root", root))
			}
			c.same(t, root, o)
			nothingLeft(t, root, root)
		})
	}
}

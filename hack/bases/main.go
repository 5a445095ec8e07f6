// Command bases makes the base images that larder's tests, benches and demo build on, as OCI layouts, out of what the
// host and its Debian packages offer: no image registry is asked. Each is made once and kept until something that
// it is made of changes.
//
//	bases [-dir DIR] [busybox debian golang node python toolchain]
//
// It needs root (debootstrap and chroot do).
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"larder/internal/testregistry"
)

// recipeVersion is part of every image's key: raise it when a recipe in this directory changes.
const recipeVersion = "2"

func main() {
	dir := flag.String("dir", testregistry.BasesDir(), "where the layouts are kept")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *dir, flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "bases:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, dir string, names []string) error {
	if len(names) == 0 {
		names = testregistry.BaseNames()
	}
	if os.Geteuid() != 0 {
		return fmt.Errorf("making base images needs root: run it with sudo")
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	unlock, err := lock(filepath.Join(dir, "lock"))
	if err != nil {
		return err
	}
	defer unlock()
	h, err := readHost(ctx)
	if err != nil {
		return err
	}
	m := &maker{dir: dir, host: h}
	for _, name := range names {
		if err := m.ensure(ctx, name); err != nil {
			return fmt.Errorf("base image %s: %w", name, err)
		}
	}
	return nil
}

// lock waits for other processes that make images in the same directory.
func lock(path string) (func(), error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		f.Close()
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return func() { f.Close() }, nil
}

// maker makes images into dir, one directory each.
type maker struct {
	dir  string
	host *host
}

// recipe says how one image comes about: its parent, what of the host it is made of, and its layers.
type recipe struct {
	parent string   // "" for none
	inputs []string // all that decides the result, besides the parent and this program
	env    []string // added to the parent's
	cmd    []string
	layers []layerStep
}

// layerStep changes the root file system at root; what it changed becomes a layer.
type layerStep struct {
	comment string
	apply   func(ctx context.Context, root string) error
}

func (m *maker) recipe(name string) (recipe, error) {
	switch name {
	case "busybox":
		return m.busybox()
	case "debian":
		return m.debian()
	case "golang":
		return m.golang()
	case "node":
		return m.node()
	case "python":
		return m.python()
	case "toolchain":
		return m.toolchain()
	}
	return recipe{}, fmt.Errorf("unknown; known are %s", strings.Join(testregistry.BaseNames(), ", "))
}

// key names what the image is made of; a layout with another key is made anew.
func (m *maker) key(name string) (string, error) {
	r, err := m.recipe(name)
	if err != nil {
		return "", err
	}
	parent := ""
	if r.parent != "" {
		if parent, err = m.key(r.parent); err != nil {
			return "", err
		}
	}
	return hashStrings(append([]string{recipeVersion, name, parent}, r.inputs...)...), nil
}

// ensure makes the image unless it is there.
func (m *maker) ensure(ctx context.Context, name string) error {
	k, err := m.key(name)
	if err != nil {
		return err
	}
	final := filepath.Join(m.dir, name)
	if have, err := os.ReadFile(filepath.Join(final, "recipe.key")); err == nil && string(have) == k {
		return nil
	}
	r, err := m.recipe(name)
	if err != nil {
		return err
	}
	if r.parent != "" {
		if err := m.ensure(ctx, r.parent); err != nil {
			return err
		}
	}
	start := time.Now()
	fmt.Fprintf(os.Stderr, "base image %s: making it\n", name)
	work, err := os.MkdirTemp(m.dir, ".making-"+name+"-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	layout := filepath.Join(work, "layout")
	if err := m.make(ctx, name, r, work, layout); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(layout, "recipe.key"), []byte(k), 0o644); err != nil {
		return err
	}
	if err := os.RemoveAll(final); err != nil {
		return err
	}
	if err := os.Rename(layout, final); err != nil {
		return err
	}
	fmt.Fprintf(os.Stderr, "base image %s: %s\n", name, time.Since(start).Round(100*time.Millisecond))
	return nil
}

// make builds the layers one after the other in work and writes the layout.
func (m *maker) make(ctx context.Context, name string, r recipe, work, layout string) error {
	img, err := newImage(layout)
	if err != nil {
		return err
	}
	root := filepath.Join(work, "root")
	if err := os.Mkdir(root, 0o755); err != nil {
		return err
	}
	if r.parent != "" {
		if err := img.inherit(ctx, filepath.Join(m.dir, r.parent), root); err != nil {
			return fmt.Errorf("unpack %s: %w", r.parent, err)
		}
	}
	for i, step := range r.layers {
		before := ""
		if i > 0 || r.parent != "" {
			before = filepath.Join(work, fmt.Sprintf("before%d", i))
			if err := command(ctx, "cp", "-a", "--reflink=auto", root, before); err != nil {
				return err
			}
		}
		if err := step.apply(ctx, root); err != nil {
			return fmt.Errorf("%s: %w", step.comment, err)
		}
		if err := img.addLayer(ctx, step.comment, before, root); err != nil {
			return fmt.Errorf("layer %q: %w", step.comment, err)
		}
		if before != "" {
			if err := os.RemoveAll(before); err != nil {
				return err
			}
		}
	}
	img.setConfig(r.env, r.cmd)
	return img.write(name)
}

// Package local writes the files of a result into a directory.
package local

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"time"

	"golang.org/x/sync/errgroup"

	"larder/internal/layer"
	"larder/internal/tree"
)

// parallel is how many files are written at once.
const parallel = 4

// Options say how files are written.
type Options struct {
	// Epoch, where set, is the time that every file gets.
	Epoch *time.Time
	// DeleteOthers removes what is in the directory and not in the result.
	DeleteOthers bool
}

// Part is the file system of one platform.
type Part struct {
	Dir  string     // directory below the destination that its files go to, "" for none
	Root *tree.Node // merged: without whiteouts
	Src  layer.Source
}

// Write writes parts into dir, which is made if it is missing. Files belong to whom the process runs as, modes and times are
// the result's. A file that is in the way is replaced at once, a directory is shared, a symlink is never followed. Devices
// are made where the process may; where it may not, that is an error.
func Write(ctx context.Context, dir string, parts []Part, opt Options) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for _, p := range parts {
		to := dir
		if p.Dir != "" {
			to = path.Join(dir, p.Dir)
			if err := os.MkdirAll(to, 0o755); err != nil {
				return err
			}
		} else if len(parts) > 1 {
			return errors.New("several platforms would write over each other: platform-split=false is for one")
		}
		if err := writePart(ctx, to, p, opt); err != nil {
			return fmt.Errorf("write to %s: %w", to, err)
		}
	}
	return nil
}

func writePart(ctx context.Context, dir string, p Part, opt Options) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	eg, ctx := errgroup.WithContext(ctx)
	eg.SetLimit(parallel)
	w := &writer{ctx: ctx, root: root, src: p.Src, opt: opt, eg: eg, links: map[uint64]string{}}
	err = w.dir("", p.Root)
	if werr := eg.Wait(); werr != nil && (err == nil || errors.Is(err, context.Canceled)) {
		err = werr
	}
	if err != nil {
		return err
	}
	return w.finish()
}

// writer writes one tree. Its goroutine walks and makes everything but the contents of files, which eg's workers write.
type writer struct {
	ctx  context.Context
	root *os.Root
	src  layer.Source
	opt  Options
	eg   *errgroup.Group

	links map[uint64]string // hard links: where a group's first file is
	later []link
	dirs  []dirTime // times of directories, which writing into them changes: deepest last
}

type link struct{ from, to string }

type dirTime struct {
	name string
	node *tree.Node
}

// name is how os.Root calls a path; it has no empty one.
func name(p string) string {
	if p == "" {
		return "."
	}
	return p
}

// dir fills a directory that is there already.
func (w *writer) dir(p string, n *tree.Node) error {
	entries, err := n.Entries()
	if err != nil {
		return err
	}
	if w.opt.DeleteOthers {
		if err := w.deleteOthers(p, n); err != nil {
			return err
		}
	}
	for _, e := range entries {
		if err := w.ctx.Err(); err != nil {
			return err
		}
		child := path.Join(p, e.Name)
		if err := w.node(child, e.Node); err != nil {
			return fmt.Errorf("%s: %w", child, err)
		}
	}
	w.dirs = append(w.dirs, dirTime{p, n})
	return nil
}

func (w *writer) deleteOthers(p string, n *tree.Node) error {
	d, err := w.root.Open(name(p))
	if err != nil {
		return err
	}
	defer d.Close()
	have, err := d.Readdirnames(-1)
	if err != nil {
		return err
	}
	for _, h := range have {
		if found, err := n.Lookup(h); err != nil {
			return err
		} else if found == nil {
			if err := w.root.RemoveAll(path.Join(p, h)); err != nil {
				return err
			}
		}
	}
	return nil
}

func (w *writer) node(p string, n *tree.Node) error {
	if n.Kind == tree.Dir {
		return w.subdir(p, n)
	}
	if err := w.clear(p); err != nil {
		return err
	}
	switch n.Kind {
	case tree.Symlink:
		tmp := temp(p)
		if err := w.root.Symlink(n.Link, tmp); err != nil {
			return err
		}
		return w.place(tmp, p, n)
	case tree.File:
		if n.Group != 0 {
			if first, ok := w.links[n.Group]; ok {
				w.later = append(w.later, link{first, p})
				return nil
			}
			w.links[n.Group] = p
		}
		w.eg.Go(func() error {
			if err := w.file(p, n); err != nil {
				return fmt.Errorf("%s: %w", p, err)
			}
			return nil
		})
		return nil
	case tree.Char, tree.Block, tree.Fifo:
		tmp := temp(p)
		if err := w.mknod(tmp, n); err != nil {
			return fmt.Errorf("make device: %w", err)
		}
		return w.place(tmp, p, n)
	}
	return nil // a socket means nothing without its process
}

func (w *writer) subdir(p string, n *tree.Node) error {
	st, err := w.root.Lstat(p)
	if err == nil && !st.IsDir() {
		if err := w.root.Remove(p); err != nil {
			return err
		}
		err = fs.ErrNotExist
	}
	if errors.Is(err, fs.ErrNotExist) {
		err = w.root.Mkdir(p, 0o700)
	}
	if err != nil {
		return err
	}
	// Writable while it is filled; finish gives the mode that it shall have.
	if err := w.root.Chmod(p, 0o700); err != nil {
		return err
	}
	return w.dir(p, n)
}

// clear removes a directory that is in a file's way; a file is replaced by a rename.
func (w *writer) clear(p string) error {
	st, err := w.root.Lstat(p)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil && st.IsDir() {
		return w.root.RemoveAll(p)
	}
	return err
}

// finish makes hard links and gives directories their modes and times, the deepest first.
func (w *writer) finish() error {
	for _, l := range w.later {
		tmp := temp(l.to)
		if err := w.root.Link(l.from, tmp); err != nil {
			return fmt.Errorf("%s: %w", l.to, err)
		}
		if err := w.root.Rename(tmp, l.to); err != nil {
			return fmt.Errorf("%s: %w", l.to, err)
		}
		w.root.Remove(tmp) // rename of two names of one file does nothing and leaves both
	}
	for _, d := range w.dirs {
		if d.name == "" {
			continue // the destination itself stays as its owner made it
		}
		if len(d.node.Xattrs) > 0 {
			f, err := w.root.Open(d.name)
			if err != nil {
				return err
			}
			xattrs(f, d.node)
			f.Close()
		}
		if err := w.root.Chmod(d.name, mode(d.node)); err != nil {
			return fmt.Errorf("%s: %w", d.name, err)
		}
		if err := w.times(d.name, d.node); err != nil {
			return fmt.Errorf("%s: %w", d.name, err)
		}
	}
	return nil
}

// mode converts a tree's mode bits.
func mode(n *tree.Node) fs.FileMode {
	m := fs.FileMode(n.Mode & 0o777)
	for bit, flag := range map[uint32]fs.FileMode{0o4000: fs.ModeSetuid, 0o2000: fs.ModeSetgid, 0o1000: fs.ModeSticky} {
		if n.Mode&bit != 0 {
			m |= flag
		}
	}
	return m
}

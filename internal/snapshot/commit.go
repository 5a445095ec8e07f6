package snapshot

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"larder/internal/layer"
	"larder/internal/tree"
)

// Commit unmounts and makes a layer of what was written: its upper directory becomes the stored layer as it is. Where a
// layer of the same identity is stored already, that one is returned (DESIGN section 3). All processes that write to
// the mount have to be gone.
func (m *Mount) Commit(ctx context.Context) (l *layer.Layer, err error) {
	if m.upper == "" {
		return nil, errors.New("commit a read-only mount")
	}
	done := false
	m.once.Do(func() {
		done = true
		l, err = m.commit(ctx)
		m.err = m.finish()
		err = errors.Join(err, m.err)
	})
	if !done {
		return nil, errors.New("commit a mount that is gone")
	}
	if err != nil {
		return nil, m.store.explain(fmt.Errorf("make a layer of what the step wrote: %w", err))
	}
	return l, nil
}

func (m *Mount) commit(ctx context.Context) (*layer.Layer, error) {
	// Nobody writes any more, and what was written went into the upper directory at once: taking the mount away, which
	// waits for the kernel, and reading the directory go side by side.
	unmounted := make(chan error, 1)
	go func() { unmounted <- m.unmount() }()
	root, err := layer.FromUpper(ctx, m.upper)
	if uerr := <-unmounted; err == nil {
		err = uerr
	}
	if err != nil {
		return nil, err
	}
	lower, err := m.state.Merged(ctx)
	if err != nil {
		return nil, err
	}
	if root, err = tidy(m.upper, root, lower); err != nil {
		return nil, err
	}
	id, err := root.Identity()
	if err != nil {
		return nil, err
	}
	if e, err := m.store.lookup(id); err != nil {
		return nil, err
	} else if e != nil {
		return e.layer(), nil
	}
	staged, err := m.store.tempDir("layer")
	if err != nil {
		return nil, err
	}
	if err := os.Rename(m.upper, filepath.Join(staged, "fs")); err != nil {
		return nil, errors.Join(err, os.RemoveAll(staged))
	}
	e, _, err := m.store.publish(staged, id, true, root)
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(staged))
	}
	return e.layer(), nil
}

// tidy takes from an upper directory, and from its tree, what says nothing: directories that were only copied up
// (opening a file for writing, or a mount point that came and went, leaves such), whiteouts over nothing, and the mark
// "opaque" on new directories that hide nothing, which overlay puts on all of them. lower is what lies below, nil for
// nothing.
func tidy(dir string, upper, lower *tree.Node) (*tree.Node, error) {
	old, err := upper.Entries()
	if err != nil {
		return nil, err
	}
	if lower != nil && lower.Kind != tree.Dir || upper.Opaque {
		lower = nil
	}
	var entries []tree.Entry // set once it differs from old
	removed := false
	for i, e := range old {
		n, err := tidyEntry(filepath.Join(dir, e.Name), e, lower)
		if err != nil {
			return nil, err
		}
		if n != e.Node && entries == nil {
			entries = slices.Clone(old[:i])
			if entries == nil {
				entries = []tree.Entry{}
			}
		}
		if n != nil && entries != nil {
			entries = append(entries, tree.Entry{Name: e.Name, Node: n})
		}
		removed = removed || n == nil
	}
	if removed {
		mtime := time.Unix(0, upper.MTime)
		if err := os.Chtimes(dir, mtime, mtime); err != nil {
			return nil, err
		}
	}
	if entries == nil {
		return upper, nil
	}
	return tree.NewDir(upper.Meta, upper.Opaque, entries)
}

// tidyEntry gives what stays of one entry: nil for nothing.
func tidyEntry(path string, e tree.Entry, lower *tree.Node) (*tree.Node, error) {
	var below *tree.Node
	if lower != nil {
		var err error
		if below, err = lower.Lookup(e.Name); err != nil {
			return nil, err
		}
	}
	n := e.Node
	switch {
	case n.Kind == tree.Whiteout && below == nil:
		return nil, os.Remove(path)
	case n.Kind != tree.Dir:
		return n, nil
	}
	if n.Opaque && (below == nil || below.Kind != tree.Dir) {
		if err := unix.Lremovexattr(path, "trusted.overlay.opaque"); err != nil && !errors.Is(err, unix.ENODATA) {
			return nil, &os.PathError{Op: "removexattr", Path: path, Err: err}
		}
		entries, err := n.Entries()
		if err != nil {
			return nil, err
		}
		if n, err = tree.NewDir(n.Meta, false, slices.Clone(entries)); err != nil {
			return nil, err
		}
	}
	n, err := tidy(path, n, below)
	if err != nil {
		return nil, err
	}
	entries, err := n.Entries()
	if err != nil {
		return nil, err
	}
	if len(entries) == 0 && !n.Opaque && below != nil && below.Kind == tree.Dir && sameMeta(n, below) {
		return nil, os.Remove(path)
	}
	return n, nil
}

// sameMeta compares all but the times.
func sameMeta(a, b *tree.Node) bool {
	return a.Mode == b.Mode && a.UID == b.UID && a.GID == b.GID &&
		slices.EqualFunc(a.Xattrs, b.Xattrs, func(a, b tree.Xattr) bool {
			return a.Name == b.Name && slices.Equal(a.Value, b.Value)
		})
}

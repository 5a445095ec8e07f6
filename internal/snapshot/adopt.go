package snapshot

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"larder/internal/flock"
	"larder/internal/key"
	"larder/internal/layer"
	"larder/internal/tree"
)

// Adopt gives a stored layer, its files and its tree, the mtimes of root, another making of the same layer that was published
// before it (DESIGN section 3): root's identity is the layer's. What Layer gives afterwards has the new tree; trees that were
// handed out before stay as they are. A layer that is not stored here is none, and one that has these times costs hashing
// its tree.
//
// The tree changes at one instant, and from then on whoever opens the layer finishes what a killed process left undone.
func (s *Store) Adopt(ctx context.Context, identity key.Digest, root *tree.Node) error {
	err := s.adopt(ctx, identity, root)
	if err != nil {
		err = fmt.Errorf("adopt the times of layer %s: %w", identity, err)
	}
	return s.explain(err)
}

func (s *Store) adopt(ctx context.Context, identity key.Digest, root *tree.Node) error {
	if id, err := root.Identity(); err != nil {
		return err
	} else if id != identity {
		return fmt.Errorf("they are those of another layer, %s", id)
	}
	h := sha256.New()
	if err := tree.Encode(h, root); err != nil {
		return err
	}
	wanted := key.Digest(h.Sum(nil))
	lock, err := flock.Acquire(ctx, s.lockPath(identity), flock.Exclusive)
	if err != nil {
		return err
	}
	defer lock.Remove()
	e, err := s.lookup(identity)
	if err != nil || e == nil {
		return err
	}
	now, err := readMeta(e.dir) // which another process may have replaced since e was opened
	if err != nil {
		return err
	}
	if now.Adopting { // what is begun is finished, so that "tree.new" is free
		if now, err = finish(e.dir, now); err != nil {
			return err
		}
	}
	if now.Tree != wanted {
		if now, err = s.announce(e.dir, now, root); err != nil {
			return err
		}
		if _, err = finish(e.dir, now); err != nil {
			return err
		}
	}
	if e.Tree == wanted {
		return nil
	}
	return s.reopen(e)
}

// announce makes root the tree of a layer, whose files do not have its times yet.
func (s *Store) announce(dir string, m meta, root *tree.Node) (meta, error) {
	var err error
	if m.Tree, err = writeTree(filepath.Join(dir, "tree.new"), root); err != nil {
		return m, err
	}
	m.Adopting, m.Boot = true, s.boot
	if err := replaceMeta(dir, m); err != nil {
		return m, err
	}
	// Of the new tree nothing is known to be on the disk yet.
	if err := os.Remove(filepath.Join(dir, "synced")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return m, err
	}
	return m, nil
}

// finish gives a layer's files the times of its tree. Doing it twice does no harm.
func finish(dir string, m meta) (meta, error) {
	e := &entry{meta: m, dir: dir}
	if err := e.loadTree(); err != nil {
		return m, err
	}
	defer e.closeTree()
	if err := layer.Retime(e.fs(), nil, e.root); err != nil {
		return m, err
	}
	err := os.Rename(filepath.Join(dir, "tree.new"), filepath.Join(dir, "tree"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return m, err
	}
	m.Adopting = false
	return m, replaceMeta(dir, m)
}

// resume finishes what a killed process began, unless one that lives is at it.
func (s *Store) resume(e *entry) error {
	lock, err := flock.Try(s.lockPath(e.Identity), flock.Exclusive)
	if errors.Is(err, flock.ErrBusy) {
		return nil
	}
	if err != nil {
		return err
	}
	defer lock.Remove()
	m, err := readMeta(e.dir)
	if err != nil {
		return err
	}
	if m.Adopting {
		if _, err := finish(e.dir, m); err != nil {
			return err
		}
	}
	e.closeTree()
	return s.read(e)
}

// reopen lets a layer be found as it is now. The entry from before stays open for those who have its tree.
func (s *Store) reopen(old *entry) error {
	e, err := s.open(old.short)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		if e != nil {
			return e.close()
		}
		return nil
	}
	s.retired = append(s.retired, old)
	delete(s.entries, old.Identity)
	if e != nil {
		s.entries[old.Identity] = e
	}
	return nil
}

func (s *Store) lockPath(id key.Digest) string {
	return filepath.Join(s.base, "locks", id.Hex())
}

// replaceMeta changes what a published layer is: at one instant, or not at all.
func replaceMeta(dir string, m meta) error {
	path := filepath.Join(dir, "meta")
	if err := writeJSON(path+".new", m); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

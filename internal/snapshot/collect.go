package snapshot

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"larder/internal/flock"
	"larder/internal/key"
)

// ErrInUse is wrapped by Remove when a process works with the layer.
var ErrInUse = errors.New("layer is in use")

// Usage is one stored layer.
type Usage struct {
	Identity key.Digest
	Pinned   bool
	Size     int64 // bytes of its files
	Files    int64 // entries of its tree
	Created  time.Time
	LastUsed time.Time
	InUse    bool
}

// Usage lists the stored layers, the least recently used first.
func (s *Store) Usage(ctx context.Context) ([]Usage, error) {
	dir := filepath.Join(s.base, "layers")
	list, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	locks := flock.List()
	var out []Usage
	for _, e := range list {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		path := filepath.Join(dir, e.Name())
		if !shortName.MatchString(e.Name()) {
			continue
		}
		m, err := readMeta(path)
		if err != nil {
			continue
		}
		fi, err := os.Stat(filepath.Join(path, "meta"))
		if err != nil {
			continue
		}
		u := Usage{Identity: m.Identity, Pinned: m.Pinned, Size: m.Size, Files: m.Files, Created: m.Created, LastUsed: fi.ModTime()}
		u.InUse = locks.Held(path)
		out = append(out, u)
	}
	slices.SortFunc(out, func(a, b Usage) int { return a.LastUsed.Compare(b.LastUsed) })
	return out, nil
}

// Remove deletes a stored layer. An error wraps ErrInUse when some process, this one included, uses it; a layer that is
// not stored is none.
func (s *Store) Remove(ctx context.Context, id key.Digest) error {
	short, err := os.Readlink(s.indexPath(id))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if !shortName.MatchString(short) {
		return os.Remove(s.indexPath(id))
	}
	return s.removeDir(filepath.Join(s.base, "layers", short), &id)
}

// removeDir deletes a layer directory that nobody uses, and its link where that still leads there.
func (s *Store) removeDir(dir string, id *key.Digest) error {
	lock, err := flock.TryDir(dir, flock.Exclusive)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if errors.Is(err, flock.ErrBusy) {
		return fmt.Errorf("%s: %w", filepath.Base(dir), ErrInUse)
	}
	if err != nil {
		return err
	}
	defer lock.Unlock()
	if id != nil {
		// Whoever replaces a link holds the same lock, see unlinkDead.
		link, err := flock.Acquire(context.Background(), filepath.Join(s.base, "locks", "unlink"), flock.Exclusive)
		if err != nil {
			return err
		}
		defer link.Unlock()
		if to, err := os.Readlink(s.indexPath(*id)); err == nil && to == filepath.Base(dir) {
			if err := os.Remove(s.indexPath(*id)); err != nil {
				return err
			}
		}
	}
	return s.trash(dir)
}

// Sweep deletes layer directories that no identity leads to, or that no boot of the kernel vouches for: what a crash
// left, and layers that were replaced. It also takes away links that lead nowhere.
func (s *Store) Sweep(ctx context.Context) error {
	dir := filepath.Join(s.base, "layers")
	list, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	var errs []error
	for _, e := range list {
		path := filepath.Join(dir, e.Name())
		if !shortName.MatchString(e.Name()) {
			continue
		}
		m, err := readMeta(path)
		if err == nil && s.trusted(m, path) {
			if to, err := os.Readlink(s.indexPath(m.Identity)); err == nil && to == e.Name() {
				continue
			}
		}
		var id *key.Digest
		if err == nil {
			id = &m.Identity
		}
		// One that is being published right now is locked.
		if err := s.removeDir(path, id); err != nil && !errors.Is(err, ErrInUse) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

package cachemount

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"larder/internal/flock"
)

// Usage is one directory behind a cache mount.
type Usage struct {
	ID       string // the mount's id
	Name     string // for Remove
	Size     int64  // bytes of its files
	Files    int64  // files, links and directories
	LastUsed time.Time
	InUse    bool
}

// Usage lists what is stored.
func (s *Local) Usage(ctx context.Context) ([]Usage, error) {
	var out []Usage
	keys, err := os.ReadDir(s.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	locks := flock.List()
	for _, k := range keys {
		dir := filepath.Join(s.dir, k.Name())
		numbers, err := slots(dir)
		if err != nil {
			continue // no directory, or gone
		}
		for _, n := range numbers {
			slot := filepath.Join(dir, strconv.Itoa(n))
			u := Usage{Name: filepath.Join(k.Name(), strconv.Itoa(n))}
			u.ID, u.LastUsed = describe(slot)
			if u.Size, u.Files, err = measure(ctx, filepath.Join(slot, "data")); err != nil {
				return nil, err
			}
			u.InUse = locks.Held(slot)
			out = append(out, u)
		}
	}
	return out, nil
}

// ErrInUse is wrapped by Remove when a step uses the mount.
var ErrInUse = errors.New("cache mount is in use")

// Remove deletes one directory by the name that Usage gave it.
func (s *Local) Remove(name string) error {
	if !filepath.IsLocal(name) || strings.Count(name, "/") != 1 {
		return fmt.Errorf("%q is no cache mount", name)
	}
	slot := filepath.Join(s.dir, name)
	lock, err := flock.TryDir(slot, flock.Exclusive)
	if errors.Is(err, flock.ErrBusy) {
		return fmt.Errorf("%s: %w", name, ErrInUse)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer lock.Unlock()
	old := filepath.Join(filepath.Dir(slot), "old-"+filepath.Base(slot)+"-"+strconv.FormatInt(time.Now().UnixNano(), 36))
	if err := os.Rename(slot, old); err != nil {
		return err
	}
	return os.RemoveAll(old)
}

func describe(slot string) (id string, used time.Time) {
	f, err := os.Open(filepath.Join(slot, "key"))
	if err != nil {
		return "", used
	}
	defer f.Close()
	if fi, err := f.Stat(); err == nil {
		used = fi.ModTime()
	}
	b, _ := io.ReadAll(io.LimitReader(f, 4096))
	return strings.TrimSpace(string(b)), used
}

func measure(ctx context.Context, dir string) (size, files int64, err error) {
	err = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err != nil {
			return nil // a step deletes while we look
		}
		files++
		if d.Type().IsRegular() {
			if fi, err := d.Info(); err == nil {
				size += fi.Size()
			}
		}
		return nil
	})
	return size, files, err
}

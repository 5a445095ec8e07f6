package cachemount

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"larder/internal/flock"
	"larder/internal/key"
)

// Sharing says what happens when two steps want the same cache mount at once.
type Sharing int

// The modes of --mount=type=cache,sharing=.
const (
	Shared  Sharing = iota // they write to it together
	Private                // the second one gets another directory
	Locked                 // the second one waits
)

// Key is what tells cache mounts apart.
type Key struct {
	// ID is the mount's id, as a rule its target; it holds the frontend's cache namespace where there is one.
	ID string
	// Base are the identities of the layers that it starts from, and Selector the directory in them: a mount with other
	// initial contents is another one, as in BuildKit.
	Base     []key.Digest
	Selector string
}

func (k Key) hash() key.Digest {
	return key.New("larder.cachemount.v1").Str(k.ID).Digests(k.Base).Str(k.Selector).Sum()
}

// Fill puts the initial contents into a new, empty directory. It may change the directory's own mode and owner.
type Fill func(ctx context.Context, dir string) error

// Store hands out cache mounts. Local is one on this machine's disk; one that saves them elsewhere stands before it.
type Store interface {
	// Acquire gives a directory for a step. It returns when the directory can be used under the given sharing; fill is
	// called when it is new. Release has to be called when no process uses the directory any more.
	Acquire(ctx context.Context, k Key, sharing Sharing, fill Fill) (Mount, error)
}

// Mount is a cache mount in the hands of a step.
type Mount interface {
	// Dir is a real directory to mount into the step.
	Dir() string
	// Release gives it back. keep tells whether the step succeeded, so that what it left is worth saving; on this disk
	// it stays in any case, half a download being better than none.
	Release(keep bool) error
}

// Local is a Store in a directory, shared by any number of processes. It is safe for concurrent use.
type Local struct {
	dir string
}

// Open opens the store in dir, which it makes when it is first needed.
func Open(dir string) *Local { return &Local{dir: dir} }

// maxSlots bounds how many directories one key may have at a time.
const maxSlots = 1 << 12

type local struct {
	dir  string
	lock *flock.Lock
}

func (m *local) Dir() string { return filepath.Join(m.dir, "data") }

func (m *local) Release(bool) error { return m.lock.Unlock() }

// Acquire is Store's.
func (s *Local) Acquire(ctx context.Context, k Key, sharing Sharing, fill Fill) (Mount, error) {
	m, err := s.acquire(ctx, k, sharing, fill)
	if err != nil {
		return nil, fmt.Errorf("cache mount %s: %w", k.ID, err)
	}
	now := time.Now()
	os.Chtimes(filepath.Join(m.dir, "key"), now, now)
	return m, nil
}

func (s *Local) acquire(ctx context.Context, k Key, sharing Sharing, fill Fill) (*local, error) {
	dir := filepath.Join(s.dir, k.hash().Hex())
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	mode := flock.Exclusive
	if sharing == Shared {
		mode = flock.Shared
	}
	for wait := time.Millisecond; ; wait = min(2*wait, 50*time.Millisecond) {
		m, taken, err := s.take(dir, mode)
		if err != nil || m != nil {
			return m, err
		}
		if sharing != Locked || taken == 0 {
			if err := s.add(ctx, dir, k, fill, sharing); err != nil {
				return nil, err
			}
			continue
		}
		t := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			t.Stop()
			return nil, context.Cause(ctx)
		case <-t.C:
		}
	}
}

// take locks the first directory that can be had, and otherwise says how many there are.
func (s *Local) take(dir string, mode flock.Mode) (m *local, taken int, err error) {
	slots, err := slots(dir)
	if err != nil {
		return nil, 0, err
	}
	for _, n := range slots {
		slot := filepath.Join(dir, strconv.Itoa(n))
		lock, err := flock.TryDir(slot, mode)
		switch {
		case err == nil:
			return &local{dir: slot, lock: lock}, 0, nil
		case errors.Is(err, flock.ErrBusy):
			taken++
		case !errors.Is(err, fs.ErrNotExist): // pruned meanwhile
			return nil, 0, err
		}
	}
	return nil, taken, nil
}

// slots lists the numbers of a key's directories in order.
func slots(dir string) ([]int, error) {
	list, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	have := make([]bool, 0, len(list))
	for _, e := range list {
		n, err := strconv.Atoi(e.Name())
		if err != nil || n < 0 || n >= maxSlots {
			continue
		}
		for len(have) <= n {
			have = append(have, false)
		}
		have[n] = true
	}
	var out []int
	for n, ok := range have {
		if ok {
			out = append(out, n)
		}
	}
	return out, nil
}

// add makes one more directory for a key, complete before anybody sees it. Whoever fills one keeps others from filling
// the same; where one has come into being meanwhile that will do, nothing is added.
func (s *Local) add(ctx context.Context, dir string, k Key, fill Fill, sharing Sharing) error {
	lock, err := flock.Acquire(ctx, filepath.Join(dir, "add.lock"), flock.Exclusive)
	if err != nil {
		return err
	}
	defer lock.Unlock()
	mode := flock.Exclusive
	if sharing == Shared {
		mode = flock.Shared
	}
	m, taken, err := s.take(dir, mode)
	if err != nil {
		return err
	}
	if m != nil {
		return m.lock.Unlock()
	}
	if sharing == Locked && taken > 0 {
		return nil
	}
	// Holding the lock, what an earlier process left half-made is ours to delete.
	if err := removeStale(dir); err != nil {
		return err
	}
	staged, err := os.MkdirTemp(dir, "new-")
	if err != nil {
		return err
	}
	done := false
	defer func() {
		if !done {
			os.RemoveAll(staged)
		}
	}()
	data := filepath.Join(staged, "data")
	if err := os.Mkdir(data, 0o755); err != nil {
		return err
	}
	if fill != nil {
		if err := fill(ctx, data); err != nil {
			return err
		}
	}
	if err := os.WriteFile(filepath.Join(staged, "key"), []byte(k.ID+"\n"), 0o644); err != nil {
		return err
	}
	have, err := slots(dir)
	if err != nil {
		return err
	}
	n := 0
	for _, h := range have {
		if h == n {
			n++
		}
	}
	if n >= maxSlots {
		return errors.New("too many steps use it at once")
	}
	if err := os.Rename(staged, filepath.Join(dir, strconv.Itoa(n))); err != nil {
		return err
	}
	done = true
	return nil
}

func removeStale(dir string) error {
	list, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	var errs []error
	for _, e := range list {
		if strings.HasPrefix(e.Name(), "new-") || strings.HasPrefix(e.Name(), "old-") {
			errs = append(errs, os.RemoveAll(filepath.Join(dir, e.Name())))
		}
	}
	return errors.Join(errs...)
}

package cachemount

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"larder/internal/flock"
	"larder/internal/key"
	"larder/internal/tree"
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
	// Platform is the step's, as "linux/amd64".
	Platform string
	// Base are the identities of the layers that it starts from, and Selector the directory in them: a mount with other
	// initial contents is another one, as in BuildKit.
	Base     []key.Digest
	Selector string
}

// Digest names the mount in catalogs.
func (k Key) Digest() key.Digest {
	return key.New("larder.cachemount.v2").Str(k.ID).Str(k.Platform).Digests(k.Base).Str(k.Selector).Sum()
}

// Name is the mount's id for people.
func (k Key) Name() string { return path.Clean(k.ID) }

// Fill puts the initial contents into a new, empty directory. It may change the directory's own mode and owner.
type Fill func(ctx context.Context, dir string) error

// Store hands out cache mounts. Local's are on this machine's disk, Saved's are kept beyond it.
type Store interface {
	// Acquire gives a directory for a step. It returns when the directory can be used under the given sharing; fill is
	// called when it is new. Release has to be called when no process uses the directory any more.
	Acquire(ctx context.Context, k Key, sharing Sharing, fill Fill) (Mount, error)
}

// Mount is a cache mount in the hands of a step.
type Mount interface {
	// Dir is a real directory to mount into the step.
	Dir() string
	// Past says what steps that had the mount were shown before, and how new what they left can be.
	Past() (Past, error)
	// Show adds what this step is going to be shown to what Past will say. It has to be called before the step runs: what a killed
	// step leaves was made of that. by names who is shown it, see ledger.Look.
	Show(ctx context.Context, seen *tree.Node, by key.Digest) error
	// Guard says, before the step runs, which values it was given that are not to be saved with the mount.
	Guard(secrets [][]byte) error
	// Release gives it back. whole says that the step's command came to its end, whether or not it succeeded: what it left is worth
	// saving.
	Release(whole bool) error
}

// Past is what a mount knows of the steps that had it (DESIGN section 3, Times).
type Past struct {
	// Ledger are the files that they were shown, as Show got them; nil for none.
	Ledger *tree.Node
	// Newest is the time after which nothing in the mount was written, in nanoseconds since 1970. 0 says that no step has had it.
	Newest int64
}

// Local is a Store in a directory, shared by any number of processes. It is safe for concurrent use.
type Local struct {
	dir    string
	domain string
}

// Open opens the store in dir, which it makes when it is first needed.
func Open(dir string) *Local { return &Local{dir: dir} }

// In gives the part of the store that belongs to a domain. Builds that do not trust each other are given different ones, and none of
// them sees what another left.
func (s *Local) In(domain string) *Local { return &Local{s.dir, domain} }

func (s *Local) keyDir(k Key) string {
	return filepath.Join(s.dir, key.New("larder.cachemount.slot.v1").Digest(k.Digest()).Str(s.domain).Sum().Hex())
}

// maxSlots bounds how many directories one key may have at a time.
const maxSlots = 1 << 12

// Acquire is Store's.
func (s *Local) Acquire(ctx context.Context, k Key, sharing Sharing, fill Fill) (Mount, error) {
	m, err := s.acquire(ctx, k, sharing, fill)
	if err != nil {
		return nil, err
	}
	return m, nil
}

func (s *Local) acquire(ctx context.Context, k Key, sharing Sharing, fill Fill) (*slot, error) {
	m, err := s.wait(ctx, k, sharing, fill)
	if err != nil {
		return nil, fmt.Errorf("cache mount %s: %w", k.Name(), err)
	}
	m.begin()
	return m, nil
}

// wait gives a directory once one can be used.
func (s *Local) wait(ctx context.Context, k Key, sharing Sharing, fill Fill) (*slot, error) {
	dir := s.keyDir(k)
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
func (s *Local) take(dir string, mode flock.Mode) (m *slot, taken int, err error) {
	slots, err := slots(dir)
	if err != nil {
		return nil, 0, err
	}
	for _, n := range slots {
		path := filepath.Join(dir, strconv.Itoa(n))
		shared := mode == flock.Shared && flock.List().Held(path)
		lock, err := flock.TryDir(path, mode)
		switch {
		case err == nil:
			return &slot{dir: path, lock: lock, shared: shared}, 0, nil
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

// lockAdding keeps others from making directories for a key.
func (s *Local) lockAdding(ctx context.Context, dir string) (*flock.Lock, error) {
	return flock.Acquire(ctx, addLock(dir), flock.Exclusive)
}

func addLock(dir string) string { return filepath.Join(dir, "add.lock") }

// leaveLock is had for the moment in which a step that leaves finds out whether it is the last: its directory looks taken then.
func leaveLock(dir string) string { return filepath.Join(dir, "leave.lock") }

// add makes one more directory for a key, complete before anybody sees it. Whoever fills one keeps others from filling
// the same; where one has come into being meanwhile that will do, nothing is added.
func (s *Local) add(ctx context.Context, dir string, k Key, fill Fill, sharing Sharing) error {
	lock, err := s.lockAdding(ctx, dir)
	if err != nil {
		return err
	}
	defer lock.Unlock()
	mode := flock.Exclusive
	if sharing == Shared {
		mode = flock.Shared
	}
	leaving, err := flock.Acquire(ctx, leaveLock(dir), flock.Exclusive)
	if err != nil {
		return err
	}
	m, taken, err := s.take(dir, mode)
	leaving.Unlock()
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
	if err := os.WriteFile(filepath.Join(staged, "key"), []byte(k.Name()+"\n"), 0o644); err != nil {
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
	return removeEntries(dir, func(name string) bool { return strings.HasPrefix(name, "new-") || strings.HasPrefix(name, "old-") })
}

// removeEntries removes what is in a directory under names that are meant.
func removeEntries(dir string, meant func(name string) bool) error {
	list, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	var errs []error
	for _, e := range list {
		if meant(e.Name()) {
			errs = append(errs, os.RemoveAll(filepath.Join(dir, e.Name())))
		}
	}
	return errors.Join(errs...)
}

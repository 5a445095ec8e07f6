package content

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"larder/internal/key"
)

// Freed says what a collection removed.
type Freed struct {
	Blobs int
	Bytes int64
}

// Collect deletes the blobs for which keep says false and that no living process has in its lease. keep is called without
// any lock held and may be slow; other processes wait only while files are deleted.
func (s *Store) Collect(ctx context.Context, keep func(Info) bool) (Freed, error) {
	var drop []Info
	err := s.Walk(func(i Info) error {
		if !keep(i) {
			drop = append(drop, i)
		}
		return ctx.Err()
	})
	if err != nil {
		return Freed{}, fmt.Errorf("collect blobs: %w", err)
	}
	lock, err := s.exclusive(ctx)
	if err != nil {
		return Freed{}, fmt.Errorf("collect blobs: %w", err)
	}
	defer lock.Close()
	s.sweepTmp()
	held, err := s.leased()
	if err != nil {
		return Freed{}, fmt.Errorf("collect blobs: %w", err)
	}
	var freed Freed
	for _, i := range drop {
		if err := ctx.Err(); err != nil {
			return freed, err
		}
		d, _ := key.FromOCI(i.Digest)
		if _, ok := held[d]; ok {
			continue
		}
		if err := s.Delete(i.Digest); err != nil {
			return freed, fmt.Errorf("collect blobs: %w", err)
		}
		freed.Blobs++
		freed.Bytes += i.Size
	}
	return freed, nil
}

// exclusive keeps every process from taking leases until the file is closed.
func (s *Store) exclusive(ctx context.Context) (*os.File, error) {
	f, err := os.OpenFile(s.path("lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	for {
		err := flock(f, unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return f, nil
		}
		if err != unix.EWOULDBLOCK {
			f.Close()
			return nil, err
		}
		select {
		case <-ctx.Done():
			f.Close()
			return nil, ctx.Err()
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// leased reads the leases of living processes and removes the others. The caller holds the lock exclusively.
func (s *Store) leased() (map[key.Digest]struct{}, error) {
	held := map[key.Digest]struct{}{}
	entries, err := os.ReadDir(s.path("leases"))
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		p := s.path("leases", e.Name())
		if abandoned(p) {
			continue
		}
		b, err := os.ReadFile(p)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		for r := bytes.NewReader(b); ; {
			var d key.Digest
			if n, _ := r.Read(d[:]); n < key.Size {
				break
			}
			held[d] = struct{}{}
		}
	}
	return held, nil
}

// abandoned removes a file whose owner's flock is gone, and says so.
func abandoned(path string) bool {
	f, err := os.Open(path)
	if err != nil {
		return errors.Is(err, fs.ErrNotExist)
	}
	defer f.Close()
	if flock(f, unix.LOCK_EX|unix.LOCK_NB) != nil {
		return false
	}
	return os.Remove(path) == nil
}

func (s *Store) sweepTmp() {
	entries, _ := os.ReadDir(s.path("tmp"))
	for _, e := range entries {
		abandoned(s.path("tmp", e.Name()))
	}
}

// sweepLeases removes the leases of processes that were killed, unless somebody is taking one just now.
func (s *Store) sweepLeases() {
	f, err := os.OpenFile(s.path("lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return
	}
	defer f.Close()
	if flock(f, unix.LOCK_EX|unix.LOCK_NB) == nil {
		entries, _ := os.ReadDir(s.path("leases"))
		for _, e := range entries {
			abandoned(s.path("leases", e.Name()))
		}
	}
}

// sweepOldBoots drops blobs that were never synced before the machine went down: nobody may believe them.
func (s *Store) sweepOldBoots() {
	if !s.bootKnown {
		return // the other directories may be living processes'
	}
	entries, _ := os.ReadDir(s.path("new"))
	for _, e := range entries {
		if p := s.path("new", e.Name()); p != s.fresh {
			os.RemoveAll(p)
		}
	}
}

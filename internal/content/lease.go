package content

import (
	"errors"
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"larder/internal/key"
)

// lease is the list of blobs that this process relies on: an flocked file of raw digests.
type lease struct {
	store *Store

	mu   sync.Mutex // also serialises the use of lock: flocks of one descriptor do not count
	f    *os.File
	lock *os.File
	held map[key.Digest]struct{}
}

// hold enters d into the lease, before the caller looks whether the blob is there: a collector has then either deleted it
// already or will not.
func (l *lease) hold(d key.Digest) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, ok := l.held[d]; ok {
		return nil
	}
	if err := l.add(d); err != nil {
		return fmt.Errorf("lease for blob %s: %w", d, err)
	}
	return nil
}

func (l *lease) add(d key.Digest) error {
	if l.lock == nil {
		f, err := os.OpenFile(l.store.path("lock"), os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			return err
		}
		l.lock = f
	}
	if err := flock(l.lock, unix.LOCK_SH); err != nil {
		return err
	}
	defer unix.Flock(int(l.lock.Fd()), unix.LOCK_UN)
	if l.f == nil {
		f, err := os.CreateTemp(l.store.path("leases"), fmt.Sprintf("%d-", os.Getpid()))
		if err != nil {
			return err
		}
		if err := flock(f, unix.LOCK_EX); err != nil {
			f.Close()
			return err
		}
		l.f, l.held = f, map[key.Digest]struct{}{}
	}
	if _, err := l.f.Write(d[:]); err != nil {
		return err
	}
	l.held[d] = struct{}{}
	return nil
}

func (l *lease) close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	var errs []error
	if l.f != nil {
		errs = append(errs, os.Remove(l.f.Name()), l.f.Close())
	}
	if l.lock != nil {
		errs = append(errs, l.lock.Close())
	}
	l.f, l.lock, l.held = nil, nil, nil
	return errors.Join(errs...)
}

func flock(f *os.File, how int) error {
	for {
		err := unix.Flock(int(f.Fd()), how)
		if err != unix.EINTR {
			return err
		}
	}
}

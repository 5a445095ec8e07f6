// Package flock holds advisory locks between processes. The kernel lets go of them when their owner dies, however it
// died, which is what makes leftovers of a killed process recognisable.
package flock

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// ErrBusy is wrapped by Try and TryDir when somebody else holds the lock in a mode that excludes ours.
var ErrBusy = errors.New("locked by another user")

// Mode says whom a lock keeps out.
type Mode int

// Shared admits other Shared holders; Exclusive admits nobody.
const (
	Shared    Mode = unix.LOCK_SH
	Exclusive Mode = unix.LOCK_EX
)

// Lock is a lock that is held. It belongs to the open file, so two Locks of one process exclude each other just as two
// processes do. Its methods are not safe for concurrent use.
type Lock struct {
	f    *os.File
	path string
}

// Try takes the lock of a file, which it makes where it is missing, or fails at once with ErrBusy.
func Try(path string, mode Mode) (*Lock, error) {
	return try(path, os.O_RDWR|os.O_CREATE, mode)
}

// TryDir takes the lock of a directory that exists, or fails at once with ErrBusy.
func TryDir(path string, mode Mode) (*Lock, error) {
	return try(path, os.O_RDONLY|unix.O_DIRECTORY, mode)
}

func try(path string, flags int, mode Mode) (*Lock, error) {
	for {
		f, err := os.OpenFile(path, flags, 0o600)
		if err != nil {
			return nil, err
		}
		if err := flock(f, int(mode)|unix.LOCK_NB); err != nil {
			f.Close()
			if errors.Is(err, unix.EWOULDBLOCK) {
				err = ErrBusy
			}
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
		// Whoever held it before may have removed or replaced the file between our open and our lock; a lock on a
		// file that nobody else can find keeps nobody out.
		same, err := isAt(f, path)
		if err != nil {
			f.Close()
			return nil, err
		}
		if same {
			return &Lock{f: f, path: path}, nil
		}
		f.Close()
	}
}

// Acquire is Try that waits for its turn until ctx ends. Waiting is polling, from 1 ms up to 50 ms apart: a blocked
// flock could not be cancelled.
func Acquire(ctx context.Context, path string, mode Mode) (*Lock, error) {
	wait := time.Millisecond
	for {
		l, err := Try(path, mode)
		if err == nil || !errors.Is(err, ErrBusy) {
			return l, err
		}
		t := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			t.Stop()
			return nil, context.Cause(ctx)
		case <-t.C:
		}
		wait = min(wait*2, 50*time.Millisecond)
	}
}

// Alone makes a shared lock exclusive if nobody else holds it, and tells whether it is. Where it is not, the lock may be lost: nothing but Unlock
// is to follow.
func (l *Lock) Alone() (bool, error) {
	err := flock(l.f, unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return false, nil
	}
	return err == nil, err
}

// Unlock lets go and leaves the file where it is.
func (l *Lock) Unlock() error { return l.f.Close() }

// Remove deletes the file and then lets go, so that locks of things that come and go do not pile up.
func (l *Lock) Remove() error {
	err := os.Remove(l.path)
	return errors.Join(err, l.f.Close())
}

// Moved tells the lock that its file or directory was renamed.
func (l *Lock) Moved(path string) { l.path = path }

func flock(f *os.File, how int) error {
	for {
		err := unix.Flock(int(f.Fd()), how)
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

func isAt(f *os.File, path string) (bool, error) {
	held, err := f.Stat()
	if err != nil {
		return false, err
	}
	found, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return os.SameFile(held, found), nil
}

package record

import (
	"context"
	"errors"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"larder/internal/key"
)

// Lock makes the caller the only one, among all processes that share the local root, that works on a key. It waits for
// the one that does, for as long as ctx lives. The kernel drops the lock of a process that dies. The function it
// gives releases it and removes its file.
func (s *Store) Lock(ctx context.Context, k key.Digest) (unlock func(), err error) {
	path := s.locks + "/" + k.Hex()
	wait := time.Millisecond
	for {
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			return nil, err
		}
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil && sameFile(f, path) {
			return func() {
				os.Remove(path)
				f.Close()
			}, nil
		}
		f.Close()
		if err != nil && !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			return nil, err
		}
		if err == nil {
			continue // its last holder removed the file between our open and our lock
		}
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-time.After(wait):
		}
		wait = min(2*wait, 50*time.Millisecond)
	}
}

func sameFile(f *os.File, path string) bool {
	a, err := f.Stat()
	if err != nil {
		return false
	}
	b, err := os.Stat(path)
	return err == nil && os.SameFile(a, b)
}

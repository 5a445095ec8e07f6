package record

import (
	"context"
	"path/filepath"

	"larder/internal/flock"
	"larder/internal/key"
)

// Lock makes the caller the only one, among all processes that share the local root, that works on a key. It waits for
// the one that does, for as long as ctx lives. The function it gives ends that.
func (s *Store) Lock(ctx context.Context, k key.Digest) (unlock func(), err error) {
	l, err := flock.Acquire(ctx, filepath.Join(s.locks, k.Hex()), flock.Exclusive)
	if err != nil {
		return nil, err
	}
	return func() { l.Remove() }, nil
}

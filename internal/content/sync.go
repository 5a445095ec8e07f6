package content

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"larder/internal/key"
)

// Sync makes the blobs that are fresh now durable. It may take as long as the disk needs; nobody waits for it meanwhile.
func (s *Store) Sync(ctx context.Context) error {
	entries, err := os.ReadDir(s.fresh)
	if err != nil || len(entries) == 0 {
		return err
	}
	dir, err := os.Open(s.dir)
	if err != nil {
		return err
	}
	defer dir.Close()
	if err := unix.Syncfs(int(dir.Fd())); err != nil {
		return fmt.Errorf("sync blob store: %w", err)
	}
	for _, e := range entries {
		if err := ctx.Err(); err != nil {
			return err
		}
		d, err := key.Parse("sha256:" + e.Name())
		if err != nil {
			continue
		}
		dst := s.durablePath(d)
		if err := os.MkdirAll(filepath.Dir(dst), 0o700); err != nil {
			return fmt.Errorf("sync blob store: %w", err)
		}
		if err := os.Rename(s.freshPath(d), dst); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("sync blob store: %w", err)
		}
	}
	return nil
}

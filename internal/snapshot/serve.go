package snapshot

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"larder/internal/treefs"
)

// Served are trees that a step is shown by treefs, which notes what the step looks at.
type Served struct {
	*treefs.FS
	dir string
}

// Serve shows trees, each in a directory of its own (treefs.FS.Dir), for mounts to stand on. Close ends it when those are gone. ctx is
// the step's. An error wraps treefs.ErrUnavailable where this machine cannot do that.
func (s *Store) Serve(ctx context.Context, parts []treefs.Part, opt treefs.Options) (_ *Served, err error) {
	dir, err := s.tempDir("f")
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = s.explain(errors.Join(err, removeTree(dir)))
		}
	}()
	at := filepath.Join(dir, "fs")
	if err := errors.Join(os.Mkdir(at, 0o755), os.Mkdir(filepath.Join(dir, "tmp"), 0o700)); err != nil {
		return nil, err
	}
	opt.Temp = filepath.Join(dir, "tmp")
	fs, err := treefs.Mount(ctx, at, parts, opt)
	if err != nil {
		return nil, err
	}
	return &Served{fs, dir}, nil
}

// Close ends the serving and removes what it needed. It may be called any number of times.
func (s *Served) Close() error {
	return errors.Join(s.FS.Close(), removeTree(s.dir))
}

// Alive gives an error where the serving has ended by itself: the kernel was told to, or its device was closed. Whoever looked since then
// saw errors in the place of files.
func (s *Served) Alive() error {
	var st unix.Statfs_t // which no kernel answers from what it remembers
	if err := unix.Statfs(s.Dir(0), &st); err == unix.ENOTCONN || err == unix.ECONNABORTED {
		return fmt.Errorf("the FUSE file system that showed the step its inputs ended while it ran (%w); build again, or with --observe=off", err)
	}
	return nil
}

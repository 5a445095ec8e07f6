package snapshot

import (
	"context"
	"errors"
	"os"
	"path/filepath"

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

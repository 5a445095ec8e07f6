package ledger

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"

	"larder/internal/disk"
	"larder/internal/flock"
	"larder/internal/tree"
)

// maxFile bounds the file of a ledger, in bytes.
const maxFile = 256 << 20

// LockSuffix is what the name of a file's lock ends with, which lies beside it for a while.
const LockSuffix = ".lock"

// ReadFile reads the ledger in a file; nil where there is none. Damage is an error, rather than no ledger: without one, files that changed
// would pass for files that did not.
func ReadFile(path string) (*tree.Node, error) {
	b, err := disk.ReadFile(path, maxFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return tree.Decode(bytes.NewReader(b), int64(len(b)))
}

// WriteFile writes a ledger to a file: there is either the old one or the whole new one.
func WriteFile(path string, root *tree.Node) error {
	return disk.Replace(path, func(w io.Writer) error { return tree.Encode(w, root) })
}

// UpdateFile puts the ledger that next makes in the place of the one in a file, one process at a time. old is nil where there is none, and
// empty, so that all files count as changed, where it is damaged.
func UpdateFile(ctx context.Context, path string, next func(old *tree.Node) (*tree.Node, error)) error {
	lock, err := flock.Acquire(ctx, path+LockSuffix, flock.Exclusive)
	if err != nil {
		return err
	}
	defer lock.Remove()
	old, err := ReadFile(path)
	if err != nil {
		old = tree.Empty()
	}
	root, err := next(old)
	if err != nil {
		return err
	}
	if old != nil {
		if same, err := tree.Equal(old, root); same || err != nil {
			return err
		}
	}
	return WriteFile(path, root)
}

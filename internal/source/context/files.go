package context

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"

	"golang.org/x/sys/unix"

	"larder/internal/key"
	"larder/internal/layer"
	"larder/internal/tree"
)

// files opens the files of a scanned directory by digest.
type files struct {
	dir  *os.File
	name string
	tree *tree.Node

	once   sync.Once
	failed error
	dirs   []place // directories with files
	index  []int32 // into all files, sorted by digest
	starts []int32 // of dirs: how many files stand before
}

type place struct {
	path    string
	entries []tree.Entry
}

// build makes the index: 4 bytes for a file, and the paths of directories.
func (f *files) build() {
	f.failed = f.add("", f.tree)
	total := int32(0)
	for _, d := range f.dirs {
		f.starts = append(f.starts, total)
		total += int32(len(d.entries))
	}
	for i := int32(0); i < total; i++ {
		if e, _ := f.at(i); e.Node.Kind == tree.File {
			f.index = append(f.index, i)
		}
	}
	slices.SortStableFunc(f.index, func(a, b int32) int {
		x, _ := f.at(a)
		y, _ := f.at(b)
		return bytes.Compare(x.Node.Content[:], y.Node.Content[:])
	})
}

func (f *files) add(path string, dir *tree.Node) error {
	entries, err := dir.Entries()
	if err != nil {
		return err
	}
	if slices.ContainsFunc(entries, func(e tree.Entry) bool { return e.Node.Kind == tree.File }) {
		f.dirs = append(f.dirs, place{path, entries})
	}
	for _, e := range entries {
		if e.Node.Kind == tree.Dir {
			if err := f.add(join(path, e.Name), e.Node); err != nil {
				return err
			}
		}
	}
	return nil
}

// at gives the i-th entry of all directories and the directory that it is in.
func (f *files) at(i int32) (tree.Entry, string) {
	d, exact := slices.BinarySearch(f.starts, i)
	if !exact {
		d--
	}
	return f.dirs[d].entries[i-f.starts[d]], f.dirs[d].path
}

// Open implements layer.Source. The bytes are as they are now; where they are plainly not those of the scan the error is
// a *layer.ChangedError.
func (f *files) Open(ctx context.Context, d key.Digest, size int64) (io.ReadCloser, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if d == emptyDigest {
		return io.NopCloser(bytes.NewReader(nil)), nil
	}
	f.once.Do(f.build)
	if f.failed != nil {
		return nil, f.failed
	}
	first, found := slices.BinarySearchFunc(f.index, d, func(i int32, d key.Digest) int {
		e, _ := f.at(i)
		return bytes.Compare(e.Node.Content[:], d[:])
	})
	if !found {
		return nil, fmt.Errorf("%s in context %s: %w", d, f.name, layer.ErrNoContent)
	}
	var changed error
	for _, i := range f.index[first:] {
		e, dir := f.at(i)
		if e.Node.Content != d {
			break
		}
		r, err := f.open(join(dir, e.Name), size)
		if err == nil {
			return r, nil
		}
		if changed == nil {
			changed = err
		}
	}
	return nil, changed
}

// open opens a file if it can still be the one of the scan.
func (f *files) open(path string, size int64) (io.ReadCloser, error) {
	fd, err := openBeneath(f.dir, path, unix.O_RDONLY|unix.O_NONBLOCK)
	if vanished(err) {
		return nil, &layer.ChangedError{Name: path}
	}
	if err != nil {
		return nil, fmt.Errorf("context %s: %w", f.name, unreadable(path, err))
	}
	file := os.NewFile(uintptr(fd), f.name+"/"+path)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		file.Close()
		return nil, fmt.Errorf("context %s: %s: %w", f.name, path, err)
	}
	switch {
	case st.Mode&unix.S_IFMT != unix.S_IFREG || st.Size < size:
		file.Close()
		return nil, &layer.ChangedError{Name: path}
	case st.Size > size:
		// It grew, as logs do; the digest will tell whether the start of it is what it was.
		return longer{io.LimitReader(file, size), file}, nil
	}
	return file, nil
}

// longer is the start of a file that has grown.
type longer struct {
	io.Reader
	file *os.File
}

// Name is the file's path.
func (g longer) Name() string { return g.file.Name() }

// Close implements io.Closer.
func (g longer) Close() error { return g.file.Close() }

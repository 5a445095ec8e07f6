package layer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"larder/internal/disk"
	"larder/internal/key"
	"larder/internal/tree"
)

// StoredFile is an open file of a directory that is larder's own, where nobody edits anything: its bytes need not be compared with
// their digest again.
type StoredFile struct{ *os.File }

// DirSource opens the Files of root, whose contents lie below dir under the same paths. dir is an overlay lower directory of the
// local root, never one that others write to. Links are never followed, so nothing outside dir is read. The readers are
// *StoredFile. An index from digests to paths is made at the first Open.
func DirSource(dir string, root *tree.Node) Source { return &dirSource{dir: dir, root: root} }

type dirSource struct {
	dir  string
	root *tree.Node

	mu    sync.Mutex
	paths map[key.Digest]place
	top   *os.File // dir; closed when the source is no longer in use
}

// place is a path in two parts, both of which exist already: one string per directory, one per name.
type place struct{ dir, name string }

func (s *dirSource) Open(_ context.Context, d key.Digest, size int64) (io.ReadCloser, error) {
	p, ok, err := s.find(d)
	if err != nil {
		return nil, err
	}
	if !ok {
		return nil, fmt.Errorf("%s: %w", d, ErrNoContent)
	}
	rel := joinRel(p.dir, p.name)
	fd, err := disk.OpenBeneath(int(s.top.Fd()), rel, unix.O_RDONLY|unix.O_NONBLOCK, 0)
	switch {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENOTDIR), errors.Is(err, unix.ELOOP):
		return nil, fmt.Errorf("open %s: %v: %w", joinRel(s.dir, rel), err, ErrNoContent)
	case err != nil:
		return nil, fmt.Errorf("open %s: %w", joinRel(s.dir, rel), err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFREG || st.Size != size {
		unix.Close(fd)
		return nil, &ChangedError{Name: joinRel(s.dir, rel)}
	}
	return &StoredFile{os.NewFile(uintptr(fd), joinRel(s.dir, rel))}, nil
}

// Close gives up the directory before the collector of garbage would; nobody may open anything afterwards.
func (s *dirSource) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.top == nil {
		return nil
	}
	return s.top.Close()
}

func (s *dirSource) find(d key.Digest) (place, bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.paths == nil {
		top, err := os.OpenFile(s.dir, unix.O_PATH|unix.O_DIRECTORY, 0)
		if err != nil {
			if errors.Is(err, fs.ErrNotExist) {
				err = fmt.Errorf("%w: %w", err, ErrNoContent)
			}
			return place{}, false, err
		}
		paths := map[key.Digest]place{}
		if err := indexContents(paths, "", s.root); err != nil {
			top.Close()
			return place{}, false, err
		}
		s.paths, s.top = paths, top
	}
	p, ok := s.paths[d]
	return p, ok, nil
}

func indexContents(paths map[key.Digest]place, dir string, n *tree.Node) error {
	entries, err := n.Entries()
	if err != nil {
		return err
	}
	for _, e := range entries {
		switch e.Node.Kind {
		case tree.File:
			if _, ok := paths[e.Node.Content]; !ok {
				paths[e.Node.Content] = place{dir, e.Name}
			}
		case tree.Dir:
			if err := indexContents(paths, joinRel(dir, e.Name), e.Node); err != nil {
				return err
			}
		}
	}
	return nil
}

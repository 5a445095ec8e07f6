package layer

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"larder/internal/key"
	"larder/internal/tree"
)

// Materialise writes a layer tree as an overlay lower directory into dir, which exists, is empty and is nobody else's. The
// contents come from src and are verified (*ChangedError). Large files are cloned where src gives *os.File or *StoredFile on the same
// file system and that can clone. Sockets are left out, as in tars. After an error dir holds a part.
func Materialise(ctx context.Context, root *tree.Node, src Source, dir string) error {
	rootDir, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("write layer directory: %w", err)
	}
	defer rootDir.Close()
	m := &materialiser{rootfd: int(rootDir.Fd())}
	m.disk = newDiskWriter(ctx, m.rootfd, dir, false)
	m.dirs = append(m.dirs, dirItem{"", root})
	err = readAhead(ctx, root, src, func(it *item, data io.Reader) error {
		if err := m.entry(it, data); err != nil {
			return fmt.Errorf("/%s: %w", it.path, err)
		}
		return nil
	})
	if werr := m.disk.close(); werr != nil {
		err = werr
	}
	if err == nil {
		err = m.finish()
	}
	if err != nil {
		return fmt.Errorf("write layer directory %s: %w", dir, err)
	}
	return nil
}

type materialiser struct {
	rootfd int
	disk   *diskWriter
	links  []*item
	dirs   []dirItem // parents first
}

type dirItem struct {
	path string
	node *tree.Node
}

func (m *materialiser) entry(it *item, data io.Reader) error {
	switch n := it.node; {
	case len(it.path) > maxPath:
		return fmt.Errorf("path of more than %d bytes", maxPath)
	case n.Kind == tree.Dir:
		m.dirs = append(m.dirs, dirItem{it.path, n})
		return os.NewSyscallError("mkdir", unix.Mkdirat(m.rootfd, it.path, 0o700))
	case n.Kind == tree.Socket:
		return nil
	case it.first != "":
		m.links = append(m.links, it)
		return nil
	case n.Kind != tree.File:
		return m.disk.special(it.path, n)
	default:
		return m.disk.file(it.path, n, data)
	}
}

// finish makes the further names of files, then gives directories their metadata, children first.
func (m *materialiser) finish() error {
	for _, it := range m.links {
		if err := unix.Linkat(m.rootfd, it.first, m.rootfd, it.path, 0); err != nil {
			return fmt.Errorf("/%s: %w", it.path, os.NewSyscallError("link", err))
		}
	}
	for i := len(m.dirs) - 1; i >= 0; i-- {
		d := m.dirs[i]
		if d.node.Opaque {
			if err := markOpaque(m.rootfd, d.path); err != nil {
				return fmt.Errorf("/%s: %w", d.path, err)
			}
		}
		if err := setPath(m.rootfd, d.path, tree.Dir, &d.node.Meta); err != nil {
			return fmt.Errorf("/%s: %w", d.path, err)
		}
	}
	return nil
}

// clone shares the extents of the file behind r, if r is a verified one of a file system that can. The clone is then
// hashed itself: the file may be edited at any time, the clone cannot.
func clone(fd int, r io.Reader) (bool, error) {
	v, ok := r.(*verified)
	if !ok {
		return false, nil
	}
	c, ok := v.r.(*cancelReader)
	if !ok {
		return false, nil
	}
	f, ok := c.r.(*os.File)
	if stored, isStored := c.r.(*StoredFile); isStored {
		f, ok = stored.File, true
	}
	if !ok || unix.IoctlFileClone(fd, int(f.Fd())) != nil {
		return false, nil
	}
	h := sha256.New()
	n, err := io.Copy(h, &cancelReader{c.ctx, fdReader(fd)})
	if err != nil {
		return true, err
	}
	var sum key.Digest
	h.Sum(sum[:0])
	if n != v.left || sum != v.want {
		return true, &ChangedError{Name: v.name}
	}
	return true, nil
}

// fdReader reads a descriptor that somebody else closes.
type fdReader int

func (fd fdReader) Read(p []byte) (int, error) {
	for {
		n, err := unix.Read(int(fd), p)
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return 0, os.NewSyscallError("read", err)
		case n == 0 && len(p) > 0:
			return 0, io.EOF
		}
		return n, nil
	}
}

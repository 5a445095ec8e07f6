package layer

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"path"
	"runtime"
	"sync/atomic"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"larder/internal/disk"
	"larder/internal/tree"
)

// Bounds on what a layer may hold; real ones stay far below.
const (
	maxEntries = 4_000_000
	maxPath    = unix.PathMax - 1 // bytes of a path inside a layer, so at most 2048 levels
	maxName    = 255
)

// FromUpper reads an overlay upper (or lower) directory that nobody writes to: the reverse of Materialise. Whiteouts and
// opaque marks become the tree's own. Sockets are left out, as images cannot hold them. One goroutine walks, NumCPU hash.
func FromUpper(ctx context.Context, dir string) (*tree.Node, error) {
	root, err := os.Open(dir)
	if err != nil {
		return nil, fmt.Errorf("read layer directory: %w", err)
	}
	defer root.Close()
	u := &upper{rootfd: int(root.Fd()), inodes: map[inode]*tree.Node{}, jobs: make(chan hashJob, 64), xattrs: newXattrReader()}
	g, ctx := errgroup.WithContext(ctx)
	for range runtime.NumCPU() {
		g.Go(func() error { return u.hash(ctx) })
	}
	var node *tree.Node
	g.Go(func() error {
		defer close(u.jobs)
		var err error
		node, err = u.dir(ctx, "")
		return err
	})
	err = g.Wait()
	for job := range u.jobs { // left over after an error
		job.dir.release()
	}
	if err != nil {
		return nil, fmt.Errorf("read layer directory %s: %w", dir, err)
	}
	for _, l := range u.links {
		l.node.Content, l.node.Xattrs = l.first.Content, l.first.Xattrs
	}
	return node, nil
}

type inode struct{ dev, ino uint64 }

type upper struct {
	rootfd  int
	jobs    chan hashJob
	inodes  map[inode]*tree.Node // files with several names, by their first one
	links   []link
	entries int
	xattrs  *disk.XattrReader
	names   [32 << 10]byte // for listing directories
}

type link struct{ node, first *tree.Node }

// hashJob is a file whose content and attributes are still to be read.
type hashJob struct {
	dir  *dirHandle
	name string
	path string
	node *tree.Node
}

// dirHandle is an open directory that jobs share; the last one closes it.
type dirHandle struct {
	fd   int
	refs atomic.Int32
}

func (h *dirHandle) release() {
	if h.refs.Add(-1) == 0 {
		unix.Close(h.fd)
	}
}

func (u *upper) dir(ctx context.Context, rel string) (*tree.Node, error) {
	node, subs, err := u.list(ctx, rel)
	if err != nil {
		return nil, fmt.Errorf("/%s: %w", rel, err)
	}
	// The directory is closed by now: a deep tree does not use up the descriptors.
	for _, i := range subs {
		n, err := u.dir(ctx, path.Join(rel, node.entries[i].Name))
		if err != nil {
			return nil, err
		}
		node.entries[i].Node = n
	}
	return tree.NewDir(node.meta, node.opaque, node.entries)
}

// dirContent is a directory on its way to a Node.
type dirContent struct {
	meta    tree.Meta
	opaque  bool
	entries []tree.Entry
}

// list reads one directory; subs are the indices of entries that are directories, whose Node is missing yet.
func (u *upper) list(ctx context.Context, rel string) (*dirContent, []int, error) {
	if len(rel) > maxPath {
		return nil, nil, errors.New("path is too long for a layer")
	}
	fd, err := disk.OpenBeneath(u.rootfd, rel, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, nil, err
	}
	h := &dirHandle{fd: fd}
	h.refs.Store(1)
	defer h.release()
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, nil, err
	}
	d := &dirContent{meta: disk.MetaOf(&st)}
	if d.meta.Xattrs, d.opaque, err = takeMarks(u.xattrs.Opened(fd, tree.Dir)); err != nil {
		return nil, nil, err
	}
	names, err := disk.ListNames(fd, u.names[:])
	if err != nil {
		return nil, nil, err
	}
	if u.entries += len(names); u.entries > maxEntries {
		return nil, nil, fmt.Errorf("more than %d entries in a layer", maxEntries)
	}
	d.entries = make([]tree.Entry, 0, len(names))
	var subs []int
	for _, name := range names {
		if err := ctx.Err(); err != nil {
			return nil, nil, err
		}
		node, err := u.entry(ctx, h, rel, name)
		if err != nil {
			return nil, nil, fmt.Errorf("%s: %w", name, err)
		}
		if node == nil {
			continue
		}
		if node.Kind == tree.Dir {
			subs = append(subs, len(d.entries))
		}
		d.entries = append(d.entries, tree.Entry{Name: name, Node: node})
	}
	return d, subs, nil
}

// entry gives the node of one name: complete, or a file whose hashJob is under way, or a directory that is read later; nil
// for what a layer cannot hold.
func (u *upper) entry(ctx context.Context, dir *dirHandle, rel, name string) (*tree.Node, error) {
	var st unix.Stat_t
	if err := unix.Fstatat(dir.fd, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return nil, err
	}
	n := &tree.Node{Meta: disk.MetaOf(&st)}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		n.Kind = tree.Dir
		return n, nil
	case unix.S_IFREG:
		n.Kind, n.Size = tree.File, st.Size
		if st.Nlink > 1 {
			id := inode{uint64(st.Dev), st.Ino}
			if first := u.inodes[id]; first != nil {
				n.Group = first.Group
				u.links = append(u.links, link{node: n, first: first})
				return n, nil
			}
			n.Group = tree.NewGroup()
			u.inodes[id] = n
		}
		dir.refs.Add(1)
		select {
		case u.jobs <- hashJob{dir: dir, name: name, path: rel, node: n}:
			return n, nil
		case <-ctx.Done():
			dir.release()
			return nil, ctx.Err()
		}
	case unix.S_IFLNK:
		n.Kind, n.Mode = tree.Symlink, 0o777
		var err error
		if n.Link, err = disk.Readlink(dir.fd, name, st.Size); err != nil {
			return nil, err
		}
	case unix.S_IFCHR:
		if st.Rdev == 0 {
			return &tree.Node{Kind: tree.Whiteout}, nil
		}
		n.Kind, n.Rdev = tree.Char, uint64(st.Rdev)
	case unix.S_IFBLK:
		n.Kind, n.Rdev = tree.Block, uint64(st.Rdev)
	case unix.S_IFIFO:
		n.Kind = tree.Fifo
	default:
		return nil, nil
	}
	if st.Nlink > 1 {
		id := inode{uint64(st.Dev), st.Ino}
		if first := u.inodes[id]; first != nil {
			n.Group = first.Group
		} else {
			n.Group = tree.NewGroup()
			u.inodes[id] = n
		}
	}
	var err error
	n.Xattrs, _, err = takeMarks(u.xattrs.Named(dir.fd, name, n.Kind))
	return n, err
}

// hash fills in the nodes of files until there are no more.
func (u *upper) hash(ctx context.Context) error {
	h := &fileHasher{h: sha256.New(), buf: make([]byte, 128<<10), xattrs: newXattrReader()}
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case job, ok := <-u.jobs:
			if !ok {
				return nil
			}
			err := h.fill(ctx, job)
			job.dir.release()
			if err != nil {
				return fmt.Errorf("/%s: %w", path.Join(job.path, job.name), err)
			}
		}
	}
}

type fileHasher struct {
	h      hash.Hash
	buf    []byte
	xattrs *disk.XattrReader
}

func (h *fileHasher) fill(ctx context.Context, job hashJob) error {
	fd, err := unix.Openat(job.dir.fd, job.name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if job.node.Xattrs, _, err = takeMarks(h.xattrs.Opened(fd, tree.File)); err != nil {
		return err
	}
	h.h.Reset()
	var size int64
	for size < job.node.Size {
		n, err := unix.Read(fd, h.buf)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return err
		}
		if n == 0 {
			return io.ErrUnexpectedEOF
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		h.h.Write(h.buf[:n])
		size += int64(n)
	}
	if size != job.node.Size {
		return errors.New("grew while it was read")
	}
	h.h.Sum(job.node.Content[:0])
	return nil
}

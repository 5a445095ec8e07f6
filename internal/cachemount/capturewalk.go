package cachemount

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"larder/internal/disk"
	"larder/internal/key"
	"larder/internal/tree"
)

// listing is a directory on its way into the tree.
type listing struct {
	path    string
	old     *tree.Node // what before has at this path, if that is a directory
	meta    tree.Meta
	stamp   stamp   // before it was listed
	left    bool    // left out because of a secret
	entries []entry // sorted; none is added once they are there
}

// entry is a name in a directory.
type entry struct {
	in   *listing
	name string
	old  *tree.Node // what before has at this path
	node *tree.Node // what is there now; nil for a directory, and for what is left out
	sub  *listing   // of a directory

	stamp  stamp
	names  names // all names of the file; nil where it has one
	unread bool  // the contents are not known yet
	used   bool  // somebody read it, or may have
}

func (e *entry) path() string { return tree.Join(e.in.path, e.name) }

// each calls fn for all that is no directory and not left out, in the order of Walk.
func (l *listing) each(fn func(*entry)) {
	for i := range l.entries {
		switch e := &l.entries[i]; {
		case e.sub != nil:
			if !e.sub.left {
				e.sub.each(fn)
			}
		case e.node != nil:
			fn(e)
		}
	}
}

func (l *listing) listings(fn func(*listing)) {
	fn(l)
	for i := range l.entries {
		if sub := l.entries[i].sub; sub != nil && !sub.left {
			sub.listings(fn)
		}
	}
}

// walk lists root and all below it, several directories at a time.
func (c *capture) walk(ctx context.Context, root *listing) error {
	q := &listings{todo: []*listing{root}}
	q.wake.L = &q.mu
	var wg sync.WaitGroup
	for range runtime.NumCPU() {
		wg.Go(func() {
			w := &walker{capture: c}
			for l := q.take(); l != nil; l = q.take() {
				err := context.Cause(ctx)
				if err == nil {
					if err = w.list(l); err != nil {
						err = fmt.Errorf("/%s: %w", c.secrets.hide(l.path), err)
					}
				}
				q.done(l, err)
			}
		})
	}
	wg.Wait()
	if q.err != nil {
		return q.err
	}
	for _, n := range c.inodes {
		slices.SortFunc(n, func(a, b *entry) int { return strings.Compare(a.path(), b.path()) })
		for _, e := range n {
			if !e.stamp.unchanged(&n[0].stamp) {
				return fmt.Errorf("/%s: %w", c.secrets.hide(e.path()), errChanged)
			}
			e.names = n
		}
	}
	return nil
}

// listings are directories to read, the last found first.
type listings struct {
	mu   sync.Mutex
	wake sync.Cond
	todo []*listing
	busy int
	err  error
}

// take gives a directory to read, nil when there is no more.
func (q *listings) take() *listing {
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.todo) == 0 && q.busy > 0 && q.err == nil {
		q.wake.Wait()
	}
	if len(q.todo) == 0 || q.err != nil {
		return nil
	}
	l := q.todo[len(q.todo)-1]
	q.todo = q.todo[:len(q.todo)-1]
	q.busy++
	return l
}

func (q *listings) done(l *listing, err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.busy--
	if err != nil && q.err == nil {
		q.err = err
	}
	if !l.left {
		for i := range l.entries {
			if sub := l.entries[i].sub; sub != nil {
				q.todo = append(q.todo, sub)
			}
		}
	}
	q.wake.Broadcast()
}

type walker struct {
	*capture
	xattrs disk.XattrReader
	names  [32 << 10]byte
}

func (w *walker) list(l *listing) error {
	fd, err := openQuietly(w.rootfd, l.path, unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return os.NewSyscallError("fstat", err)
	}
	l.meta, l.stamp = disk.MetaOf(&st), stampOf(&st, key.Digest{}, false)
	if l.meta.Xattrs, err = w.xattrs.Opened(fd, tree.Dir); err != nil {
		return err
	}
	if l.left = w.secrets.inNode(&tree.Node{Meta: l.meta}); l.left {
		w.leave(l.path)
		return nil
	}
	names, err := disk.ListNames(fd, w.names[:])
	if err != nil {
		return err
	}
	if err := w.allow(len(names)); err != nil {
		return err
	}
	slices.Sort(names)
	var before []tree.Entry
	if l.old != nil {
		if before, err = l.old.Entries(); err != nil {
			return err
		}
	}
	l.entries = make([]entry, len(names))
	for i, name := range names {
		for len(before) > 0 && before[0].Name < name {
			before = before[1:]
		}
		e := &l.entries[i]
		e.in, e.name = l, name
		if len(before) > 0 && before[0].Name == name {
			e.old = before[0].Node
		}
		if err := w.entry(fd, e); err != nil {
			return fmt.Errorf("%s: %w", w.secrets.hide(name), err)
		}
	}
	return nil
}

// allow counts entries, up to the bound.
func (c *capture) allow(n int) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.entries += n; c.entries > maxEntries {
		return fmt.Errorf("more than %d files are not saved: use another cache mount for a part of them", maxEntries)
	}
	return nil
}

// entry finds out what a name stands for.
func (w *walker) entry(dirfd int, e *entry) error {
	var st unix.Stat_t
	if err := unix.Fstatat(dirfd, e.name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return os.NewSyscallError("fstatat", err)
	}
	dir := st.Mode&unix.S_IFMT == unix.S_IFDIR
	if w.exclude != nil && w.exclude(e.path(), dir) {
		return nil
	}
	if !w.secrets.none() && w.secrets.in([]byte(e.name)) {
		w.leave(e.path())
		return nil
	}
	if len(e.in.path)+1+len(e.name) > maxPath {
		return errors.New("its path is too long to be saved")
	}
	if dir {
		e.sub = &listing{path: e.path()}
		if e.old != nil && e.old.Kind == tree.Dir {
			e.sub.old = e.old
		}
		return nil
	}
	n := tree.Node{Meta: disk.MetaOf(&st)}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		n.Kind, n.Size = tree.File, st.Size
	case unix.S_IFLNK:
		n.Kind, n.Mode = tree.Symlink, 0o777
	case unix.S_IFCHR:
		n.Kind, n.Rdev = tree.Char, uint64(st.Rdev)
	case unix.S_IFBLK:
		n.Kind, n.Rdev = tree.Block, uint64(st.Rdev)
	case unix.S_IFIFO:
		n.Kind = tree.Fifo
	default:
		return nil // a socket without its process is of no use to anybody
	}
	was := w.stamps.find(st.Ino)
	e.stamp = stampOf(&st, key.Digest{}, false)
	e.used = was == nil || was.atime != e.stamp.atime || !was.unchanged(&e.stamp)
	var err error
	if n.Kind == tree.File {
		err = w.file(dirfd, e, &n, was)
	} else {
		err = w.special(dirfd, e, &n)
	}
	if err != nil {
		return err
	}
	if w.secrets.inNode(&n) {
		w.leave(e.path())
		return nil
	}
	e.settle(&n)
	if st.Nlink > 1 {
		w.mu.Lock()
		defer w.mu.Unlock()
		id := inode{uint64(st.Dev), st.Ino}
		w.inodes[id] = append(w.inodes[id], e)
	}
	return nil
}

// file takes the contents from the stamp, if they are known by it and stored.
func (w *walker) file(dirfd int, e *entry, n *tree.Node, was *stamp) error {
	e.unread = was == nil || was.flags&stampRacy != 0 || !was.unchanged(&e.stamp) ||
		n.Size > 0 && w.before.Pieces[was.content] == nil
	if e.unread {
		return nil
	}
	n.Content, e.stamp.content = was.content, was.content
	e.stamp.flags = was.flags & stampXattrs
	if e.stamp.flags == 0 {
		return nil
	}
	var err error
	n.Xattrs, err = w.xattrs.Named(dirfd, e.name, tree.File)
	return err
}

func (w *walker) special(dirfd int, e *entry, n *tree.Node) (err error) {
	if n.Kind == tree.Symlink {
		if n.Link, err = disk.Readlink(dirfd, e.name, e.stamp.size); err != nil {
			return err
		}
		// Reading a link is seen in its access time; there is no quiet way.
		var st unix.Stat_t
		if err := unix.Fstatat(dirfd, e.name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return os.NewSyscallError("fstatat", err)
		}
		e.stamp.atime = st.Atim.Nano()
	}
	n.Xattrs, err = w.xattrs.Named(dirfd, e.name, n.Kind)
	return err
}

// settle sets the entry's node: before's own where nothing differs, so that trees share what they have in common. The Group is seen to
// later.
func (e *entry) settle(n *tree.Node) {
	if e.old != nil && e.old.Kind != tree.Dir && sameObject(e.old, n) {
		e.node = e.old
		return
	}
	c := *n
	e.node = &c
}

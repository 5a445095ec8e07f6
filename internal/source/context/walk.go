package context

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"golang.org/x/sys/unix"

	"larder/internal/tree"
)

// partSize is how many files of a directory one worker looks at before others may join in: a directory of 50,000 files
// keeps all of them busy.
const partSize = 512

// worker reads directories and files of one scan. Its buffers and its filter are its own.
type worker struct {
	s      *scan
	ctx    context.Context
	filter *filter
	names  []byte   // getdents
	list   []dirent // of the directory at hand
	data   []byte   // file contents
	fresh  []record // digests to remember
	told   time.Time
}

func (s *scan) newWorker(ctx context.Context, p patterns) (*worker, error) {
	f, err := newFilter(p)
	if err != nil {
		return nil, err
	}
	return &worker{s: s, ctx: ctx, filter: f, told: time.Now()}, nil
}

// run works until the queue ends.
func (w *worker) run() {
	for {
		t, ok := w.s.queue.next()
		if !ok {
			for _, t := range w.s.queue.drop() {
				if t.part != nil {
					t.part.handle.release()
				}
			}
			return
		}
		var err error
		if t.part != nil {
			err = w.files(t.dir, t.part)
		} else {
			err = w.directory(t.dir)
		}
		if err != nil {
			w.s.queue.fail(err)
		}
		w.s.queue.done()
		w.report()
	}
}

// report tells the caller how far the scan is, some times a second.
func (w *worker) report() {
	if w.s.opt.Progress == nil || time.Since(w.told) < 100*time.Millisecond {
		return
	}
	w.told = time.Now()
	w.s.progressMu.Lock()
	defer w.s.progressMu.Unlock()
	w.s.opt.Progress(w.s.count.stats())
}

// directory lists one directory and hands on what is in it.
func (w *worker) directory(d *directory) error {
	fd, err := openBeneath(w.s.root, d.path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NONBLOCK)
	switch {
	case errors.Is(err, unix.EACCES) && !d.wanted, vanished(err):
		d.gone = true
		return nil
	case err != nil:
		return unreadable(d.path, err)
	}
	h := &handle{fd: fd}
	h.uses.Store(1)
	defer h.release()

	if err := w.stat(d, fd); err != nil {
		return err
	}
	if w.names == nil {
		w.names = make([]byte, 32<<10)
	}
	if w.list, err = list(fd, w.names, w.list); err != nil {
		if vanished(err) {
			d.gone = true
			return nil
		}
		return unreadable(d.path, err)
	}
	if err := w.choose(d, fd); err != nil {
		return err
	}
	for from := partSize; from < len(d.entries); from += partSize {
		h.uses.Add(1)
		w.s.queue.push(task{dir: d, part: &part{h, from, min(from+partSize, len(d.entries))}})
	}
	h.uses.Add(1)
	return w.files(d, &part{h, 0, min(partSize, len(d.entries))})
}

// stat notes the metadata of an open directory.
func (w *worker) stat(d *directory, fd int) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return unreadable(d.path, err)
	}
	d.meta = w.meta(&st)
	if d.path == "" {
		// The context's own directory is no part of it: BuildKit copies into a fresh one.
		d.meta = tree.Meta{Mode: 0o755, MTime: d.meta.MTime}
	}
	if d.fs.dev != st.Dev || d.path == "" {
		d.fs = identify(fd, st.Dev)
	}
	if d.path == "" {
		return nil
	}
	xattrs, err := fdXattrs(fd)
	if err != nil {
		return unreadable(d.path, err)
	}
	d.meta.Xattrs = xattrs
	return nil
}

// choose applies the filter to the names of a directory: files become entries, directories tasks.
func (w *worker) choose(d *directory, fd int) error {
	var wanted int
	for i := range w.list {
		e := &w.list[i]
		if e.typ == unix.DT_UNKNOWN {
			var st unix.Stat_t
			if err := fstatat(fd, e.name, &st); vanished(err) {
				e.name = ""
				continue
			} else if err != nil {
				return unreadable(join(d.path, e.name), err)
			}
			e.typ = uint8(st.Mode & unix.S_IFMT >> 12) // as the DT constants are made
		}
		isDir := e.typ == unix.DT_DIR
		v, m := keep, matches{}
		if !w.filter.unfiltered() {
			var err error
			if v, m, err = w.filter.judge(join(d.path, e.name), isDir, d.matches); err != nil {
				return err
			}
		}
		switch {
		case v == prune:
			e.name = ""
		case isDir:
			sub := &directory{path: join(d.path, e.name), wanted: v == keep, matches: m, fs: d.fs}
			d.subs = append(d.subs, subdirectory{e.name, sub})
			e.name = ""
		default:
			wanted++
		}
	}
	if wanted > 0 {
		nodes := make([]tree.Node, wanted)
		d.entries = make([]tree.Entry, 0, wanted+len(d.subs))
		for _, e := range w.list {
			if e.name != "" {
				d.entries = append(d.entries, tree.Entry{Name: e.name, Node: &nodes[len(d.entries)]})
			}
		}
	}
	tasks := make([]task, len(d.subs))
	for i, sub := range d.subs {
		tasks[len(tasks)-1-i].dir = sub.dir // the newest first: in the order of names
	}
	w.s.queue.push(tasks...)
	return nil
}

// files looks at some files of a directory and lets go of its handle.
func (w *worker) files(d *directory, p *part) error {
	defer p.handle.release()
	for _, e := range d.entries[p.from:p.to] {
		if err := w.file(d, p.handle.fd, e); err != nil {
			return err
		}
	}
	return nil
}

// file fills in one node. It leaves the Kind 0 when the file is gone.
func (w *worker) file(d *directory, fd int, e tree.Entry) error {
	var st unix.Stat_t
	if err := fstatat(fd, e.Name, &st); vanished(err) {
		return nil
	} else if err != nil {
		return unreadable(join(d.path, e.Name), err)
	}
	var n tree.Node
	n.Meta = w.meta(&st)
	var err error
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		err = w.regular(d, fd, e.Name, &st, &n)
	case unix.S_IFLNK:
		n.Kind = tree.Symlink
		n.Link, err = readlinkat(fd, e.Name)
	case unix.S_IFSOCK:
		// BuildKit's client sends a socket as a file that it cannot open: an empty one.
		n.Kind, n.Content = tree.File, emptyDigest
	case unix.S_IFIFO:
		n.Kind = tree.Fifo
	case unix.S_IFCHR:
		n.Kind, n.Rdev = tree.Char, st.Rdev
	case unix.S_IFBLK:
		n.Kind, n.Rdev = tree.Block, st.Rdev
	default: // a directory that was a file when it was listed: in between it was absent
		return nil
	}
	if vanished(err) {
		return nil
	}
	if err != nil {
		return unreadable(join(d.path, e.Name), err)
	}
	*e.Node = n
	w.s.count.files.Add(1)
	w.s.count.bytes.Add(n.Size)
	return nil
}

// meta converts what stat says.
func (w *worker) meta(st *unix.Stat_t) tree.Meta {
	m := tree.Meta{Mode: st.Mode & 0o7777, MTime: st.Mtim.Nano()}
	if w.s.opt.KeepOwner {
		m.UID, m.GID = st.Uid, st.Gid
	}
	return m
}

func join(dir, name string) string {
	if dir == "" {
		return name
	}
	return dir + "/" + name
}

// vanished tells an error that means that there is no such file (any more): gone, or no directory or file any more.
func vanished(err error) bool {
	return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP)
}

func unreadable(path string, err error) error {
	if path == "" {
		path = "."
	}
	if errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("%s: %w; make it readable or name it in .dockerignore", path, err)
	}
	return fmt.Errorf("%s: %w", path, err)
}

package treefs

import (
	"context"
	"crypto/sha256"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"larder/internal/key"
	"larder/internal/layer"
)

// watch is a file that anybody may edit and that a step reads as it is: what it was when it had been hashed.
type watch struct {
	name  string
	want  key.Digest
	stamp stamp
	// doubt: an edit need not show in the stamp, so that only hashing again tells.
	doubt bool
	// settled: the file was still the same when it was put away, and nobody has read it since. contents.mu guards it.
	settled bool
}

// stamp changes when a file is edited.
type stamp struct {
	dev, ino     uint64
	size         int64
	mtime, ctime unix.Timespec
}

func stampOf(f *os.File) (stamp, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return stamp{}, &os.PathError{Op: "stat", Path: f.Name(), Err: err}
	}
	return stamp{uint64(st.Dev), st.Ino, st.Size, st.Mtim, st.Ctim}, nil
}

// granularity is how old a change time has to be for a later edit to have another one for sure: network and foreign file systems
// count whole seconds, some two.
const granularity = 3 * time.Second

// watch makes sure that a file is what was hashed, and has Check look whether it stays so.
func (fs *FS) watch(n *inode, f *os.File) (*watch, error) {
	before, err := stampOf(f)
	if err != nil {
		return nil, err
	}
	c := &fs.contents
	c.mu.Lock()
	last := n.file.watch
	c.mu.Unlock()
	w := &watch{name: f.Name(), want: n.node.Content, stamp: before}
	if last == nil || last.doubt || last.stamp != before { // else it is the one that was hashed before, and put away
		if before.size != n.node.Size {
			return nil, &layer.ChangedError{Name: f.Name()}
		}
		if err := hashed(fs.ctx, f, n.node.Content, before.size); err != nil {
			return nil, err
		}
		after, err := stampOf(f)
		if err != nil {
			return nil, err
		}
		if after != before {
			return nil, &layer.ChangedError{Name: f.Name()}
		}
		age := time.Since(time.Unix(after.ctime.Unix()))
		w.doubt = age < granularity || !tellsChanges(f)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	n.file.watch = w
	if last == nil {
		c.watched = append(c.watched, n)
	}
	return w, nil
}

// check says whether the file is still what it was: nil, or a *layer.ChangedError.
func (w *watch) check(ctx context.Context, f *os.File) error {
	now, err := stampOf(f)
	if err != nil {
		return err
	}
	same := w.stamp
	same.ctime = now.ctime
	if now != same {
		return &layer.ChangedError{Name: w.name}
	}
	// A change time alone may be another for a new name, owner or mode, and is for the last name taken away: an editor that puts a new
	// file in its place.
	if w.doubt || now != w.stamp {
		return hashed(ctx, f, w.want, w.stamp.size)
	}
	return nil
}

// hashed reads a file and compares its digest.
func hashed(ctx context.Context, f *os.File, want key.Digest, size int64) error {
	// By position: others may read the same descriptor.
	return compared(ctx, io.NewSectionReader(f, 0, size), f.Name(), want, size)
}

func compared(ctx context.Context, r io.Reader, name string, want key.Digest, size int64) error {
	h := sha256.New()
	n, err := io.Copy(h, ctxReader{ctx, io.LimitReader(r, size)})
	if err != nil {
		return err
	}
	if n != size || key.Digest(h.Sum(nil)) != want {
		return &layer.ChangedError{Name: name}
	}
	return nil
}

// tellsChanges says whether a file is on a file system of which it is known that every edit gives a new change time.
func tellsChanges(f *os.File) bool {
	var st unix.Statfs_t
	if unix.Fstatfs(int(f.Fd()), &st) != nil {
		return false
	}
	switch uint32(st.Type) {
	case unix.EXT4_SUPER_MAGIC, unix.XFS_SUPER_MAGIC, unix.BTRFS_SUPER_MAGIC, unix.TMPFS_MAGIC, unix.OVERLAYFS_SUPER_MAGIC, unix.F2FS_SUPER_MAGIC:
		return true
	}
	return false
}

// Check says, when the step has ended, whether all files that it read are still what was hashed: a *layer.ChangedError names the
// first that is not. What was kept in memory when it was hashed cannot have changed for the step.
func (fs *FS) Check(ctx context.Context) error {
	c := &fs.contents
	c.mu.Lock()
	changed, watched := c.changed, c.watched
	c.mu.Unlock()
	if changed != nil {
		return changed
	}
	for _, n := range watched {
		if err := fs.recheck(ctx, n); err != nil {
			return err
		}
	}
	return nil
}

func (fs *FS) recheck(ctx context.Context, n *inode) error {
	if err := ctx.Err(); err != nil {
		return context.Cause(ctx)
	}
	c := &fs.contents
	c.mu.Lock()
	w, ready := n.file.watch, n.file.ready
	if w.settled {
		c.mu.Unlock()
		return nil
	}
	if ready != nil && ready.watch != w {
		ready = nil // it came from somewhere else the last time
	}
	if ready != nil {
		ready.users.Add(1)
	}
	c.mu.Unlock()
	if ready != nil {
		defer ready.done()
		return w.check(ctx, ready.disk)
	}
	// It was put away while it was read.
	src, err := n.part.contents.Open(ctx, n.node.Content, n.node.Size)
	if err != nil {
		return err
	}
	defer src.Close()
	switch f := src.(type) {
	case *layer.StoredFile: // whose bytes are what was hashed
		return nil
	case *os.File:
		now, err := stampOf(f)
		if err != nil {
			return err
		}
		if now.dev == w.stamp.dev && now.ino == w.stamp.ino {
			return w.check(ctx, f)
		}
	}
	// Another has taken its place. What was read was hashed before: if these are the same bytes still, nobody meant it to change.
	return compared(ctx, src, w.name, w.want, w.stamp.size)
}

package cachemount

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"larder/internal/disk"
	"larder/internal/tree"
)

// reader reads files of one capture; one goroutine uses it.
type reader struct {
	*capture
	xattrs disk.XattrReader
	buf    []byte // for looking for secrets
}

// read fills in what is known of a file by its contents. The kernel says before and after that it is the file that was listed.
func (r *reader) read(ctx context.Context, e *entry) error {
	fd, err := openQuietly(r.rootfd, e.path(), 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if _, err := sameFile(fd, e); err != nil {
		return err
	}
	n := *e.node
	n.Group = 0
	if n.Xattrs, err = r.xattrs.Opened(fd, tree.File); err != nil {
		return err
	}
	if r.secrets.inNode(&n) {
		r.drop(e)
		return nil
	}
	var data io.Reader = fdReader{ctx, fd}
	if !r.secrets.none() {
		var found bool
		if data, found, err = r.search(data, fd, n.Size); err != nil {
			return err
		}
		if found {
			r.drop(e)
			return nil
		}
	}
	content, size, refs, err := r.writer.Add(ctx, data)
	if err != nil {
		return err
	}
	if size != n.Size {
		return fmt.Errorf("it had %d bytes, and %d came: %w", n.Size, size, errChanged)
	}
	atime, err := sameFile(fd, e)
	if err != nil {
		return err
	}
	n.Content = content
	e.stamp.content, e.stamp.atime = content, atime
	if len(n.Xattrs) > 0 {
		e.stamp.flags = stampXattrs
	}
	e.settle(&n)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.refs[content] = refs
	return nil
}

// drop leaves a file out, with all its names.
func (r *reader) drop(e *entry) {
	e.node = nil
	if e.names == nil {
		r.leave(e.path())
	}
	for _, other := range e.names {
		r.leave(other.path())
	}
}

// sameFile fails if an open file is not the one that was listed, or not in the same state. It gives the access time now.
func sameFile(fd int, e *entry) (atime int64, err error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return 0, os.NewSyscallError("fstat", err)
	}
	now := stampOf(&st, e.stamp.content, false)
	if !now.unchanged(&e.stamp) || st.Mode&unix.S_IFMT != unix.S_IFREG {
		return 0, errChanged
	}
	return now.atime, nil
}

// search looks for secrets before anything of a file is packed, and gives a reader of the same bytes again.
func (r *reader) search(data io.Reader, fd int, size int64) (io.Reader, bool, error) {
	found, err := r.secrets.inReader(data, &r.buf)
	if err != nil || found {
		return nil, found, err
	}
	if size <= int64(len(r.buf)) {
		return bytes.NewReader(r.buf[:size]), false, nil
	}
	if _, err := unix.Seek(fd, 0, io.SeekStart); err != nil {
		return nil, false, os.NewSyscallError("seek", err)
	}
	return data, false, nil
}

package context

import (
	"crypto/sha256"
	"errors"
	"io"

	"golang.org/x/sys/unix"

	"larder/internal/key"
	"larder/internal/tree"
)

// ErrUnstable is wrapped by the error for a file that changes each time it is read.
var ErrUnstable = errors.New("the file changes while it is read")

// readAttempts is how often a file that changes while it is hashed is tried.
const readAttempts = 3

// regular fills in a file: its digest comes from the cache where its stat is known there, else from its bytes.
func (w *worker) regular(d *directory, dirfd int, name string, st *unix.Stat_t, n *tree.Node) error {
	n.Kind = tree.File
	known, ok := w.s.table.find(st)
	ok = ok && d.fs.honest
	if !ok || known.xattrs() {
		fd, err := openat(dirfd, name)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		if n.Xattrs, err = fdXattrs(fd); err != nil {
			return err
		}
		if !ok {
			// From here on the open file counts: the name may have been given to another one.
			began := w.s.now()
			var stable bool
			if n.Content, stable, err = w.hash(fd, st); err != nil {
				return err
			}
			n.Meta = tree.Meta{Mode: st.Mode & 0o7777, UID: n.UID, GID: n.GID, MTime: st.Mtim.Nano(), Xattrs: n.Xattrs}
			if stable && d.fs.honest {
				w.remember(st, n, began)
			}
		}
	}
	if ok {
		n.Content = known.content
	}
	n.Size = st.Size
	if st.Nlink > 1 {
		n.Group = w.s.group(inode{st.Dev, st.Ino})
	}
	return nil
}

// hash reads an open file and sets st to the stat that fits what it read. A file that only grows gives the digest of
// what it had at first, but is not stable; one that changes otherwise is read again, and at last an error.
func (w *worker) hash(fd int, st *unix.Stat_t) (d key.Digest, stable bool, err error) {
	for range readAttempts {
		if err := unix.Fstat(fd, st); err != nil {
			return d, false, err
		}
		if st.Mode&unix.S_IFMT != unix.S_IFREG {
			return d, false, unix.ENOENT
		}
		var read int64
		if d, read, err = w.digest(fd, st.Size); err != nil {
			return d, false, err
		}
		w.s.count.hashedFiles.Add(1)
		w.s.count.hashedBytes.Add(read)
		var after unix.Stat_t
		if err := unix.Fstat(fd, &after); err != nil {
			return d, false, err
		}
		if read == st.Size && after.Size == st.Size && after.Mtim == st.Mtim && after.Ctim == st.Ctim {
			return d, true, nil
		}
		if read == st.Size && after.Size > st.Size {
			// Somebody appends, to a log most likely, and will go on doing so.
			return d, false, nil
		}
	}
	return d, false, ErrUnstable
}

// digest hashes at most size bytes of a file from its start and tells how many there were.
func (w *worker) digest(fd int, size int64) (d key.Digest, read int64, err error) {
	if size == 0 {
		return emptyDigest, 0, nil
	}
	if w.data == nil {
		w.data = make([]byte, 128<<10)
	}
	h := sha256.New()
	for read < size {
		buf := w.data[:min(int64(len(w.data)), size-read)]
		n, err := unix.Pread(fd, buf, read)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return d, read, err
		}
		if n == 0 {
			break
		}
		h.Write(buf[:n])
		read += int64(n)
		if w.ctx.Err() != nil {
			return d, read, w.ctx.Err()
		}
	}
	if read == 0 {
		return emptyDigest, 0, nil
	}
	h.Sum(d[:0])
	return d, read, nil
}

// openat opens a file of a directory to read it, never through a symlink and without waiting for a fifo's writer.
func openat(dirfd int, name string) (int, error) {
	for {
		fd, err := unix.Openat(dirfd, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
		if err != unix.EINTR {
			return fd, err
		}
	}
}

func fstatat(dirfd int, name string, st *unix.Stat_t) error {
	return unix.Fstatat(dirfd, name, st, unix.AT_SYMLINK_NOFOLLOW|unix.AT_NO_AUTOMOUNT)
}

// readlinkat gives the target of a symlink, at most as long as the kernel lets one be.
func readlinkat(dirfd int, name string) (string, error) {
	buf := make([]byte, 256)
	for {
		n, err := unix.Readlinkat(dirfd, name, buf)
		if err == unix.EINVAL { // no symlink any more
			return "", unix.ENOENT
		}
		if err != nil {
			return "", err
		}
		if n < len(buf) {
			return string(buf[:n]), nil
		}
		if len(buf) > unix.PathMax {
			return "", io.ErrShortBuffer
		}
		buf = make([]byte, 2*len(buf))
	}
}

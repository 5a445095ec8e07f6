package cachemount

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"runtime"
	"sync/atomic"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"larder/internal/tree"
)

// Bounds on what a cache mount may hold; real ones stay far below.
const (
	maxEntries = 2_000_000
	maxPath    = unix.PathMax - 1 // bytes of a path below the mount
)

// openBeneath opens rel below rootfd; "" is the directory itself. The kernel refuses every way out of it and every link on
// the path, whatever a step or a generation put there.
func openBeneath(rootfd int, rel string, flags int, mode uint32) (int, error) {
	if rel == "" {
		rel = "."
	}
	how := unix.OpenHow{
		Flags:   uint64(flags) | unix.O_CLOEXEC | unix.O_NOFOLLOW,
		Mode:    uint64(mode),
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS,
	}
	for {
		fd, err := unix.Openat2(rootfd, rel, &how)
		if err != unix.EINTR && err != unix.EAGAIN {
			return fd, os.NewSyscallError("open", err)
		}
	}
}

// openQuietly opens for reading so that larder's own reading is not taken for a step's: without a new access time, where the kernel
// lets us. Where it does not, the stamp is made after the reading.
func openQuietly(rootfd int, rel string, flags int) (int, error) {
	flags |= unix.O_RDONLY | unix.O_NONBLOCK
	fd, err := openBeneath(rootfd, rel, flags|unix.O_NOATIME, 0)
	if errors.Is(err, unix.EPERM) {
		fd, err = openBeneath(rootfd, rel, flags, 0)
	}
	return fd, err
}

// listNames lists an open directory in the order of the file system. It leaves fd open.
func listNames(fd int, buf []byte) ([]string, error) {
	var names []string
	for {
		n, err := unix.Getdents(fd, buf)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return nil, os.NewSyscallError("getdents", err)
		}
		if n == 0 {
			return names, nil
		}
		_, _, names = unix.ParseDirent(buf[:n], -1, names)
	}
}

func readLink(dirfd int, name string) (string, error) {
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(dirfd, name, buf)
	if err != nil {
		return "", os.NewSyscallError("readlink", err)
	}
	return string(buf[:n]), nil
}

func metaOf(st *unix.Stat_t) tree.Meta {
	return tree.Meta{Mode: st.Mode & 0o7777, UID: st.Uid, GID: st.Gid, MTime: st.Mtim.Nano()}
}

// fdReader reads a descriptor that somebody else closes, until ctx ends.
type fdReader struct {
	ctx context.Context
	fd  int
}

func (r fdReader) Read(p []byte) (int, error) {
	if r.ctx.Err() != nil {
		return 0, context.Cause(r.ctx)
	}
	for {
		n, err := unix.Read(r.fd, p)
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

func writeFull(fd int, p []byte, off int64) error {
	for len(p) > 0 {
		n, err := unix.Pwrite(fd, p, off)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return os.NewSyscallError("write", err)
		}
		p, off = p[n:], off+int64(n)
	}
	return nil
}

// hole is the least that is left out of a file where it holds zeros, and the multiple at which it begins.
const hole = 32 << 10

var zeros [hole]byte

// writeSparse writes p but for blocks of zeros, which stay holes; the caller sees to the file's size.
func writeSparse(fd int, p []byte, off int64) error {
	start := 0
	for at := 0; at < len(p); {
		end := min(at+hole-int((off+int64(at))%hole), len(p))
		if bytes.Equal(p[at:end], zeros[:end-at]) {
			if err := writeFull(fd, p[start:at], off+int64(start)); err != nil {
				return err
			}
			start = end
		}
		at = end
	}
	return writeFull(fd, p[start:], off+int64(start))
}

// setOpen gives an open file or directory its metadata and the given access time, and says what stat says of it then. What is
// right already is not set again. The order counts: a change of owner clears setuid bits and capabilities, and attributes need a
// mode that lets us write.
func setOpen(fd int, kind tree.Kind, m *tree.Meta, atime int64) (st unix.Stat_t, err error) {
	times := []unix.Timespec{unix.NsecToTimespec(atime), unix.NsecToTimespec(m.MTime)}
	if err := unix.UtimesNanoAt(fd, "", times, unix.AT_EMPTY_PATH); err != nil {
		return st, os.NewSyscallError("utimensat", err)
	}
	if err := unix.Fstat(fd, &st); err != nil {
		return st, os.NewSyscallError("fstat", err)
	}
	owned := st.Uid == m.UID && st.Gid == m.GID
	if owned && st.Mode&0o7777 == m.Mode && len(m.Xattrs) == 0 {
		return st, nil
	}
	if !owned {
		if err := unix.Fchown(fd, int(m.UID), int(m.GID)); err != nil {
			return st, os.NewSyscallError("fchown", err)
		}
	}
	for _, x := range m.Xattrs {
		if keptXattr(x.Name, kind) {
			if err := setXattr(x.Name, unix.Fsetxattr(fd, x.Name, x.Value, 0)); err != nil {
				return st, err
			}
		}
	}
	if err := unix.Fchmod(fd, m.Mode); err != nil {
		return st, os.NewSyscallError("fchmod", err)
	}
	return st, os.NewSyscallError("fstat", unix.Fstat(fd, &st))
}

// setNamed is setOpen for what is not opened: links, devices, fifos.
func setNamed(dirfd int, name string, kind tree.Kind, m *tree.Meta, atime int64) (st unix.Stat_t, err error) {
	if err := unix.Fchownat(dirfd, name, int(m.UID), int(m.GID), unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return st, os.NewSyscallError("fchownat", err)
	}
	for _, x := range m.Xattrs {
		if keptXattr(x.Name, kind) {
			if err := setXattr(x.Name, unix.Lsetxattr(procPath(dirfd, name), x.Name, x.Value, 0)); err != nil {
				return st, err
			}
		}
	}
	if kind != tree.Symlink {
		if err := unix.Fchmodat(dirfd, name, m.Mode, 0); err != nil {
			return st, os.NewSyscallError("fchmodat", err)
		}
	}
	times := []unix.Timespec{unix.NsecToTimespec(atime), unix.NsecToTimespec(m.MTime)}
	if err := unix.UtimesNanoAt(dirfd, name, times, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return st, os.NewSyscallError("utimensat", err)
	}
	return st, os.NewSyscallError("fstatat", unix.Fstatat(dirfd, name, &st, unix.AT_SYMLINK_NOFOLLOW))
}

// inParallel calls fn for 0 to n-1, in rising order but several at a time, until one fails or ctx ends.
func inParallel(ctx context.Context, n int, fn func(i int) error) error {
	if n < 2*runtime.NumCPU() { // not worth the goroutines
		for i := range n {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			if err := fn(i); err != nil {
				return err
			}
		}
		return nil
	}
	var next atomic.Int64
	g, ctx := errgroup.WithContext(ctx)
	for range runtime.NumCPU() {
		g.Go(func() error {
			for {
				i := int(next.Add(1)) - 1
				if i >= n {
					return nil
				}
				if ctx.Err() != nil {
					return context.Cause(ctx)
				}
				if err := fn(i); err != nil {
					return err
				}
			}
		})
	}
	return g.Wait()
}

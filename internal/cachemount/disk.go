package cachemount

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"sync/atomic"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"larder/internal/disk"
	"larder/internal/tree"
)

// Bounds on what a cache mount may hold; real ones stay far below.
const (
	maxEntries = 2_000_000
	maxPath    = unix.PathMax - 1 // bytes of a path below the mount
)

// openBeneath is disk.OpenBeneath; its errors say that it was an open.
func openBeneath(rootfd int, rel string, flags int, mode uint32) (int, error) {
	fd, err := disk.OpenBeneath(rootfd, rel, flags, mode)
	return fd, os.NewSyscallError("open", err)
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
		if disk.Kept(x.Name, kind) {
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
		if disk.Kept(x.Name, kind) {
			if err := setXattr(x.Name, unix.Lsetxattr(disk.ProcPath(dirfd, name), x.Name, x.Value, 0)); err != nil {
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

// setXattr makes an error of a failed setting, except where the file system does not know attributes of this kind: the mount is then
// as good as it can be there.
func setXattr(name string, err error) error {
	if err == nil || errors.Is(err, unix.ENOTSUP) {
		return nil
	}
	return fmt.Errorf("set attribute %s: %w", name, err)
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

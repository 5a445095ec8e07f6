package disk

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"larder/internal/tree"
)

// OpenBeneath opens rel below rootfd; "" is the directory itself. The kernel refuses every way out of the directory and every
// link on the path, whatever the names are and whoever changes the directory meanwhile. The error is a plain unix.Errno. The
// caller closes the descriptor.
func OpenBeneath(rootfd int, rel string, flags int, mode uint32) (int, error) {
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
		if err == unix.EINTR || err == unix.EAGAIN { // a rename above it raced with the look-up
			continue
		}
		return fd, err
	}
}

// ProcPath names an object in an open directory for calls that know no directory descriptors.
func ProcPath(dirfd int, name string) string { return fmt.Sprintf("/proc/self/fd/%d/%s", dirfd, name) }

// MetaOf gives what stat says of an object's metadata: all but the attributes.
func MetaOf(st *unix.Stat_t) tree.Meta {
	return tree.Meta{Mode: st.Mode & 0o7777, UID: st.Uid, GID: st.Gid, MTime: st.Mtim.Nano()}
}

// ListNames lists an open directory in the order of the file system. It leaves fd open. buf is scratch space of at least 4 KiB.
func ListNames(fd int, buf []byte) ([]string, error) {
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

// Readlink gives the target of a symlink. size is its length in bytes as stat gives it, and may be wrong: some file systems
// say 0.
func Readlink(dirfd int, name string, size int64) (string, error) {
	for n := min(max(size, 0), unix.PathMax) + 1; ; n *= 2 {
		buf := make([]byte, min(n, unix.PathMax+1))
		got, err := unix.Readlinkat(dirfd, name, buf)
		if err != nil {
			return "", os.NewSyscallError("readlink", err)
		}
		if got < len(buf) || len(buf) > unix.PathMax {
			return string(buf[:got]), nil
		}
	}
}

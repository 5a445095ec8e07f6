package context

import (
	"os"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"larder/internal/disk"
)

// noOpenat2 is set once the kernel, or a container's seccomp profile, has refused openat2.
var noOpenat2 atomic.Bool

// openBeneath opens a path below a directory without following any symlink, so that nobody who edits the context
// meanwhile can lead a read out of it. "" is the directory itself.
func openBeneath(root *os.File, path string, flags int) (int, error) {
	if path == "" {
		path = "."
	}
	for !noOpenat2.Load() {
		fd, err := disk.OpenBeneath(int(root.Fd()), path, flags, 0)
		if err != unix.ENOSYS && err != unix.EPERM {
			return fd, err
		}
		noOpenat2.Store(true)
	}
	return openStepwise(int(root.Fd()), path, flags)
}

// openStepwise does the same one component at a time.
func openStepwise(dirfd int, path string, flags int) (int, error) {
	const step = unix.O_PATH | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC
	at := dirfd
	defer func() {
		if at != dirfd {
			unix.Close(at)
		}
	}()
	for start, i := 0, 0; i < len(path); i++ {
		if path[i] != '/' {
			continue
		}
		next, err := unix.Openat(at, path[start:i], step, 0)
		if err != nil {
			return -1, err
		}
		if at != dirfd {
			unix.Close(at)
		}
		at, start = next, i+1
		path, start, i = path[start:], 0, -1
	}
	return unix.Openat(at, path, flags|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
}

package treefs

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"larder/internal/fault"
)

// ErrUnavailable is wrapped where this machine has no FUSE for larder. The error says what would give it.
var ErrUnavailable = errors.New("no FUSE here")

// mountFuse mounts an empty connection at dir and gives the device's descriptor. No helper program is started, and the descriptor
// goes to no child: a step must not hold it, and it has to end with this process.
func mountFuse(device, dir string) (int, error) {
	fd, err := unix.Open(device, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, unavailable(device, err)
	}
	opts := fmt.Sprintf("fd=%d,rootmode=40000,user_id=%d,group_id=%d,allow_other,max_read=%d", fd, os.Geteuid(), os.Getegid(), mostRequest)
	if err := unix.Mount("larder", dir, "fuse.larder", unix.MS_RDONLY, opts); err != nil {
		unix.Close(fd)
		return -1, unavailable(device, os.NewSyscallError("mount", err))
	}
	return fd, nil
}

func unavailable(device string, err error) error {
	way := "steps are keyed by all of their layers without it"
	switch {
	case errors.Is(err, unix.ENOENT):
		way = device + " is missing: modprobe fuse, or give the container that larder runs in --device /dev/fuse"
	case errors.Is(err, unix.ENODEV), errors.Is(err, unix.ENXIO):
		way = "this kernel has no FUSE (try: modprobe fuse)"
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		way = "it needs root (CAP_SYS_ADMIN) and leave to open " + device + ": run larder with sudo, or the container that it runs in with --privileged"
	}
	return fault.New(fault.Machine, fmt.Errorf("%w: %s: %w", ErrUnavailable, way, err))
}

package runtime

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// processesWith lists the processes whose command line names a path: runtimes that work on its bundle.
func processesWith(path string) ([]int, error) {
	list, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	var pids []int
	for _, e := range list {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		b, err := os.ReadFile(filepath.Join("/proc", e.Name(), "cmdline"))
		if err != nil {
			continue
		}
		for arg := range strings.SplitSeq(string(b), "\x00") {
			if arg == path {
				pids = append(pids, pid)
				break
			}
		}
	}
	return pids, nil
}

// removeCgroups removes the parent of our containers' cgroups from every hierarchy. It stays where another larder has
// containers in it.
func removeCgroups() {
	const mountpoint = "/sys/fs/cgroup"
	rmdir := func(dir string) {
		if err := unix.Rmdir(filepath.Join(dir, cgroupRoot)); errors.Is(err, unix.EBUSY) {
			return
		}
	}
	rmdir(mountpoint)
	list, err := os.ReadDir(mountpoint)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return
	}
	for _, e := range list {
		if e.IsDir() {
			rmdir(filepath.Join(mountpoint, e.Name()))
		}
	}
}

package runtime

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

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

// removeCgroups removes an executor's cgroups from every hierarchy, with what may still run in them: a runtime that was
// killed before it wrote down what it does leaves such.
func removeCgroups(name string) error {
	var errs []error
	for _, pattern := range []string{"/sys/fs/cgroup/", "/sys/fs/cgroup/*/"} {
		for _, below := range []string{"/*/", ""} {
			groups, err := filepath.Glob(pattern + name + below)
			if err != nil {
				return err
			}
			for _, g := range groups {
				errs = append(errs, removeCgroup(g))
			}
		}
	}
	return errors.Join(errs...)
}

func removeCgroup(dir string) error {
	var err error
	for wait := time.Millisecond; wait < time.Second; wait *= 2 {
		if err = unix.Rmdir(dir); err == nil || errors.Is(err, unix.ENOENT) {
			return nil
		}
		b, rerr := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
		if rerr != nil {
			break
		}
		for field := range strings.FieldsSeq(string(b)) {
			if pid, err := strconv.Atoi(field); err == nil && pid > 1 {
				unix.Kill(pid, unix.SIGKILL)
			}
		}
		time.Sleep(wait)
	}
	return &os.PathError{Op: "rmdir", Path: dir, Err: err}
}

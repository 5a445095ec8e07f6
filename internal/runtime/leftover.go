package runtime

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// killWith ends the processes whose command line names a path or what lies below it, and waits until they are gone: a
// runtime that outlived larder goes on making what is being cleaned up.
func killWith(ctx context.Context, path string) error {
	for wait := time.Millisecond; ; wait = min(2*wait, 50*time.Millisecond) {
		pids, err := processesWith(path)
		if err != nil || len(pids) == 0 {
			return err
		}
		for _, pid := range pids {
			unix.Kill(pid, unix.SIGKILL)
		}
		t := time.NewTimer(wait)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return fmt.Errorf("processes %d of an earlier run do not end: %w", pids, context.Cause(ctx))
		}
	}
}

// processesWith lists the processes whose command line names a path, or something below it.
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
			if arg == path || strings.HasPrefix(arg, path+"/") {
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
	var err error
	// All are looked for anew each time: a process that is not dead yet may have made more.
	for wait := time.Millisecond; wait < 3*time.Second; wait *= 2 {
		err = nil
		for _, pattern := range []string{"/sys/fs/cgroup/", "/sys/fs/cgroup/*/"} {
			for _, below := range []string{"/*", ""} {
				groups, gerr := filepath.Glob(pattern + name + below)
				if gerr != nil {
					return gerr
				}
				for _, g := range groups {
					err = errors.Join(err, removeCgroup(g))
				}
			}
		}
		if err == nil {
			return nil
		}
		time.Sleep(wait)
	}
	return err
}

// removeCgroup removes one that nothing runs in, and kills what does.
func removeCgroup(dir string) error {
	err := unix.Rmdir(dir)
	if err == nil || errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
		return nil // ENOTDIR: one of the files in a cgroup
	}
	b, rerr := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
	if errors.Is(rerr, os.ErrNotExist) {
		return nil
	}
	for field := range strings.FieldsSeq(string(b)) {
		if pid, err := strconv.Atoi(field); err == nil && pid > 1 {
			unix.Kill(pid, unix.SIGKILL)
		}
	}
	return &os.PathError{Op: "rmdir", Path: dir, Err: err}
}

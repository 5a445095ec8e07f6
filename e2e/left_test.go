package e2e

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// nothingLeft fails when builds over root left a mount, a file lock, or a process whose command line has mark in it.
func nothingLeft(t *testing.T, root, mark string) {
	t.Helper()
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(mounts)) {
		if f := strings.Fields(line); len(f) > 4 && strings.HasPrefix(f[4], root+"/") {
			t.Errorf("left mounted: %s", line)
		}
	}
	for _, p := range processes(t, mark) {
		t.Errorf("left running: %s", p)
	}
	locks, err := os.ReadFile("/proc/locks")
	if err != nil {
		t.Fatal(err)
	}
	files := inodes(t, root)
	for line := range strings.Lines(string(locks)) {
		// "1: FLOCK  ADVISORY  WRITE 1234 fe:00:5678 0 EOF": device numbers in hexadecimal, then the inode.
		f := strings.Fields(line)
		if len(f) < 6 {
			continue
		}
		if path, ok := files[f[5]]; ok {
			t.Errorf("left locked: %s: %s", path, line)
		}
	}
}

// processes lists those whose command line or whose container holds mark.
func processes(t *testing.T, mark string) []string {
	t.Helper()
	entries, err := os.ReadDir("/proc")
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		line, err := os.ReadFile(filepath.Join("/proc", e.Name(), "cmdline"))
		if err == nil && bytes.Contains(line, []byte(mark)) {
			found = append(found, fmt.Sprintf("%d: %s", pid, bytes.ReplaceAll(line, []byte{0}, []byte{' '})))
		}
	}
	return found
}

// inodes maps every file below root, as /proc/locks names it, to its path.
func inodes(t *testing.T, root string) map[string]string {
	t.Helper()
	found := map[string]string{}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		st := info.Sys().(*syscall.Stat_t)
		major, minor := st.Dev>>8&0xfff, st.Dev&0xff|st.Dev>>12&0xfff00
		found[fmt.Sprintf("%02x:%02x:%d", major, minor, st.Ino)] = path
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

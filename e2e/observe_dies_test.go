package e2e

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestFuseDies ends the kernel's connection to larder while a step looks at files: the build fails and says what happened.
func TestFuseDies(t *testing.T) {
	w := startWaiting(t)
	control := filepath.Join(w.work, "connections")
	if err := os.Mkdir(control, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("fusectl", control, "fusectl", 0, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(control, 0); err != nil {
			t.Error(err)
		}
	})
	ids := connections(t, w.root)
	if len(ids) != 1 {
		t.Fatalf("one step is served by the FUSE file systems %v", ids)
	}
	if err := os.WriteFile(filepath.Join(control, ids[0], "abort"), []byte("1"), 0); err != nil {
		t.Fatal(err)
	}
	close(w.end)
	_ = w.cmd.Wait()
	said := w.said.String()
	if code := w.cmd.ProcessState.ExitCode(); code == 0 || code == 130 || code == 2 {
		t.Errorf("exit code %d", code)
	}
	message := said[max(0, strings.LastIndex(said, "ERROR")):]
	if !strings.Contains(message, "FUSE") && !strings.Contains(message, "fuse") {
		t.Errorf("the message does not say what happened: %s\n%s", message, said)
	}
	w.after(t)
}

// connections lists the FUSE file systems below a directory by what the kernel calls them.
func connections(t *testing.T, root string) []string {
	t.Helper()
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	var ids []string
	for line := range strings.Lines(string(mounts)) {
		// 36 35 0:61 / /mnt/point rw,noatime - fuse.larder larder rw
		before, after, _ := strings.Cut(line, " - ")
		f := strings.Fields(before)
		if len(f) > 4 && strings.HasPrefix(f[4], root+"/") && strings.HasPrefix(after, "fuse") {
			if _, minor, _ := strings.Cut(f[2], ":"); !slices.Contains(ids, minor) {
				ids = append(ids, minor)
			}
		}
	}
	return ids
}

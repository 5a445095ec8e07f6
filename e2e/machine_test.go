package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// TestMachineLacks takes from larder what a RUN step needs: exit code 3, and a message that names it.
func TestMachineLacks(t *testing.T) {
	s := newSite(t, small)
	// Another user reaches the program and the context, and has a place for a root.
	for _, dir := range []string{filepath.Dir(program), filepath.Dir(s.work), s.work} {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	home := filepath.Join(s.work, "home")
	if err := os.Mkdir(home, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(home, 65534, 65534); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		root string
		user *syscall.Credential
		says string
		more []string
	}{
		{"a runtime", filepath.Join(s.work, "root"), nil, "/nonexistent/runc", []string{"--runtime", "/nonexistent/runc"}},
		{"root", filepath.Join(home, "root"), &syscall.Credential{Uid: 65534, Gid: 65534}, "root", nil},
		{"a place that can be written", "/proc/larder", nil, "/proc/larder", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			cmd := s.command(t.Context(), c.root, filepath.Join(home, "out"), c.more...)
			cmd.Env = append(cmd.Env, "HOME="+home)
			cmd.SysProcAttr = &syscall.SysProcAttr{Credential: c.user}
			out, err := cmd.CombinedOutput()
			if code := cmd.ProcessState.ExitCode(); code != 3 {
				t.Errorf("exit code %d (%v), want 3", code, err)
			}
			if !strings.Contains(string(out), c.says) {
				t.Errorf("the message lacks %q", c.says)
			}
			if t.Failed() {
				t.Logf("%s", out)
			}
		})
	}
}

// TestVersion says what is running.
func TestVersion(t *testing.T) {
	out := string(tool(t, program, "version"))
	if !strings.HasPrefix(out, "larder ") {
		t.Errorf("larder version says %q", out)
	}
}

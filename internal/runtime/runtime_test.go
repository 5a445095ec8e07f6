package runtime

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/moby/buildkit/solver/pb"
)

// rootfs makes a root file system of busybox; the test is skipped without root, runtime or a static busybox.
func rootfs(t testing.TB) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	path, err := exec.LookPath("busybox")
	if err != nil {
		t.Skip("needs busybox-static")
	}
	dir := t.TempDir()
	bin := filepath.Join(dir, "bin")
	if err := os.MkdirAll(bin, 0o755); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(bin, "busybox"), data, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "etc"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "etc/passwd"), []byte("root:x:0:0::/r:/bin/sh\nseven:x:7:8::/home/seven:/bin/sh\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, a := range []string{"sh", "true", "sleep", "cat", "id", "env", "hostname", "ip", "ls", "mkdir", "touch", "mount", "grep", "nproc"} {
		if err := os.Symlink("busybox", filepath.Join(bin, a)); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func newExecutor(t testing.TB, name string) *Executor {
	t.Helper()
	rt, err := Find(t.Context(), name)
	if err != nil {
		t.Skipf("needs %s: %v", name, err)
	}
	e, err := New(rt, filepath.Join(t.TempDir(), "run"), Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	})
	return e
}

// eachRuntime runs a test with every runtime that is known.
func eachRuntime(t *testing.T, f func(t *testing.T, e *Executor, root string)) {
	for _, name := range known {
		t.Run(name, func(t *testing.T) {
			root := rootfs(t)
			f(t, newExecutor(t, name), root)
		})
	}
}

func sh(root, script string) (Spec, *bytes.Buffer) {
	var out bytes.Buffer
	return Spec{
		Root: root, Args: []string{"/bin/sh", "-c", script}, Cwd: "/", Env: []string{"PATH=/bin"},
		Stdout: &out, Stderr: &out,
	}, &out
}

func TestRun(t *testing.T) {
	eachRuntime(t, func(t *testing.T, e *Executor, root string) {
		for _, c := range []struct {
			name, script string
			edit         func(*Spec)
			want         string
			code         int
		}{
			{name: "output", script: "echo out; sleep 0.1; echo err >&2", want: "out\nerr\n"}, // runc copies the two streams apart
			{name: "exit code", script: "exit 42", code: 42},
			{name: "valid exit code", script: "exit 42", edit: func(s *Spec) { s.ValidExitCodes = []int{42} }},
			{name: "hostname", script: "hostname", want: "buildkitsandbox\n"},
			{name: "own hostname", script: "hostname", edit: func(s *Spec) { s.Hostname = "box" }, want: "box\n"},
			{name: "user", script: "id -u; id -g", edit: func(s *Spec) { s.User = "7:8" }, want: "7\n8\n"},
			{name: "home", script: "echo $HOME", edit: func(s *Spec) { s.User = "7" }, want: "/home/seven\n"},
			{name: "home of root", script: "echo $HOME", want: "/r\n"},
			{name: "home of nobody", script: "echo $HOME", edit: func(s *Spec) { s.User = "1234:8" }, want: "/\n"},
			{name: "home that is set", script: "echo $HOME", edit: func(s *Spec) { s.Env = append(s.Env, "HOME=/h") }, want: "/h\n"},
			{name: "cwd is made", script: "pwd", edit: func(s *Spec) { s.Cwd = "/a/b" }, want: "/a/b\n"},
			{name: "no network", script: "ls /sys/class/net", edit: func(s *Spec) { s.Network = pb.NetMode_NONE }, want: "lo\n"},
			{name: "hosts", script: "grep example /etc/hosts", want: "10.1.2.3\texample\n", edit: func(s *Spec) {
				s.ExtraHosts = []*pb.HostIP{{Host: "example", IP: "10.1.2.3"}}
			}},
			{name: "ulimit", script: "ulimit -n", want: "123\n", edit: func(s *Spec) {
				s.Ulimits = []*pb.Ulimit{{Name: "nofile", Soft: 123, Hard: 123}}
			}},
			{name: "tmpfs", script: "mount | grep ' on /t '", want: "tmpfs on /t type tmpfs (rw,nosuid,relatime,size=64k)\n", edit: func(s *Spec) {
				s.Mounts = []Mount{{Dest: "/t", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "size=65536"}}}
			}},
		} {
			t.Run(c.name, func(t *testing.T) {
				spec, out := sh(root, c.script)
				if c.edit != nil {
					c.edit(&spec)
				}
				err := e.Run(t.Context(), spec)
				var exit *ExitError
				if c.code != 0 {
					if !errors.As(err, &exit) || exit.Code != c.code {
						t.Errorf("got %v, want exit code %d", err, c.code)
					}
				} else if err != nil {
					t.Errorf("%v: %s", err, out)
				}
				if c.want != "" && out.String() != c.want {
					t.Errorf("got %q, want %q", out, c.want)
				}
			})
		}
		nothingLeft(t, e)
	})
}

func TestRunMissingCommand(t *testing.T) {
	eachRuntime(t, func(t *testing.T, e *Executor, root string) {
		spec, _ := sh(root, "")
		spec.Args = []string{"/no/such"}
		var start *StartError
		if err := e.Run(t.Context(), spec); !errors.As(err, &start) || !strings.Contains(err.Error(), "/no/such") {
			t.Errorf("got %v, want a StartError that names /no/such", err)
		}
		nothingLeft(t, e)
	})
}

func TestRunCancelled(t *testing.T) {
	eachRuntime(t, func(t *testing.T, e *Executor, root string) {
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		defer cancel()
		spec, _ := sh(root, "sleep 60 & sleep 60")
		start := time.Now()
		if err := e.Run(ctx, spec); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		if d := time.Since(start); d > 5*time.Second {
			t.Errorf("took %s to die", d)
		}
		nothingLeft(t, e)
	})
}

// nothingLeft checks that no container, bundle or process of an executor is there any more.
func nothingLeft(t *testing.T, e *Executor) {
	t.Helper()
	for _, dir := range []string{e.state(), e.root()} {
		list, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, entry := range list {
			if entry.IsDir() {
				t.Errorf("%s is left in %s", entry.Name(), dir)
			}
		}
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	if groups, _ := filepath.Glob("/sys/fs/cgroup/*/" + cgroupName(e.dir) + "/*/"); len(groups) > 0 {
		t.Errorf("cgroups are left: %s", groups)
	}
	if strings.Contains(string(mounts), e.dir) {
		t.Errorf("a mount is left in %s", e.dir)
	}
}

func BenchmarkRun(b *testing.B) {
	for _, name := range known {
		b.Run(name, func(b *testing.B) {
			root := rootfs(b)
			e := newExecutor(b, name)
			spec, _ := sh(root, "true")
			spec.Args = []string{"/bin/true"}
			for b.Loop() {
				if err := e.Run(b.Context(), spec); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

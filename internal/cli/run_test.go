package cli

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"larder/internal/testregistry"
)

// kitchen is a project with a base image, and a local root, to run commands in.
type kitchen struct {
	t         *testing.T
	dir, root string
}

func newKitchen(t *testing.T) *kitchen {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: commands run in containers")
	}
	reg := testregistry.Start(t)
	reg.PushBase(t, "busybox")
	k := &kitchen{t: t, dir: t.TempDir(), root: filepath.Join(t.TempDir(), "root")}
	dockerfile := "FROM " + reg.Ref("busybox:latest") + "\nRUN --mount=type=cache,target=/c echo built > /c/built\n"
	if err := os.WriteFile(filepath.Join(k.dir, "Dockerfile"), []byte(dockerfile), 0o644); err != nil {
		t.Fatal(err)
	}
	return k
}

// larder makes a process of this program.
func (k *kitchen) larder(args ...string) *exec.Cmd {
	self, err := os.Executable()
	if err != nil {
		k.t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Args = append([]string{"larder"}, args...) // see TestMain
	cmd.Env = append(os.Environ(), "LARDER_ROOT="+k.root, "LARDER_PROGRESS=plain")
	k.t.Cleanup(func() { // of a test that failed
		if cmd.Process != nil && cmd.ProcessState == nil {
			cmd.Process.Kill()
		}
	})
	return cmd
}

func (k *kitchen) run(script string, flags ...string) *exec.Cmd {
	args := append([]string{"run"}, flags...)
	return k.larder(append(args, k.dir, "--", "sh", "-c", script)...)
}

// clean checks that nothing of a local root is mounted or running.
func (k *kitchen) clean() {
	k.t.Helper()
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil || strings.Contains(string(mounts), k.root) {
		k.t.Errorf("mounts are left in %s: %v", k.root, err)
	}
	if list, _ := filepath.Glob(filepath.Join(k.root, "mounts", "*")); len(list) > 0 {
		k.t.Errorf("left: %s", list)
	}
}

// heard is an output that a test waits for words in.
type heard struct {
	mu   sync.Mutex
	said bytes.Buffer
}

func (h *heard) Write(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.said.Write(p)
}

func (h *heard) String() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.said.String()
}

func (h *heard) wait(t *testing.T, words string) {
	t.Helper()
	for range 3000 {
		if strings.Contains(h.String(), words) {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("%q was not said, but:\n%s", words, h)
}

// exitCode waits for a process.
func exitCode(t *testing.T, cmd *exec.Cmd) int {
	t.Helper()
	err := cmd.Wait()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode()
}

func TestRunSignals(t *testing.T) {
	k := newKitchen(t)
	for _, c := range []struct {
		name, script string
		signals      []os.Signal
		code         int
		says         string
	}{
		{"handled", "trap 'echo bye; exit 9' TERM; echo ready; while :; do sleep 0.02; done", []os.Signal{syscall.SIGTERM}, 9, "bye\n"},
		{"not handled", "echo ready; exec sleep 100", []os.Signal{syscall.SIGINT}, 130, ""},
		{"hang-up and quit", "trap 'echo hup' HUP; trap 'exit 8' QUIT; echo ready; while :; do sleep 0.02; done", []os.Signal{syscall.SIGHUP, syscall.SIGQUIT}, 8, "hup\n"},
		{"ignored", "trap 'echo no' INT; echo ready; while :; do sleep 0.02; done", []os.Signal{os.Interrupt, os.Interrupt, os.Interrupt}, 130, "no\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			out := new(heard)
			cmd := k.run(c.script, "-q")
			cmd.Stdout, cmd.Stderr = out, out
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			for n, s := range c.signals {
				out.wait(t, "ready\n"+strings.Repeat(c.says, n)) // two at once of the same kind would be one
				if err := cmd.Process.Signal(s); err != nil {
					t.Error(err)
				}
			}
			if code := exitCode(t, cmd); code != c.code || !strings.Contains(out.String(), c.says) {
				t.Errorf("exit code %d, want %d; it said %q", code, c.code, out)
			}
			k.clean()
		})
	}
}

// TestRunResultsInterrupted: while results are copied, signals and the terminal are larder's own again, and one is enough. What was
// not copied whole is no success, however the command ended.
func TestRunResultsInterrupted(t *testing.T) {
	k := newKitchen(t)
	script := func(code int) string {
		return fmt.Sprintf("mkdir /r; truncate -s 8G /r/big; echo ready; exit %d", code)
	}
	copying := func(t *testing.T, dir string, out *heard) {
		t.Helper()
		out.wait(t, "ready")
		for range 30000 {
			if list, _ := os.ReadDir(dir); len(list) > 0 {
				return
			}
			time.Sleep(time.Millisecond)
		}
		t.Fatal("nothing is copied")
	}
	ends := func(t *testing.T, dir string, cmd *exec.Cmd, out *heard) {
		t.Helper()
		if code := exitCode(t, cmd); code != 130 {
			t.Errorf("exit code %d; it said %q", code, out)
		}
		out.wait(t, "interrupted")
		if list, _ := os.ReadDir(dir); len(list) > 0 {
			t.Errorf("left: %v", list)
		}
		k.clean()
	}
	for code, s := range map[int]os.Signal{0: os.Interrupt, 5: syscall.SIGTERM} {
		t.Run(s.String(), func(t *testing.T) {
			dir, out := filepath.Join(t.TempDir(), "out"), new(heard)
			cmd := k.run(script(code), "-q", "--output", dir+":/r")
			cmd.Stdout, cmd.Stderr = out, out
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			copying(t, dir, out)
			if err := cmd.Process.Signal(s); err != nil {
				t.Error(err)
			}
			ends(t, dir, cmd, out)
		})
	}
	t.Run("key", func(t *testing.T) {
		master, slave := terminal(t)
		before := mode(t, slave)
		dir := filepath.Join(t.TempDir(), "out")
		cmd := k.run(script(5), "-q", "--output", dir+":/r")
		out := onTerminal(t, cmd, master, slave)
		copying(t, dir, out)
		if during := mode(t, slave); !reflect.DeepEqual(before, during) {
			t.Errorf("the terminal is in another mode: %+v, was %+v", during, before)
		}
		master.Write([]byte{3})
		ends(t, dir, cmd, out)
	})
}

// TestRunKilled: what a larder that was killed leaves is cleaned up by the next.
func TestRunKilled(t *testing.T) {
	k := newKitchen(t)
	word := fmt.Sprintf("1000.%d", time.Now().UnixNano())
	out := new(heard)
	cmd := k.run("echo ready; sleep "+word, "-q")
	cmd.Stdout = out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	out.wait(t, "ready\n")
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	exitCode(t, cmd)
	if b, err := k.run("cat /c/built", "-q").CombinedOutput(); err != nil || string(b) != "built\n" {
		t.Errorf("%v: %s", err, b)
	}
	k.clean()
	list, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range list {
		if b, _ := os.ReadFile(f); bytes.Contains(b, []byte("sleep\x00"+word)) {
			t.Errorf("%s is left running", f)
		}
	}
}

// terminal makes one of 33 rows and 99 columns.
func terminal(t *testing.T) (master, slave *os.File) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { master.Close() })
	fd := int(master.Fd())
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err := errors.Join(err, unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0)); err != nil {
		t.Fatal(err)
	}
	if slave, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { slave.Close() })
	resize(t, master, 33, 99)
	return master, slave
}

func resize(t *testing.T, f *os.File, rows, cols uint16) {
	t.Helper()
	if err := unix.IoctlSetWinsize(int(f.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: cols}); err != nil {
		t.Fatal(err)
	}
}

func mode(t *testing.T, f *os.File) *unix.Termios {
	t.Helper()
	m, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// onTerminal starts a process that has a terminal as a shell would give it one.
func onTerminal(t *testing.T, cmd *exec.Cmd, master, slave *os.File) *heard {
	t.Helper()
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	out := new(heard)
	go io.Copy(out, master)
	return out
}

// TestRunTerminal talks to a command through a terminal: its size, its keys, and how it is left.
func TestRunTerminal(t *testing.T) {
	k := newKitchen(t)
	for _, c := range []struct {
		name, script string
		talk         func(t *testing.T, master *os.File, out *heard, pid int)
		code         int
	}{
		{"size and input", "test -t 0 && test -t 1 && test -t 2 || exit 1; stty size; trap 'stty size; w=1' WINCH; echo $TERM ready; read a; echo first $a; while [ -z \"$w\" ]; do sleep 0.05; done; read b; echo got $a $b; exit 5", func(t *testing.T, master *os.File, out *heard, _ int) {
			out.wait(t, "33 99\r\nodd ready\r\n")
			io.WriteString(master, "one\r")
			out.wait(t, "first one\r\n") // a change of size ends a read
			resize(t, master, 44, 111)
			out.wait(t, "44 111\r\n")
			io.WriteString(master, "two\r")
			out.wait(t, "got one two\r\n")
		}, 5},
		{"keys", "trap 'echo bye; exit 6' INT; echo ready; while :; do sleep 0.02; done", func(t *testing.T, master *os.File, out *heard, _ int) {
			out.wait(t, "ready\r\n")
			master.Write([]byte{3})
			out.wait(t, "bye\r\n")
		}, 6},
		{"killed by larder", "trap 'echo no' TERM; echo ready; while :; do sleep 0.02; done", func(t *testing.T, master *os.File, out *heard, pid int) {
			for n := range 3 {
				out.wait(t, "ready\r\n"+strings.Repeat("no\r\n", n))
				syscall.Kill(pid, syscall.SIGTERM)
			}
		}, 130},
	} {
		t.Run(c.name, func(t *testing.T) {
			master, slave := terminal(t)
			before := mode(t, slave)
			cmd := k.run(c.script)
			cmd.Env = append(cmd.Env, "TERM=odd", "LARDER_PROGRESS=tty")
			out := onTerminal(t, cmd, master, slave)
			c.talk(t, master, out, cmd.Process.Pid)
			if code := exitCode(t, cmd); code != c.code {
				t.Errorf("exit code %d, want %d; it said:\n%s", code, c.code, out)
			}
			if after := mode(t, slave); !reflect.DeepEqual(before, after) {
				t.Errorf("the terminal is left in another mode: %+v, was %+v", after, before)
			}
			k.clean()
		})
	}
}

// TestRunNoTerminal has one and does not use it; what is typed is not for the command.
func TestRunNoTerminal(t *testing.T) {
	k := newKitchen(t)
	master, slave := terminal(t)
	cmd := k.run("test -t 1 || echo none; cat; echo end", "-q", "-T")
	out := onTerminal(t, cmd, master, slave)
	if code := exitCode(t, cmd); code != 0 {
		t.Errorf("exit code %d", code)
	}
	out.wait(t, "none\r\nend\r\n")
	k.clean()
}

// TestStdin: a Read ends when it is closed, and takes nothing that comes later.
func TestStdin(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	in, err := openStdin(r)
	if err != nil {
		t.Fatal(err)
	}
	io.WriteString(w, "first")
	p := make([]byte, 100)
	if n, err := in.Read(p); err != nil || string(p[:n]) != "first" {
		t.Errorf("got %q, %v", p[:n], err)
	}
	ended := make(chan error)
	go func() {
		_, err := in.Read(make([]byte, 1))
		ended <- err
	}()
	time.Sleep(20 * time.Millisecond)
	in.Close()
	in.Close()
	if err := <-ended; err != io.EOF {
		t.Errorf("got %v", err)
	}
	io.WriteString(w, "later")
	if _, err := in.Read(p); err != io.EOF {
		t.Errorf("got %v", err)
	}
	in.release()
	if n, err := r.Read(p); err != nil || string(p[:n]) != "later" {
		t.Errorf("what came later: %q, %v", p[:n], err)
	}
}

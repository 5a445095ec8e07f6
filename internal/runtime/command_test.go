package runtime

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/moby/buildkit/executor"
)

// talk is an output that a test waits for words in.
type talk struct {
	mu    sync.Mutex
	said  bytes.Buffer
	delay time.Duration // per write
}

func (w *talk) Write(p []byte) (int, error) {
	time.Sleep(w.delay)
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.said.Write(p)
}

func (w *talk) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.said.String()
}

// wait returns when the words were said.
func (w *talk) wait(t *testing.T, words string) {
	t.Helper()
	for range 1000 {
		if strings.Contains(w.String(), words) {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("%q was not said, but %q", words, w.String())
}

// start runs a script in the background; the function it gives waits for its exit code.
func start(t *testing.T, e *Executor, spec Spec) func() int {
	t.Helper()
	ended := make(chan error, 1)
	go func() { ended <- e.Run(t.Context(), spec) }()
	return func() int {
		t.Helper()
		err := <-ended
		var exit *ExitError
		if err != nil && !errors.As(err, &exit) {
			t.Fatal(err)
		}
		if exit == nil {
			return 0
		}
		return exit.Code
	}
}

func TestSignals(t *testing.T) {
	eachRuntime(t, func(t *testing.T, e *Executor, root string) {
		for _, c := range []struct {
			name, script string
			signals      []syscall.Signal
			code         int
			says         string
		}{
			{"handled", "trap 'echo bye; exit 7' TERM; echo ready; while :; do sleep 0.02; done", []syscall.Signal{syscall.SIGTERM}, 7, "bye"},
			{"not handled", "echo ready; exec sleep 60", []syscall.Signal{syscall.SIGTERM}, 143, ""},
			{"interrupted", "echo ready; exec sleep 60", []syscall.Signal{syscall.SIGINT}, 130, ""},
			{"ignored, then handled", "trap '' HUP; trap 'exit 9' INT; echo ready; while :; do sleep 0.02; done", []syscall.Signal{syscall.SIGHUP, syscall.SIGINT}, 9, ""},
			{"harmless", "trap 'exit 3' USR1; echo ready; while :; do sleep 0.02; done", []syscall.Signal{syscall.SIGWINCH, syscall.SIGCONT, syscall.SIGUSR1}, 3, ""},
		} {
			t.Run(c.name, func(t *testing.T) {
				spec, _ := sh(root, c.script)
				out, signals := new(talk), make(chan syscall.Signal)
				spec.Stdout, spec.Signal = out, signals
				code := start(t, e, spec)
				out.wait(t, "ready\n")
				for _, s := range c.signals {
					signals <- s
				}
				if got := code(); got != c.code {
					t.Errorf("exit code %d, want %d", got, c.code)
				}
				if !strings.Contains(out.String(), c.says) {
					t.Errorf("it said %q", out)
				}
			})
		}
		nothingLeft(t, e)
	})
}

// TestSignalAtOnce has signals that are there before the command is.
func TestSignalAtOnce(t *testing.T) {
	eachRuntime(t, func(t *testing.T, e *Executor, root string) {
		for range 5 {
			spec, _ := sh(root, "")
			spec.Args = []string{"/bin/sleep", "60"}
			signals := make(chan syscall.Signal, 1)
			signals <- syscall.SIGTERM
			spec.Signal = signals
			if code := start(t, e, spec)(); code != 143 {
				t.Errorf("exit code %d, want 143", code)
			}
		}
		nothingLeft(t, e)
	})
}

func TestStdin(t *testing.T) {
	eachRuntime(t, func(t *testing.T, e *Executor, root string) {
		spec, out := sh(root, "cat")
		spec.Stdin = io.NopCloser(strings.NewReader("some\nwords\n"))
		if err := e.Run(t.Context(), spec); err != nil || out.String() != "some\nwords\n" {
			t.Errorf("got %q, %v", out, err)
		}
		// Nobody writes to it, and nobody reads all of it.
		for _, script := range []string{"exit 5", "read line; exit 5"} {
			r, w := io.Pipe()
			go fmt.Fprintln(w, strings.Repeat("x", 1<<20))
			spec, _ := sh(root, script)
			spec.Stdin = r
			if code := start(t, e, spec)(); code != 5 {
				t.Errorf("%s: exit code %d", script, code)
			}
		}
		spec, out = sh(root, "cat; echo end")
		if err := e.Run(t.Context(), spec); err != nil || out.String() != "end\n" {
			t.Errorf("without a standard input: got %q, %v", out, err)
		}
		nothingLeft(t, e)
	})
}

func TestTerminal(t *testing.T) {
	eachRuntime(t, func(t *testing.T, e *Executor, root string) {
		spec, _ := sh(root, `test -t 0 && test -t 1 && test -t 2 || exit 1
trap 'busybox stty size' WINCH
busybox stty size
echo ready; read word; echo "got $word"
i=0; while [ $i -lt 5 ]; do sleep 0.1; i=$((i+1)); done
echo more; read word; exit 4`)
		out, sizes := new(talk), make(chan executor.WinSize, 1)
		in, typed := io.Pipe()
		sizes <- executor.WinSize{Rows: 33, Cols: 99}
		spec.Tty, spec.Stdin, spec.Stdout, spec.Resize = true, in, out, sizes
		code := start(t, e, spec)
		out.wait(t, "33 99\r\n")
		out.wait(t, "ready\r\n")
		io.WriteString(typed, "hello\r")
		out.wait(t, "got hello\r\n")
		sizes <- executor.WinSize{Rows: 44, Cols: 111}
		out.wait(t, "44 111\r\n")
		out.wait(t, "more\r\n")
		io.WriteString(typed, "x\r")
		if got := code(); got != 4 {
			t.Errorf("exit code %d, want 4; it said %q", got, out)
		}
		if n := strings.Count(out.String(), "hello"); n != 2 { // the echo and the answer
			t.Errorf("hello stands %d times in %q", n, out)
		}
		if _, err := typed.Write([]byte("x")); !errors.Is(err, io.ErrClosedPipe) {
			t.Errorf("the input is still open: %v", err)
		}
		nothingLeft(t, e)
	})
}

// TestTerminalKeys: ^C is the command's, not larder's.
func TestTerminalKeys(t *testing.T) {
	eachRuntime(t, func(t *testing.T, e *Executor, root string) {
		spec, _ := sh(root, "trap 'echo bye; exit 6' INT; echo ready; while :; do sleep 0.02; done")
		out := new(talk)
		in, typed := io.Pipe()
		spec.Tty, spec.Stdin, spec.Stdout = true, in, out
		code := start(t, e, spec)
		out.wait(t, "ready\r\n")
		typed.Write([]byte{3})
		if got := code(); got != 6 || !strings.HasSuffix(out.String(), "bye\r\n") {
			t.Errorf("exit code %d, it said %q", got, out)
		}
		nothingLeft(t, e)
	})
}

// TestTerminalTellsAll: nothing of the output is lost, though it is taken slowly, and nobody types.
func TestTerminalTellsAll(t *testing.T) {
	eachRuntime(t, func(t *testing.T, e *Executor, root string) {
		spec, _ := sh(root, "i=0; while [ $i -lt 3000 ]; do echo line $i; i=$((i+1)); done; echo last")
		out := &talk{delay: 5 * time.Millisecond}
		spec.Tty, spec.Stdout = true, out
		if code := start(t, e, spec)(); code != 0 {
			t.Errorf("exit code %d", code)
		}
		if n := strings.Count(out.String(), "\r\n"); n != 3001 || !strings.HasSuffix(out.String(), "last\r\n") {
			t.Errorf("%d lines of 3001", n)
		}
		nothingLeft(t, e)
	})
}

// TestTerminalClosed: a command whose output nobody takes any more ends nevertheless.
func TestTerminalClosed(t *testing.T) {
	eachRuntime(t, func(t *testing.T, e *Executor, root string) {
		spec, _ := sh(root, "i=0; while [ $i -lt 3000 ]; do echo line $i; i=$((i+1)); done; exit 2")
		r, w := io.Pipe()
		r.Close()
		spec.Tty, spec.Stdout = true, w
		if code := start(t, e, spec)(); code != 2 {
			t.Errorf("exit code %d", code)
		}
		nothingLeft(t, e)
	})
}

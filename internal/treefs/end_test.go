package treefs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"larder/internal/fault"
	"larder/internal/key"
	"larder/internal/layer"
	"larder/internal/tree"
)

// sourceFunc is a Source of one function.
type sourceFunc func(ctx context.Context, d key.Digest, size int64) (io.ReadCloser, error)

func (f sourceFunc) Open(ctx context.Context, d key.Digest, size int64) (io.ReadCloser, error) {
	return f(ctx, d, size)
}

// TestUnavailable: what the machine lacks is said, with what would give it, and nothing stays mounted.
func TestUnavailable(t *testing.T) {
	dir := t.TempDir()
	for _, c := range []struct{ name, device, way string }{
		{"no device", filepath.Join(t.TempDir(), "fuse"), "--device /dev/fuse"},
		{"another device", "/dev/null", ""},
		{"a device of nothing", mknod(t, unix.Mkdev(250, 250)), "modprobe fuse"},
	} {
		fs, err := Mount(t.Context(), dir, []Part{draw(t).part()}, Options{device: c.device})
		if fs != nil || !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), c.way) || fault.Of(err) != fault.Machine {
			t.Errorf("%s: got %v, %v", c.name, fs, err)
		}
		if isMounted(t, dir) {
			t.Errorf("%s: mounted", c.name)
		}
	}
	if err := unavailable("/dev/fuse", unix.EPERM); !strings.Contains(err.Error(), "sudo") {
		t.Errorf("no privilege: %v", err)
	}
}

// TestFailedMount: nothing of one is left with the step's context.
func TestFailedMount(t *testing.T) {
	ctx := &parent{Context: t.Context(), done: make(chan struct{})}
	damaged := draw(t).file("d/f", "f").dir("")
	var b bytes.Buffer
	must(t, tree.Encode(&b, damaged))
	for i := range b.Len() { // some byte of what is fetched late
		blob := slices.Clone(b.Bytes())
		blob[i] ^= 1
		if n, err := tree.Decode(bytes.NewReader(blob), int64(len(blob))); err == nil {
			damaged = n
			break
		}
	}
	for name, c := range map[string]struct {
		root   *tree.Node
		device string
	}{
		"a damaged tree":      {damaged, ""},
		"no device":           {tree.Empty(), filepath.Join(t.TempDir(), "fuse")},
		"what is not mounted": {tree.Empty(), "/dev/null"},
	} {
		if fs, err := Mount(ctx, t.TempDir(), []Part{{Root: c.root}}, Options{device: c.device}); err == nil {
			t.Errorf("%s: mounted", name)
			must(t, fs.Close())
		}
		if n := ctx.children.Load(); n != 0 {
			t.Errorf("%s: the context has %d below it", name, n)
		}
	}
}

// parent is a context that counts those that end with it.
type parent struct {
	context.Context
	done     chan struct{}
	children atomic.Int32
}

func (p *parent) Done() <-chan struct{} { return p.done }
func (p *parent) Value(any) any         { return nil }

// AfterFunc is what package context asks for to be told of the end.
func (p *parent) AfterFunc(func()) func() bool {
	p.children.Add(1)
	return func() bool { p.children.Add(-1); return true }
}

func mknod(t *testing.T, rdev uint64) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "device")
	must(t, unix.Mknod(path, unix.S_IFCHR|0o600, int(rdev)))
	return path
}

// TestFailures: whatever keeps contents from being given fails the read, is in Err, and is tried again by the next read.
func TestFailures(t *testing.T) {
	gone := &layer.GoneError{Identity: key.Bytes([]byte("layer")), Err: errors.New("deleted")}
	for _, c := range []struct {
		name string
		text string
		src  sourceFunc
		want string
	}{
		{"gone", "text", func(context.Context, key.Digest, int64) (io.ReadCloser, error) { return nil, gone }, gone.Error()},
		{"other bytes", "text", func(context.Context, key.Digest, int64) (io.ReadCloser, error) {
			return io.NopCloser(strings.NewReader("tent")), nil
		}, "changed while"},
		{"too few", "text", func(context.Context, key.Digest, int64) (io.ReadCloser, error) {
			return io.NopCloser(strings.NewReader("tex")), nil
		}, "changed while"},
		{"fails on the way", large, func(context.Context, key.Digest, int64) (io.ReadCloser, error) {
			return io.NopCloser(io.MultiReader(strings.NewReader(large[:100_000]), failing{})), nil
		}, "broken"},
		{"large with other bytes", large, func(context.Context, key.Digest, int64) (io.ReadCloser, error) {
			return io.NopCloser(strings.NewReader(large[:len(large)-1] + "X")), nil
		}, "changed while"},
		{"breaks down", "text", func(context.Context, key.Digest, int64) (io.ReadCloser, error) { panic("oh") }, "larder has a bug"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var well atomic.Bool
			p := draw(t).file("f", c.text).part()
			good := p.Contents
			p.Contents = sourceFunc(func(ctx context.Context, d key.Digest, size int64) (io.ReadCloser, error) {
				if well.Load() {
					return good.Open(ctx, d, size)
				}
				return c.src(ctx, d, size)
			})
			fs := show(t, Options{}, p)
			root := over(t, fs.Dir(0))
			if _, err := os.ReadFile(root + "/f"); !errors.Is(err, unix.EIO) {
				t.Errorf("got %v", err)
			}
			if err := fs.Err(); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("Err is %v", err)
			}
			well.Store(true)
			if got := read(t, root+"/f"); got != c.text {
				t.Errorf("got %d bytes", len(got))
			}
		})
	}
}

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, errors.New("broken") }

// TestPanic: a handler that breaks down fails the request and is told of, and nothing stays mounted or locked.
func TestPanic(t *testing.T) {
	fs := show(t, Options{}, draw(t).file("f", "text").part())
	d := fs.parts[0].root.dir
	d.mu.Lock()
	d.loaded, d.entries = true, []tree.Entry{{Name: "f"}} // an entry that is nothing
	d.mu.Unlock()
	for range 2 {
		if _, err := os.ReadFile(fs.Dir(0) + "/f"); !errors.Is(err, unix.EIO) {
			t.Errorf("got %v", err)
		}
	}
	if err := fs.Err(); err == nil || !strings.Contains(err.Error(), "larder has a bug") {
		t.Errorf("Err is %v", err)
	}
}

// TestParallelOpens: many that open a file for the first time wait for one that fetches it.
func TestParallelOpens(t *testing.T) {
	for _, text := range []string{small, large} {
		for _, opt := range []Options{{Copy: true}, {Passthrough: inMemory + 1}} {
			var fetched atomic.Int32
			p := draw(t).file("f", text).part()
			good := p.Contents
			p.Contents = sourceFunc(func(ctx context.Context, d key.Digest, size int64) (io.ReadCloser, error) {
				fetched.Add(1)
				time.Sleep(50 * time.Millisecond)
				return good.Open(ctx, d, size)
			})
			fs := show(t, opt, p)
			var wg sync.WaitGroup
			for range 20 {
				wg.Go(func() {
					if b, err := os.ReadFile(fs.Dir(0) + "/f"); err != nil || string(b) != text {
						t.Errorf("got %d bytes, %v", len(b), err)
					}
				})
			}
			wg.Wait()
			if n := fetched.Load(); n != 1 {
				t.Errorf("fetched %d times", n)
			}
		}
	}
}

// hanging is a part whose contents do not come until the test ends, whatever becomes of the context.
func hanging(t *testing.T) (p Part, asked chan struct{}) {
	p = draw(t).file("f", "text").file("g", large).part()
	asked = make(chan struct{}, 10)
	end := make(chan struct{})
	t.Cleanup(func() { close(end) })
	p.Contents = sourceFunc(func(context.Context, key.Digest, int64) (io.ReadCloser, error) {
		asked <- struct{}{}
		<-end
		return nil, errors.New("the test ended")
	})
	return p, asked
}

// TestKilled: a process that waits for contents can be killed, and a signal that it handles does not fail its read.
func TestKilled(t *testing.T) {
	for _, opt := range []Options{{Copy: true}, {Passthrough: inMemory + 1}} {
		p, asked := hanging(t)
		fs := show(t, opt, p)
		for _, file := range []string{"f", "g"} {
			cmd := exec.Command("sh", "-c", `trap : USR1; cat "$0"; exit 7`, fs.Dir(0)+"/"+file)
			cmd.SysProcAttr = &unix.SysProcAttr{Setpgid: true}
			must(t, cmd.Start())
			<-asked
			must(t, unix.Kill(-cmd.Process.Pid, unix.SIGURG)) // which is ignored
			time.Sleep(50 * time.Millisecond)
			must(t, unix.Kill(-cmd.Process.Pid, unix.SIGKILL))
			ended := make(chan error, 1)
			go func() { ended <- cmd.Wait() }()
			select {
			case err := <-ended:
				if err == nil || err.Error() != "signal: killed" {
					t.Errorf("got %v", err)
				}
			case <-time.After(5 * time.Second):
				t.Fatalf("copy %t: a process that reads %s cannot be killed", opt.Copy, file)
			}
		}
		if err := fs.Err(); err != nil {
			t.Errorf("nothing failed but %v", err)
		}
	}
}

// TestSignalWhileReading: a program that gets a signal while it opens a file waits on.
func TestSignalWhileReading(t *testing.T) {
	p := draw(t).file("f", small).part()
	good := p.Contents
	asked := make(chan struct{}, 10)
	p.Contents = sourceFunc(func(ctx context.Context, d key.Digest, size int64) (io.ReadCloser, error) {
		asked <- struct{}{}
		time.Sleep(200 * time.Millisecond)
		return good.Open(ctx, d, size)
	})
	fs := show(t, Options{}, p)
	cmd := exec.Command("perl", "-e", `$SIG{USR1} = sub {}; open(F, "<", $ARGV[0]) or die "open: $!"; local $/; $_ = <F>; print length, " $!"`, fs.Dir(0)+"/f")
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	must(t, cmd.Start())
	<-asked
	must(t, cmd.Process.Signal(unix.SIGUSR1))
	if err := cmd.Wait(); err != nil || !strings.HasPrefix(out.String(), fmt.Sprint(len(small))) {
		t.Errorf("%v: %s", err, &out)
	}
}

// TestSignalWithAnotherProc: where /proc has the processes of another PID namespace, a signal is not taken for the end of who gets it.
func TestSignalWithAnotherProc(t *testing.T) {
	const inside = "TREEFS_ANOTHER_PROC"
	own := os.Getenv(inside) == ""
	if ownProc() != own {
		t.Errorf("/proc is said to be our own: %t", !own)
	}
	if !own {
		return
	}
	cmd := exec.Command("/proc/self/exe", "-test.run=^TestSignal", "-test.v")
	cmd.Env = append(os.Environ(), inside+"=1")
	cmd.SysProcAttr = &unix.SysProcAttr{Cloneflags: unix.CLONE_NEWPID}
	out, err := cmd.CombinedOutput()
	if err != nil || bytes.Count(out, []byte("--- PASS: TestSignal")) != 2 {
		t.Errorf("%v: %s", err, out)
	}
}

// TestContextEnds: a read that waits fails when the step's context ends, for its reason.
func TestContextEnds(t *testing.T) {
	p, asked := hanging(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	fs := showFor(t, ctx, Options{}, p)
	why := errors.New("the build was interrupted")
	done := make(chan error)
	go func() {
		_, err := os.ReadFile(fs.Dir(0) + "/f")
		done <- err
	}()
	<-asked
	cancel(why)
	if err := <-done; !errors.Is(err, unix.EIO) {
		t.Errorf("got %v", err)
	}
	if err := fs.Err(); !errors.Is(err, why) {
		t.Errorf("Err is %v", err)
	}
}

// TestCloseWhileBusy: Close does not wait for those that read, nor for contents that never come, nor for an overlay on top.
func TestCloseWhileBusy(t *testing.T) {
	p, asked := hanging(t)
	fs := show(t, Options{}, p)
	root := over(t, fs.Dir(0))
	done := make(chan error)
	go func() {
		_, err := os.ReadFile(root + "/f")
		done <- err
	}()
	<-asked
	start := time.Now()
	for range 2 {
		must(t, fs.Close())
	}
	if took := time.Since(start); took > closeWait/2 {
		t.Errorf("took %v", took)
	}
	if err := <-done; err == nil {
		t.Error("read")
	}
	if isMounted(t, fs.dir) {
		t.Error("still mounted")
	}
	if _, err := os.ReadFile(root + "/g"); err == nil {
		t.Error("read after Close")
	}
	if got := looked(fs, 0); !strings.Contains(got, "f=EC") {
		t.Errorf("what was looked at is lost: %s", got)
	}
}

// TestAborted: the kernel gives up the connection, as when somebody aborts it; readers fail, and Close works.
func TestAborted(t *testing.T) {
	fs := show(t, Options{}, draw(t).file("f", "text").part())
	read(t, fs.Dir(0)+"/f")
	control := fmt.Sprintf("/sys/fs/fuse/connections/%d/abort", fs.device)
	if _, err := os.Stat("/sys/fs/fuse/connections"); err == nil {
		unix.Mount("fusectl", "/sys/fs/fuse/connections", "fusectl", 0, "") // it may be mounted
	}
	if err := os.WriteFile(control, []byte("1"), 0); err != nil {
		must(t, unix.Unmount(fs.dir, unix.MNT_FORCE|unix.MNT_DETACH))
	}
	<-fs.served
	if _, err := os.Stat(fs.Dir(0) + "/g"); err == nil {
		t.Error("looked up after the end")
	}
	must(t, fs.Close())
}

// TestUnmountedByAnother: somebody took the mount away; what still uses it does not keep Close.
func TestUnmountedByAnother(t *testing.T) {
	fs := show(t, Options{}, draw(t).file("f", "text").part())
	must(t, unix.Unmount(fs.dir, unix.MNT_DETACH))
	must(t, fs.Close())
}

package runstep

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/moby/buildkit/solver/pb"

	"larder/internal/fault"
	"larder/internal/layer"
	"larder/internal/runtime"
)

// commandOp makes a command of a shell script on input 0, without an output.
func commandOp(script string, mounts ...*pb.Mount) *pb.ExecOp {
	o := op(script, mounts...)
	o.Mounts[0].Output = int64(pb.SkipOutput)
	return o
}

// open opens a command whose output is in p.out.
func (p *place) open(cmd Command, inputs ...*layer.State) *Container {
	p.t.Helper()
	p.out.Reset()
	cmd.Inputs, cmd.Stdout, cmd.Stderr, cmd.Secrets = inputs, &p.out, &p.out, secrets
	c, err := p.runner.Open(p.t.Context(), cmd)
	if err != nil {
		p.t.Fatal(err)
	}
	return c
}

// command opens, runs and closes one.
func (p *place) command(cmd Command, inputs ...*layer.State) error {
	p.t.Helper()
	c := p.open(cmd, inputs...)
	err := c.Run(p.t.Context())
	if cerr := c.Close(err == nil); cerr != nil {
		p.t.Error(cerr)
	}
	return err
}

func sharedCache(id, dest string) *pb.Mount {
	return &pb.Mount{Dest: dest, Input: int64(pb.Empty), Output: int64(pb.SkipOutput), MountType: pb.MountType_CACHE, CacheOpt: &pb.CacheOpt{ID: id}}
}

// TestCommand: what it writes into the root is gone afterwards, what it writes into a cache mount or a bind is not; a RUN
// shares its cache mounts.
func TestCommand(t *testing.T) {
	p := newPlace(t, Options{})
	base := p.busybox()
	p.mustRun(op("echo built > /c/built", sharedCache("c", "/c")), base)
	work := t.TempDir()
	var exit *runtime.ExitError
	for n, want := range []string{"built\n", "built\nrun 0\n"} {
		script := fmt.Sprintf("test ! -e /new; echo x > /new; cat /c/*; echo run %d > /c/run; echo %d > /work/%d; exit 3", n, n, n)
		err := p.command(Command{Step: Step{Op: commandOp(script, sharedCache("c", "/c"))}, Binds: []Bind{{Source: work, Dest: "/work"}}}, base)
		if !errors.As(err, &exit) || exit.Code != 3 {
			t.Errorf("got %v", err)
		}
		if p.out.String() != want {
			t.Errorf("round %d: it said %q, want %q", n, &p.out, want)
		}
	}
	if list, _ := filepath.Glob(work + "/*"); len(list) != 2 {
		t.Errorf("in the bind: %s", list)
	}
	p.mustRun(op("cat /c/run", sharedCache("c", "/c")), base)
	if p.out.String() != "run 1\n" {
		t.Errorf("a step sees %q", &p.out)
	}
	if list, _ := filepath.Glob(p.root + "/layers/*/fs"); len(list) != 2 { // the base, and the steps' common one
		t.Errorf("layers: %s", list)
	}
}

func TestCommandSees(t *testing.T) {
	p := newPlace(t, Options{})
	base := p.busybox()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "f"), []byte("mine\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	secret := &pb.Mount{Dest: "/run/secrets/token", Input: int64(pb.Empty), Output: int64(pb.SkipOutput), MountType: pb.MountType_SECRET, SecretOpt: &pb.SecretOpt{ID: "token", Mode: 0o400}}
	tmpfs := &pb.Mount{Dest: "/t", Input: int64(pb.Empty), Output: int64(pb.SkipOutput), MountType: pb.MountType_TMPFS}
	for _, c := range []struct {
		name string
		cmd  Command
		edit func(*pb.Meta)
		want string
	}{
		{"read-only bind", Command{Step: Step{Op: commandOp("cat /b/f; touch /b/g 2>/dev/null || echo no")}, Binds: []Bind{{Source: dir, Dest: "/b", ReadOnly: true}}}, nil, "mine\nno\n"},
		{"file", Command{Step: Step{Op: commandOp("cat /x/y")}, Binds: []Bind{{Source: filepath.Join(dir, "f"), Dest: "/x/y"}}}, nil, "mine\n"},
		{"below another", Command{Step: Step{Op: commandOp("cat /b/b/f; ls /b")}, Binds: []Bind{{Source: dir, Dest: "/b/b"}, {Source: t.TempDir(), Dest: "/b"}}}, nil, "mine\nb\n"},
		{"secret", Command{Step: Step{Op: commandOp("cat /run/secrets/token; stat -c ' %a' /run/secrets/token", secret)}}, nil, "s3cret 400\n"},
		{"memory", Command{Step: Step{Op: commandOp("mount | grep -c ' on /t '", tmpfs)}}, nil, "1\n"},
		{"user and directory", Command{Step: Step{Op: commandOp("id -u; pwd; echo $A")}}, func(m *pb.Meta) { m.User, m.Cwd, m.Env = "me", "/w", append(m.Env, "A=b c") }, "7\n/w\nb c\n"},
		{"standard input", Command{Step: Step{Op: commandOp("cat")}, Stdin: io.NopCloser(strings.NewReader("typed\n"))}, nil, "typed\n"},
		{"terminal", Command{Step: Step{Op: commandOp("test -t 0 && test -t 1 && echo yes")}, Tty: true}, nil, "yes\r\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.edit != nil {
				c.edit(c.cmd.Op.Meta)
			}
			if err := p.command(c.cmd, base); err != nil || p.out.String() != c.want {
				t.Errorf("got %q and %v, want %q", &p.out, err, c.want)
			}
		})
	}
}

func TestCommandRefused(t *testing.T) {
	p := newPlace(t, Options{})
	if _, err := p.runner.Open(t.Context(), Command{Step: Step{Op: &pb.ExecOp{Meta: &pb.Meta{}}}}); fault.Of(err) != fault.Usage {
		t.Errorf("without a command: %v", err)
	}
	// What fails on the way leaves nothing: newPlace looks.
	missing := &pb.Mount{Dest: "/s", Input: int64(pb.Empty), Output: int64(pb.SkipOutput), MountType: pb.MountType_SECRET, SecretOpt: &pb.SecretOpt{ID: "other"}}
	cmd := Command{Step: Step{Op: commandOp("true", sharedCache("c", "/c"), missing), Inputs: inputs(p.busybox()), Secrets: secrets}}
	if _, err := p.runner.Open(t.Context(), cmd); !errors.Is(err, ErrNoSecret) {
		t.Errorf("without the secret: %v", err)
	}
	o := commandOp("")
	o.Meta.Args = []string{"/no/such"}
	var start *runtime.StartError
	if err := p.command(Command{Step: Step{Op: o}}, p.busybox()); !errors.As(err, &start) {
		t.Errorf("got %v", err)
	}
}

func TestCommandCancelled(t *testing.T) {
	p := newPlace(t, Options{})
	word := fmt.Sprintf("1000.%d", time.Now().UnixNano())
	out, in := io.Pipe()
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		io.ReadFull(out, make([]byte, 1))
		cancel()
	}()
	cmd := Command{Step: Step{Op: commandOp("sleep "+word+" & echo; sleep "+word, sharedCache("c", "/c")), Inputs: inputs(p.busybox()), Stdout: in, Stderr: in}}
	c, err := p.runner.Open(ctx, cmd)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Run(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if err := errors.Join(c.Close(false), c.Close(false)); err != nil {
		t.Error(err)
	}
	if left := running(t, word); len(left) > 0 {
		t.Errorf("left running: %s", left)
	}
}

func TestResults(t *testing.T) {
	p := newPlace(t, Options{})
	bound := t.TempDir()
	secret := &pb.Mount{Dest: "/r/token", Input: int64(pb.Empty), Output: int64(pb.SkipOutput), MountType: pb.MountType_SECRET, SecretOpt: &pb.SecretOpt{ID: "token", Mode: 0o444}}
	tmpfs := &pb.Mount{Dest: "/t", Input: int64(pb.Empty), Output: int64(pb.SkipOutput), MountType: pb.MountType_TMPFS}
	o := commandOp(`mkdir -p /r/sub/deep; echo one > /r/one; echo two > /r/sub/deep/two; chmod 4750 /r/one; ln -s sub/deep/two /r/link
mkdir /r/empty; chmod 711 /r/empty; mkfifo /r/pipe
ln -s /r /to-r; ln -s /b /r/to-b; ln -s / /r/up; ln -s self /self; ln -s /etc/shadow /r/out
echo cached > /c/x; echo below > /r/c/y; echo bound > /b/z; echo memory > /t/m; exit 3`, sharedCache("c", "/c"), sharedCache("d", "/r/c"), secret, tmpfs)
	c := p.open(Command{Step: Step{Op: o}, Binds: []Bind{{Source: bound, Dest: "/b"}}}, p.busybox())
	defer c.Close(true)
	var exit *runtime.ExitError
	if err := c.Run(t.Context()); !errors.As(err, &exit) || exit.Code != 3 {
		t.Fatalf("%v: %s", err, &p.out)
	}
	const all = "empty link one out sub sub/deep sub/deep/two to-b up"
	for _, w := range []struct{ path, want string }{
		{"/r", all}, {"/to-r", all}, {"/r/", all}, {"/../r", all}, {"/r/up/to-r", all},
		{"/r/one", "one"}, {"/r/link", "link"}, {"/r/sub/deep", "two"}, {"/r/to-b", "z"}, {"/c/x", "x"}, {"/r/c", "y"}, {"/b/z", "z"},
	} {
		dir := filepath.Join(t.TempDir(), "made", "here")
		if err := c.Copy(t.Context(), w.path, dir); err != nil {
			t.Errorf("%s: %v", w.path, err)
			continue
		}
		if got := names(t, dir); got != w.want {
			t.Errorf("%s: copied %q, want %q", w.path, got, w.want)
		}
	}
	for _, path := range []string{"/nowhere", "/r/nowhere/x", "/r/token", "/t/m", "/r/one/x", "/self"} {
		dir := filepath.Join(t.TempDir(), "none")
		if err := c.Copy(t.Context(), path, dir); err == nil || strings.Contains(err.Error(), p.root) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v", path, err)
		} else if _, err := os.Stat(dir); err == nil {
			t.Errorf("%s: a directory was made for nothing", path)
		}
	}
	if err := c.Copy(t.Context(), "/nowhere", t.TempDir()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}

// TestResultsReplace copies over what is there, and does not follow a link that is in the way.
func TestResultsReplace(t *testing.T) {
	p := newPlace(t, Options{})
	c := p.open(Command{Step: Step{Op: commandOp("mkdir -p /r/d; echo new > /r/f; echo new > /r/d/g; echo new > /r/was-dir")}}, p.busybox())
	defer c.Close(true)
	if err := c.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	dir, other := t.TempDir(), t.TempDir()
	for _, err := range []error{
		os.WriteFile(filepath.Join(other, "f"), []byte("other"), 0o644),
		os.Symlink(filepath.Join(other, "f"), filepath.Join(dir, "f")),
		os.Symlink(other, filepath.Join(dir, "d")),
		os.MkdirAll(filepath.Join(dir, "was-dir", "x"), 0o755),
		os.WriteFile(filepath.Join(dir, "kept"), nil, 0o644),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := c.Copy(t.Context(), "/r", dir); err != nil {
		t.Fatal(err)
	}
	if got := names(t, dir); got != "d d/g f kept was-dir" {
		t.Errorf("copied %q", got)
	}
	if b, _ := os.ReadFile(filepath.Join(other, "f")); string(b) != "other" || names(t, other) != "f" {
		t.Errorf("a link was followed: %q, %q", b, names(t, other))
	}
}

// names lists what is in a directory, and checks the modes of a few.
func names(t *testing.T, dir string) string {
	t.Helper()
	var list []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		name, _ := filepath.Rel(dir, path)
		list = append(list, name)
		st, err := d.Info()
		if want, ok := map[string]fs.FileMode{"empty": fs.ModeDir | 0o711, "one": 0o750}[name]; ok && err == nil && st.Mode() != want {
			t.Errorf("%s has mode %s, want %s", name, st.Mode(), want)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(list, " ")
}

package build

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/moby/buildkit/solver/pb"

	"larder/internal/fault"
	"larder/internal/progress"
	"larder/internal/runstep"
	"larder/internal/runtime"
	"larder/internal/testregistry"
)

// fakeContainer stands for one that a command runs in.
type fakeContainer struct {
	cmd   runstep.Command
	err   error // of Run
	lacks bool  // there are no results
	// They are called meanwhile, where they are set.
	running, copying func()
	ran              int
	copied           []Copy
	closed           []bool
}

func (c *fakeContainer) Run(ctx context.Context) error {
	c.ran++
	if c.running != nil {
		c.running()
	}
	return c.err
}

func (c *fakeContainer) Copy(_ context.Context, path, dir string) error {
	if c.lacks {
		return &fs.PathError{Op: "open", Path: path, Err: fs.ErrNotExist}
	}
	c.copied = append(c.copied, Copy{path, dir})
	if c.copying != nil {
		c.copying()
	}
	return nil
}

func (c *fakeContainer) Close(keep bool) error {
	c.closed = append(c.closed, keep)
	return nil
}

// serve has a machine run commands in c, which needs the target's layers.
func (c *fakeContainer) serve(m *machine) {
	m.engine.open = func(ctx context.Context, cmd runstep.Command) (container, error) {
		for _, l := range cmd.Inputs[0].Layers() {
			if _, err := m.engine.layers.Dir(ctx, l); err != nil {
				return nil, err
			}
		}
		c.cmd = cmd
		return c, nil
	}
}

// displayed does something with a stream whose lines go where a machine's go.
func (m *machine) displayed(do func(*progress.Stream) error) error {
	stream := progress.NewStream()
	var wg sync.WaitGroup
	wg.Go(func() {
		for st := range stream.Events() {
			for _, v := range st.Vertexes {
				if v.Completed != nil {
					fmt.Fprintln(m, v.Name, v.Cached, v.Error)
				}
			}
		}
	})
	err := do(stream)
	stream.Close()
	wg.Wait()
	return err
}

// command runs a command in a target, from the build to the saving.
func (m *machine) command(req *Request, cmd *Command) (code int, err error) {
	m.t.Helper()
	var target *Target
	err = m.displayed(func(s *progress.Stream) (err error) {
		target, err = m.engine.Target(m.t.Context(), req, cmd, s)
		return err
	})
	if err != nil {
		return 0, err
	}
	if code, err = target.Run(m.t.Context()); err == nil {
		err = target.Results(m.t.Context())
	}
	serr := m.displayed(func(s *progress.Stream) error { return target.Save(m.t.Context(), s) })
	if serr := errors.Join(serr, target.Close()); serr != nil {
		m.t.Error(serr)
	}
	return code, err
}

func exitError(code int) error {
	return &runstep.ProcessError{Args: []string{"x"}, Err: &runtime.ExitError{Code: code}}
}

// TestTarget: the build's records are saved, the command's are not, and no image is made whatever the request says.
func TestTarget(t *testing.T) {
	reg := newRegistry(t, testregistry.Options{})
	dir := project(t, stages(reg.Ref("base")))
	req := request(dir, reg.Ref("app:main"))
	m := newMachine(t, reg.Addr)
	c := &fakeContainer{err: exitError(7)}
	c.serve(m)
	code, err := m.command(req, &Command{Args: []string{"test", "it"}, Results: []Copy{{Path: "/reports", Dir: "out"}}})
	if code != 7 || err != nil {
		t.Errorf("exit code %d, %v", code, err)
	}
	if c.ran != 1 || !slices.Equal(c.closed, []bool{true, true}) || !slices.Equal(c.copied, []Copy{{"/reports", "out"}}) {
		t.Errorf("ran %d times, closed with %v, copied %v", c.ran, c.closed, c.copied)
	}
	said := m.text()
	if !strings.Contains(said, "preparing to run test it") || !strings.Contains(said, "saving to the cache") || strings.Contains(said, "exporting") {
		t.Errorf("the display showed:\n%s", said)
	}
	for _, r := range reg.Requests() {
		if strings.HasSuffix(r.Path, "/app/manifests/main") && r.Method != http.MethodGet && r.Method != http.MethodHead {
			t.Errorf("an image was pushed: %s %s", r.Method, r.Path)
		}
	}
	other := newMachine(t, reg.Addr)
	if _, res := other.must(request(dir, reg.Ref("app:main"))); res.Ran != 0 || len(other.runner.commands()) != 0 {
		t.Errorf("a build after it ran %q", other.runner.commands())
	}
}

// TestTargetCommand: what of image and flags becomes of a command.
func TestTargetCommand(t *testing.T) {
	reg := newRegistry(t, testregistry.Options{})
	dir := project(t, map[string]string{"Dockerfile": "FROM " + reg.Ref("base") + `
ENV A=image B=image
WORKDIR /work
USER app
RUN --mount=type=cache,target=/old --mount=type=cache,target=/c,id=named,sharing=locked,uid=7 one a
RUN --mount=type=cache,target=rel --mount=type=cache,target=/old,id=new one b
`})
	m := newMachine(t, reg.Addr)
	c := new(fakeContainer)
	c.serve(m)
	req := &Request{Context: dir, Secrets: map[string]Secret{"s": {Env: "S"}, "dir/t": {Env: "T"}}, AddHosts: []string{"h=10.0.0.1"},
		Ulimits: []string{"nofile=1:2"}, ShmSize: 4096, Args: map[string]string{"BUILDKIT_CACHE_MOUNT_NS": "ns"}}
	uid := 7
	cmd := &Command{
		Args: []string{"x"}, Env: []string{"B=flag", "C=flag"}, Dir: "sub", NoNetwork: true,
		Mounts: []Mount{
			{Type: "bind", Source: "/host", Target: "/d", ReadOnly: true}, {Type: "bind", Source: "/host", Target: "rel"},
			{Type: "cache", Target: "/c2", ID: "named", Sharing: "locked", UID: &uid}, {Type: "tmpfs", Target: "/d", Size: 5},
			{Type: "secret", ID: "s", Target: "/s"}, {Type: "secret", ID: "s", Env: "S"},
		},
	}
	if code, err := m.command(req, cmd); code != 0 || err != nil {
		t.Fatalf("exit code %d, %v\n%s", code, err, m.text())
	}
	op := c.cmd.Op
	meta := op.Meta
	got := fmt.Sprintln(meta.Args, meta.Env[len(meta.Env)-3:], meta.Cwd, meta.User, op.Network, meta.ExtraHosts[0].IP, meta.Ulimit[0].Hard, op.Secretenv[0].Name)
	if want := "[x] [A=image B=flag C=flag] /work/sub app NONE 10.0.0.1 2 S\n"; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	var mounts []string
	states := map[string]string{}
	for _, mt := range op.Mounts {
		text := fmt.Sprint(mt.Dest, " ", mt.MountType, " ", mt.GetCacheOpt().GetID(), mt.GetSecretOpt().GetID(), " ", mt.GetTmpfsOpt().GetSize())
		mounts = append(mounts, strings.ToLower(text))
		if mt.Output != int64(pb.SkipOutput) {
			t.Errorf("%s is kept", text)
		}
		if mt.Input > 0 {
			states[mt.Dest] = fmt.Sprint(c.cmd.Inputs[mt.Input].Identities(), mt.Selector, mt.CacheOpt.Sharing)
		}
	}
	slices.Sort(mounts)
	want := []string{
		"/ bind  0", "/c cache ns/named 0", "/c2 cache ns/named 0", "/d tmpfs  5", "/dev/shm tmpfs  4096", "/old cache ns/new 0",
		"/run/secrets/t secret dir/t 0", "/s secret s 0", "/work/rel cache ns/rel 0",
	}
	if !slices.Equal(mounts, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(mounts, "\n"), strings.Join(want, "\n"))
	}
	if states["/c"] == "" || states["/c"] != states["/c2"] {
		t.Errorf("a mount like that of a RUN is another one: %q", states)
	}
	if b := c.cmd.Binds; len(b) != 1 || b[0].Dest != "/work/sub/rel" || b[0].Source != "/host" || b[0].ReadOnly {
		t.Errorf("binds %+v", b)
	}
}

// TestTargetGoesBack: a layer that the cache promised and does not have is made again before the command runs.
func TestTargetGoesBack(t *testing.T) {
	reg := newRegistry(t, testregistry.Options{})
	dir := project(t, twoRuns(reg.Ref("base")))
	where := t.TempDir()
	req := request(dir, reg.Ref("app:main"))
	req.Cache = Cache{}
	req.cached(where)
	newMachine(t, reg.Addr).must(req)
	if n := bigBlobs(t, where, os.Remove); n != 2 {
		t.Fatalf("%d layers removed, want 2", n)
	}
	m := newMachine(t, reg.Addr)
	c := new(fakeContainer)
	c.serve(m)
	if code, err := m.command(req, &Command{Args: []string{"x"}}); code != 0 || err != nil || c.ran != 1 {
		t.Errorf("exit code %d, %v, ran %d times\n%s", code, err, c.ran, m.text())
	}
	if ran := m.names(); !slices.Equal(ran, []string{"one a", "two b"}) {
		t.Errorf("ran %q", ran)
	}
}

func TestTargetFails(t *testing.T) {
	reg := newRegistry(t, testregistry.Options{})
	dir := project(t, map[string]string{"Dockerfile": "FROM " + reg.Ref("base") + "\nRUN one a\nRUN fail b\n"})
	m := newMachine(t, reg.Addr)
	c := new(fakeContainer)
	c.serve(m)
	if _, err := m.command(request(dir, reg.Ref("app:main")), &Command{Args: []string{"x"}}); err == nil || c.ran != 0 {
		t.Errorf("got %v, the command ran %d times", err, c.ran)
	}
	other := newMachine(t, reg.Addr)
	other.build(request(dir, reg.Ref("app:main")))
	if ran := other.names(); !slices.Equal(ran, []string{"fail b"}) {
		t.Errorf("after it ran %q: what was made before the failure is lost", ran)
	}
	if _, err := m.command(&Request{Context: dir, Target: "nowhere"}, &Command{Args: []string{"x"}}); err == nil {
		t.Error("a target that is not there was built")
	}
}

// TestCommandEnds: exit codes, and results that are missing.
func TestCommandEnds(t *testing.T) {
	reg := newRegistry(t, testregistry.Options{})
	dir := project(t, map[string]string{"Dockerfile": "FROM " + reg.Ref("base") + "\n"})
	m := newMachine(t, reg.Addr)
	start := func(reason string) error {
		return &runstep.ProcessError{Args: []string{"x"}, Err: &runtime.StartError{Runtime: "runc", Reason: reason}}
	}
	for _, w := range []struct {
		err   error
		lacks bool
		code  int
		keep  bool
		fails string
		warns string
	}{
		{nil, false, 0, true, "", ""},
		{nil, true, 0, true, "the command left no /r", ""},
		{exitError(1), true, 1, true, "", "out:/r: the command left no /r"},
		{exitError(143), true, 143, false, "", "out:/r: the command left no /r"},
		{exitError(255), false, 255, true, "", ""},
		{start(`exec: "x": executable file not found in $PATH`), true, 127, false, "not found", ""},
		{start("permission denied"), true, 126, false, "permission denied", ""},
		{errors.New("no space"), true, 0, false, "no space", ""},
	} {
		c := &fakeContainer{err: w.err, lacks: w.lacks}
		c.serve(m)
		m.said.Reset()
		code, err := m.command(&Request{Context: dir}, &Command{Args: []string{"x"}, Results: []Copy{{"/r", "out"}}})
		if code != w.code || (err == nil) != (w.fails == "") || err != nil && !strings.Contains(err.Error(), w.fails) {
			t.Errorf("%v: exit code %d, %v", w.err, code, err)
		}
		if !strings.Contains(m.text(), w.warns) || c.closed[0] != w.keep {
			t.Errorf("%v: closed with %v, said\n%s", w.err, c.closed, m.text())
		}
	}
	if _, err := m.command(&Request{Context: dir}, &Command{Args: []string{"x"}, Mounts: []Mount{{Type: "tmpfs", Target: "/x/.."}}}); fault.Of(err) != fault.Usage {
		t.Errorf("a mount over everything: %v", err)
	}
}

// TestTargetInterrupted: what ends the context is what is said, whatever the command's exit code was; mounts are kept of a command that
// came to its end.
func TestTargetInterrupted(t *testing.T) {
	reg := newRegistry(t, testregistry.Options{})
	dir := project(t, map[string]string{"Dockerfile": "FROM " + reg.Ref("base") + "\n"})
	m := newMachine(t, reg.Addr)
	stopped := errors.New("stopped")
	for _, code := range []int{0, 5} {
		for _, copying := range []bool{false, true} {
			c := new(fakeContainer)
			if code != 0 {
				c.err = exitError(code)
			}
			c.serve(m)
			cmd := &Command{Args: []string{"x"}, Results: []Copy{{"/r", "out"}, {"/s", "out"}}}
			var target *Target
			err := m.displayed(func(s *progress.Stream) (err error) {
				target, err = m.engine.Target(t.Context(), &Request{Context: dir}, cmd, s)
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
			ctx, stop := context.WithCancelCause(t.Context())
			if copying {
				c.copying = func() { stop(stopped) }
			} else {
				c.running = func() { stop(stopped) }
			}
			got, err := target.Run(ctx)
			if copying && (got != code || err != nil) || !copying && err != stopped {
				t.Errorf("exit code %d, copying %t: Run gave %d, %v", code, copying, got, err)
			}
			if err := target.Results(ctx); err != stopped {
				t.Errorf("exit code %d: Results gave %v", code, err)
			}
			if err := target.Close(); err != nil || len(c.copied) != 1 || !slices.Equal(c.closed, []bool{copying}) {
				t.Errorf("exit code %d, copying %t: copied %v, closed with %v, %v", code, copying, c.copied, c.closed, err)
			}
		}
	}
}

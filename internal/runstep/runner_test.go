package runstep

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/moby/buildkit/solver/pb"
	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"larder/internal/cachemount"
	"larder/internal/fault"
	"larder/internal/key"
	"larder/internal/layer"
	"larder/internal/runtime"
	"larder/internal/snapshot"
	"larder/internal/tree"
)

// bench is a place to run steps in.
type place struct {
	t      testing.TB
	root   string
	store  *snapshot.Store
	runner *Runner
	out    bytes.Buffer
}

func newPlace(t testing.TB, opts Options) *place {
	t.Helper()
	return openPlace(t, t.TempDir(), opts)
}

func openPlace(t testing.TB, root string, opts Options) *place {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	if _, err := runtime.Find(t.Context(), opts.Runtime); err != nil {
		t.Skipf("needs a container runtime: %v", err)
	}
	p := openPlaceOnly(t, root, opts)
	store := p.store
	t.Cleanup(func() {
		if err := p.runner.Close(); err != nil {
			t.Error(err)
		}
		if err := store.Close(); err != nil {
			t.Error(err)
		}
		nothingLeft(t, store.Base(), store.RuntimeDir())
	})
	return p
}

func openPlaceOnly(t testing.TB, root string, opts Options) *place {
	t.Helper()
	store, err := snapshot.Open(root, snapshot.Options{Reap: runtime.Reap, Warn: func(msg string) { t.Log(msg) }})
	if err != nil {
		t.Fatal(err)
	}
	p := &place{t: t, root: root, store: store}
	p.runner = New(store, cachemount.Open(filepath.Join(root, "cachemounts")), opts)
	return p
}

func inputs(states ...*layer.State) []*layer.State { return states }

// nothingLeft checks that no mount or process directory of a root is there, nor a cgroup of executors with the given
// directories.
func nothingLeft(t testing.TB, base string, executors ...string) {
	t.Helper()
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(mounts), base) {
		t.Errorf("mounts are left in %s", base)
	}
	list, err := os.ReadDir(filepath.Join(base, "mounts"))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range list {
		t.Errorf("%s is left", e.Name())
	}
	for _, dir := range executors {
		groups, err := filepath.Glob("/sys/fs/cgroup/*/larder" + key.Bytes([]byte(dir)).Hex()[:10])
		if err != nil || len(groups) > 0 {
			t.Errorf("cgroups are left: %s %v", groups, err)
		}
	}
}

type file struct {
	name, body, link string
	mode             int64
	dir              bool
}

// imageLayer makes a layer as an image brings it.
func (p *place) imageLayer(files ...file) *layer.Layer {
	p.t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, f := range files {
		h := &tar.Header{Name: f.name, Mode: f.mode, Size: int64(len(f.body)), Typeflag: tar.TypeReg, ModTime: time.Unix(1e9, 0)}
		switch {
		case f.dir:
			h.Typeflag = tar.TypeDir
		case f.link != "":
			h.Typeflag, h.Linkname = tar.TypeSymlink, f.link
		}
		if err := w.WriteHeader(h); err != nil {
			p.t.Fatal(err)
		}
		io.WriteString(w, f.body)
	}
	if err := w.Close(); err != nil {
		p.t.Fatal(err)
	}
	data := buf.Bytes()
	d := digest.FromBytes(data)
	l, err := p.store.FromBlob(&layer.Blob{
		Desc:   ocispecs.Descriptor{MediaType: ocispecs.MediaTypeImageLayer, Digest: d, Size: int64(len(data))},
		DiffID: d,
		Fetch: func(context.Context) (io.ReadCloser, error) {
			return io.NopCloser(bytes.NewReader(data)), nil
		},
	}, nil)
	if err != nil {
		p.t.Fatal(err)
	}
	return l
}

// busybox is a base image of a static busybox.
func (p *place) busybox() *layer.State {
	p.t.Helper()
	path, err := exec.LookPath("busybox")
	if err != nil {
		p.t.Skip("needs busybox-static")
	}
	data, err := os.ReadFile(path)
	if err != nil {
		p.t.Fatal(err)
	}
	files := []file{
		{name: "bin/", mode: 0o755, dir: true}, {name: "bin/busybox", body: string(data), mode: 0o755},
		{name: "etc/", mode: 0o755, dir: true}, {name: "etc/passwd", body: "root:x:0:0::/root:/bin/sh\nme:x:7:8::/:/bin/sh\n", mode: 0o644},
		{name: "etc/group", body: "root:x:0:\nours:x:8:\n", mode: 0o644},
		{name: "tmp/", mode: 0o1777, dir: true}, {name: "usr/old/file", body: "old", mode: 0o644},
	}
	for _, a := range strings.Fields("sh true false sleep cat id env ls mkdir touch mount grep rm echo mv ln chmod stat find dd test sha256sum cp sync seq wc") {
		files = append(files, file{name: "bin/" + a, link: "busybox", mode: 0o777})
	}
	return layer.Stack(p.imageLayer(files...))
}

// op makes a RUN of a shell script on input 0.
func op(script string, mounts ...*pb.Mount) *pb.ExecOp {
	return &pb.ExecOp{
		Meta:   &pb.Meta{Args: []string{"/bin/sh", "-c", script}, Cwd: "/", Env: []string{"PATH=/bin"}},
		Mounts: append([]*pb.Mount{{Dest: "/", Input: 0, Output: 0}}, mounts...),
	}
}

// run runs a step and gives its error; its output is in p.out.
func (p *place) run(op *pb.ExecOp, inputs ...*layer.State) (*Result, error) {
	p.out.Reset()
	return p.runner.Run(p.t.Context(), Step{Op: op, Inputs: inputs, Stdout: &p.out, Stderr: &p.out, Secrets: secrets})
}

func (p *place) mustRun(op *pb.ExecOp, inputs ...*layer.State) *Result {
	p.t.Helper()
	res, err := p.run(op, inputs...)
	if err != nil {
		p.t.Fatalf("%v\n%s", err, &p.out)
	}
	return res
}

func secrets(_ context.Context, id string) ([]byte, error) {
	if id == "token" {
		return []byte("s3cret"), nil
	}
	return nil, fmt.Errorf("%s: %w", id, ErrNoSecret)
}

// listing shows a layer's tree, one entry per line.
func listing(t testing.TB, l *layer.Layer) string {
	t.Helper()
	root, err := l.Tree(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	err = tree.Walk(root, func(path string, n *tree.Node) error {
		if path == "" {
			return nil
		}
		fmt.Fprintf(&b, "%s %o %d:%d", path, n.Mode, n.UID, n.GID)
		switch n.Kind {
		case tree.Dir:
			b.WriteString(" dir")
		case tree.Symlink:
			b.WriteString(" -> " + n.Link)
		case tree.Whiteout:
			b.WriteString(" whiteout")
		}
		if n.Opaque {
			b.WriteString(" opaque")
		}
		b.WriteByte('\n')
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestStep(t *testing.T) {
	for _, rt := range []string{"runc", "crun"} {
		t.Run(rt, func(t *testing.T) {
			p := newPlace(t, Options{Runtime: rt})
			base := p.busybox()
			for _, c := range []struct{ name, script, want string }{
				{"nothing", "true", "proc 755 0:0 dir\ndev 755 0:0 dir\nsys 755 0:0 dir\n"},
				{"file", "echo hi > /etc/new", "etc 755 0:0 dir\netc/new 644 0:0\n"},
				{"delete", "rm /usr/old/file", "usr 755 0:0 dir\nusr/old 755 0:0 dir\nusr/old/file 0 0:0 whiteout\n"},
				{"delete directory", "rm -r /usr/old", "usr 755 0:0 dir\nusr/old 0 0:0 whiteout\n"},
				{"replace directory", "rm -r /usr/old && mkdir /usr/old && echo > /usr/old/x",
					"usr 755 0:0 dir\nusr/old 755 0:0 dir opaque\nusr/old/x 644 0:0\n"},
				{"new directories", "mkdir -p /a/b/c", "a 755 0:0 dir\na/b 755 0:0 dir\na/b/c 755 0:0 dir\n"},
				{"come and go", "touch /usr/old/x; rm /usr/old/x", ""},
				{"sticky parent", "echo > /tmp/x", "tmp 1777 0:0 dir\ntmp/x 644 0:0\n"},
				{"directory mode", "chmod 700 /usr/old", "usr 755 0:0 dir\nusr/old 700 0:0 dir\n"},
			} {
				t.Run(c.name, func(t *testing.T) {
					res := p.mustRun(op(c.script), base)
					if len(res.Outputs) != 1 || res.Outputs[0].Base != 0 || len(res.Outputs[0].Layers) != 1 {
						t.Fatalf("got %+v", res.Outputs)
					}
					got := listing(t, res.Outputs[0].Layers[0])
					for _, dir := range []string{"dev", "proc", "sys"} { // mount points that the image lacks stay, as with BuildKit
						for line := range strings.Lines(got) {
							if strings.HasPrefix(line, dir+" ") {
								got = strings.Replace(got, line, "", 1)
							}
						}
					}
					want := c.want
					if c.name == "nothing" {
						want = ""
					}
					if got != want {
						t.Errorf("got\n%swant\n%s", got, want)
					}
				})
			}
		})
	}
}

func TestStepOnStep(t *testing.T) {
	p := newPlace(t, Options{})
	one := p.mustRun(op("echo one > /x; rm -r /usr/old"), p.busybox()).Outputs[0].State
	two := p.mustRun(op("cat /x; test ! -e /usr/old; mkdir /usr/old; echo two > /usr/old/y"), one).Outputs[0].State
	if p.out.String() != "one\n" {
		t.Errorf("got %q", &p.out)
	}
	p.mustRun(op("ls /usr/old"), two)
	if p.out.String() != "y\n" {
		t.Errorf("got %q", &p.out)
	}
	again := p.mustRun(op("echo one > /x; rm -r /usr/old"), p.busybox()).Outputs[0].State
	if again.Top().Identity != one.Top().Identity {
		t.Error("the same step made another identity")
	}
}

func TestStepFails(t *testing.T) {
	p := newPlace(t, Options{})
	_, err := p.run(op("echo no; exit 3"), p.busybox())
	var failed *ProcessError
	var exit *runtime.ExitError
	if !errors.As(err, &failed) || !errors.As(err, &exit) || exit.Code != 3 {
		t.Errorf("got %v", err)
	}
	if want := `process "/bin/sh -c echo no; exit 3" did not complete successfully: exit code: 3`; err.Error() != want {
		t.Errorf("got %q, want %q", err, want)
	}
	if p.out.String() != "no\n" {
		t.Errorf("got %q", &p.out)
	}
}

func TestUnknownUser(t *testing.T) {
	p := newPlace(t, Options{})
	for user, want := range map[string]string{"nobody-knows": "nobody-knows", "root:nobody-knows": "nobody-knows"} {
		o := op("true")
		o.Meta.User = user
		if _, err := p.run(o, p.busybox()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v", user, err)
		} else {
			t.Log(err)
		}
	}
}

func TestNoRuntime(t *testing.T) {
	p := newPlace(t, Options{})
	p.runner = New(p.store, cachemount.Open(filepath.Join(p.root, "cachemounts")), Options{Runtime: "no-such-runtime"})
	if _, err := p.run(op("true"), p.busybox()); fault.Of(err) != fault.Machine || !strings.Contains(err.Error(), "no-such-runtime") {
		t.Errorf("got %v", err)
	}
}

// TestAtOnce runs many steps at a time.
func TestAtOnce(t *testing.T) {
	p := newPlace(t, Options{})
	base := p.busybox()
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			var out bytes.Buffer
			script := fmt.Sprintf("echo %d > /n; cat /n; mkdir -p /d%d", i%4, i%4)
			res, err := p.runner.Run(t.Context(), Step{Op: op(script), Inputs: inputs(base), Stdout: &out, Stderr: &out})
			if err != nil {
				t.Errorf("%v: %s", err, &out)
				return
			}
			if want := fmt.Sprintln(i % 4); out.String() != want {
				t.Errorf("got %q", &out)
			}
			if l := listing(t, res.Outputs[0].Layers[0]); !strings.Contains(l, fmt.Sprintf("d%d ", i%4)) {
				t.Errorf("got %s", l)
			}
		})
	}
	wg.Wait()
	if list, _ := filepath.Glob(p.root + "/layers/*/fs"); len(list) != 5 {
		t.Errorf("layers: %s", list)
	}
}

// TestCancelled cancels a step with background processes.
func TestCancelled(t *testing.T) {
	for _, rt := range []string{"runc", "crun"} {
		p := openPlace(t, filepath.Join(t.TempDir(), "a:b,c"), Options{Runtime: rt})
		base := p.busybox()
		word := fmt.Sprintf("1000.%d", time.Now().UnixNano())
		ctx, cancel := context.WithCancel(t.Context())
		out, in := io.Pipe()
		go func() {
			io.ReadFull(out, make([]byte, 2))
			cancel()
			io.Copy(io.Discard, out)
		}()
		_, err := p.runner.Run(ctx, Step{Op: op("sleep " + word + " & echo x > /x; echo; echo; sleep " + word), Inputs: inputs(base), Stdout: in, Stderr: in})
		in.Close()
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%s: got %v", rt, err)
		}
		if left := running(t, word); len(left) > 0 {
			t.Errorf("%s: left running: %s", rt, left)
		}
		if m, _ := filepath.Glob(p.root + "/mounts/*/m*"); len(m) > 0 {
			t.Errorf("%s: left: %s", rt, m)
		}
	}
}

func BenchmarkTrue(b *testing.B) {
	for _, rt := range []string{"runc", "crun"} {
		b.Run(rt, func(b *testing.B) {
			p := newPlace(b, Options{Runtime: rt})
			base := p.busybox()
			o := op("true")
			p.mustRun(o, base)
			for b.Loop() {
				p.mustRun(o, base)
			}
		})
	}
}

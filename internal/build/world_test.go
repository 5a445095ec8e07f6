package build

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"larder/internal/cacheref"
	"larder/internal/export"
	"larder/internal/key"
	"larder/internal/layer"
	"larder/internal/progress"
	"larder/internal/remote"
	"larder/internal/runstep"
	"larder/internal/snapshot"
	"larder/internal/testregistry"
	"larder/internal/tree"
)

// TestMain keeps the machines and registries of these tests in memory where there is room: they are made by the thousand.
func TestMain(m *testing.M) {
	const shm = "/dev/shm"
	var fs unix.Statfs_t
	if os.Getenv("TMPDIR") == "" && unix.Statfs(shm, &fs) == nil && fs.Bavail*uint64(fs.Bsize) > 1<<30 && unix.Access(shm, unix.W_OK) == nil {
		os.Setenv("TMPDIR", shm)
	}
	os.Exit(m.Run())
}

// machine is an empty machine: a local root of its own, and a runner without containers.
type machine struct {
	t      testing.TB
	engine *Engine
	runner *fakeRunner
	said   bytes.Buffer // warnings and what the display showed
	mu     sync.Mutex
}

// newMachine opens an engine on a fresh root. Waiting takes no time: retries come at once.
func newMachine(t testing.TB, registries ...string) *machine {
	t.Helper()
	m := &machine{t: t}
	root, err := os.MkdirTemp("", "machine-") // gone with the machine: some tests make thousands
	if err != nil {
		t.Fatal(err)
	}
	e, err := Open(t.Context(), Config{Root: root, InsecureRegistries: registries, Warnings: m, Patience: hasty()})
	if err != nil {
		t.Fatal(err)
	}
	if err := e.runner.Close(); err != nil {
		t.Fatal(err)
	}
	m.engine, m.runner = e, &fakeRunner{layers: e.layers}
	e.runner = m.runner
	t.Cleanup(m.close)
	return m
}

// hasty is the usual patience by a clock that jumps instead of waiting.
func hasty() Patience {
	var slept atomic.Int64
	return Patience{
		Registry: func(time.Duration, <-chan struct{}) {},
		Remote: remote.Policy{
			Sleep: func(_ context.Context, d time.Duration) { slept.Add(int64(d)) },
			Now:   func() time.Time { return time.Now().Add(time.Duration(slept.Load())) },
		},
	}
}

func (m *machine) close() {
	if m.engine != nil {
		if err := errors.Join(m.engine.Close(), os.RemoveAll(m.engine.Root())); err != nil {
			m.t.Error(err)
		}
		m.engine, m.runner.layers = nil, nil
	}
}

// Write takes warnings.
func (m *machine) Write(p []byte) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.said.Write(p)
}

func (m *machine) text() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.said.String()
}

// epoch makes images depend on their contents only.
var epoch = time.Unix(1700000000, 0).UTC()

// project is a build context with a Dockerfile.
func project(t testing.TB, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	write(t, dir, files)
	return dir
}

func write(t testing.TB, dir string, files map[string]string) {
	t.Helper()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// request builds dir and pushes the image, with a cache in the same repository.
func request(dir, image string) *Request {
	repo, _, _ := strings.Cut(image, "@")
	if i := strings.LastIndexByte(repo, ':'); i > strings.LastIndexByte(repo, '/') {
		repo = repo[:i]
	}
	at := epoch
	r := &Request{
		Context: dir, Tags: []string{image}, Outputs: []map[string]string{{"type": "registry"}}, Epoch: &at,
		Args: map[string]string{}, Cache: Cache{Keys: nil},
	}
	return r.cached(repo)
}

// cached adds a cache that is read and written.
func (r *Request) cached(repo string) *Request {
	ref, err := cacheref.ParseCache(repo)
	if err != nil {
		panic(err)
	}
	r.Cache.From, r.Cache.To = append(r.Cache.From, ref), append(r.Cache.To, ref)
	return r
}

// build does one build and gives the image's digest.
func (m *machine) build(req *Request) (string, *Result, error) {
	stream := progress.NewStream()
	var wg sync.WaitGroup
	wg.Go(func() {
		for st := range stream.Events() {
			for _, s := range st.Statuses {
				if s.Completed != nil {
					fmt.Fprintln(m, s.ID)
				}
			}
			for _, v := range st.Vertexes {
				if v.Completed != nil {
					fmt.Fprintln(m, v.Name, v.Cached, v.Error)
				}
			}
		}
	})
	res, err := m.engine.Build(m.t.Context(), req, stream)
	stream.Close()
	wg.Wait()
	if err != nil {
		return "", nil, err
	}
	d, _ := res.Metadata["containerimage.digest"].(string)
	return d, res, nil
}

// must is a build that succeeds.
func (m *machine) must(req *Request) (string, *Result) {
	m.t.Helper()
	d, res, err := m.build(req)
	if err != nil {
		m.t.Fatalf("%v\n%s", err, m.text())
	}
	return d, res
}

// reference is the digest that a build from nothing gives, without a cache.
func reference(t testing.TB, dir, image string, registries ...string) string {
	t.Helper()
	m := newMachine(t, registries...)
	req := request(dir, image)
	req.Cache = Cache{}
	req.Outputs = []map[string]string{{"type": export.Image, "store": "false"}}
	d, _ := m.must(req)
	m.close()
	return d
}

// fakeRunner stands for a container: it looks at everything below it, and makes a file whose contents depend on the command
// and on all that it saw.
type fakeRunner struct {
	layers *snapshot.Store
	delay  time.Duration
	salt   string // another one makes something else of every step

	mu  sync.Mutex
	ran []string
}

func (f *fakeRunner) Close() error { return nil }

func (f *fakeRunner) commands() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := slices.Clone(f.ran)
	slices.Sort(out)
	return out
}

// Run implements solve.Runner.
func (f *fakeRunner) Run(ctx context.Context, step runstep.Step) (*runstep.Result, error) {
	args := step.Op.Meta.Args
	cmd := args[len(args)-1]
	f.mu.Lock()
	f.ran = append(f.ran, cmd)
	f.mu.Unlock()
	select {
	case <-time.After(f.delay):
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	h := sha256.New()
	fmt.Fprintln(h, args, f.salt)
	for _, in := range step.Inputs {
		for _, l := range in.Layers() {
			if _, err := f.layers.Dir(ctx, l); err != nil {
				return nil, err
			}
		}
		root, err := in.Merged(ctx)
		if err != nil {
			return nil, err
		}
		src := in.Contents()
		err = tree.Walk(root, func(path string, n *tree.Node) error {
			fmt.Fprintf(h, "%q %d %o %d %d %q\n", path, n.Kind, n.Mode, n.UID, n.GID, n.Link)
			if n.Kind != tree.File {
				return nil
			}
			rc, err := src.Open(ctx, n.Content, n.Size)
			if err != nil {
				return err
			}
			defer rc.Close()
			_, err = io.Copy(h, rc)
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	if strings.HasPrefix(cmd, "fail") {
		return nil, &runstep.ProcessError{Args: args, Err: fmt.Errorf("exit code: 1")}
	}
	l, err := f.layer(ctx, strings.Fields(cmd)[1], h.Sum(nil))
	if err != nil {
		return nil, err
	}
	return &runstep.Result{Outputs: []runstep.Output{{State: step.Inputs[0].Push(l), Base: 0, Layers: []*layer.Layer{l}}}}, nil
}

// layer stores a layer with one file, /out/NAME, of some incompressible kilobytes.
func (f *fakeRunner) layer(ctx context.Context, name string, seed []byte) (*layer.Layer, error) {
	var words [32]byte
	copy(words[:], seed)
	body := make([]byte, 40<<10)
	rand.NewChaCha8(words).Read(body)
	content := key.Bytes(body)
	now := time.Now().UnixNano()
	file := &tree.Node{Kind: tree.File, Meta: tree.Meta{Mode: 0o644, MTime: now}, Size: int64(len(body)), Content: content}
	out, err := tree.NewDir(tree.Meta{Mode: 0o755, MTime: now}, false, []tree.Entry{{Name: name, Node: file}})
	if err != nil {
		return nil, err
	}
	root, err := tree.NewDir(tree.Meta{Mode: 0o755, MTime: now}, false, []tree.Entry{{Name: "out", Node: out}})
	if err != nil {
		return nil, err
	}
	id, err := root.Identity()
	if err != nil {
		return nil, err
	}
	l := layer.New(id, true, root, layer.Literal(map[key.Digest][]byte{content: body}))
	if _, err := f.layers.Dir(ctx, l); err != nil {
		return nil, err
	}
	stored, ok := f.layers.Layer(ctx, id)
	if !ok {
		return nil, fmt.Errorf("layer %s was not stored", id)
	}
	return stored, nil
}

// newRegistry starts a registry that has the base image.
func newRegistry(t testing.TB, opt testregistry.Options) *testregistry.Registry {
	t.Helper()
	if opt.Dir == "" {
		opt.Dir = t.TempDir()
	}
	r := testregistry.StartWith(t, opt)
	if _, err := r.PushLayout(t.Context(), "base", tinyBase(t)); err != nil {
		t.Fatal(err)
	}
	return r
}

// stages is a Dockerfile with two independent stages and one that needs both.
func stages(base string) map[string]string {
	return map[string]string{
		"Dockerfile": "FROM " + base + ` AS base
FROM base AS left
WORKDIR /left
COPY left/ .
RUN compile left
FROM base AS right
COPY right/ /right/
RUN compile right
RUN link right2
FROM base
COPY --from=left /out/left /app/left
COPY --from=right /out/ /app/
COPY conf /etc/
RUN finish all
COPY README /
`,
		"left/a.c": "int a;", "right/b.c": "int b;", "conf/app.conf": "x=1", "README": "hello",
	}
}

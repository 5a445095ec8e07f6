package build

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	bkclient "github.com/moby/buildkit/client"
	"golang.org/x/sync/errgroup"

	"larder/internal/cache"
	"larder/internal/export"
	"larder/internal/fault"
	"larder/internal/fileop"
	"larder/internal/frontend"
	"larder/internal/image"
	"larder/internal/layer"
	"larder/internal/progress"
	"larder/internal/runstep"
	"larder/internal/solve"
	sourceimage "larder/internal/source/image"
)

// Result tells what a build made.
type Result struct {
	// ID names the image: its config's digest where it has one platform, else its index's. It is empty without an image.
	ID string
	// Text is what a subrequest (--check, --call) answers.
	Text string
	// Failed says that a check found something.
	Failed bool
	// Metadata is what --metadata-file writes.
	Metadata map[string]any
	// Ran and Cached count RUN steps: done, and spared.
	Ran, Cached int
	// Differences are hits that came out otherwise when they were run again (--cache-verify).
	Differences []solve.Difference
}

// MetadataJSON gives the metadata as BuildKit's clients write it.
func (r *Result) MetadataJSON() []byte {
	m := r.Metadata
	if m == nil {
		m = map[string]any{}
	}
	b, _ := json.MarshalIndent(m, "", "  ") // strings and descriptors: cannot fail
	return append(b, '\n')
}

// Check finds what is wrong with a request as far as that can be told before anything is opened or written.
func (r *Request) Check() error {
	if _, err := r.outputs(); err != nil {
		return err
	}
	if _, err := callOptions(map[string]string{}, r.Call); err != nil {
		return err
	}
	if r.DockerfileText != nil {
		return nil
	}
	_, err := r.dockerfile()
	return err
}

// Build does one build and reports into stream, which stays open.
func (e *Engine) Build(ctx context.Context, req *Request, stream *progress.Stream) (*Result, error) {
	b, err := e.begin(ctx, req, stream)
	if err != nil {
		return nil, err
	}
	defer b.close()
	if len(b.front.Outputs) == 0 {
		if err := b.addHints(ctx, b.history.Last); err != nil {
			return nil, err
		}
		return b.answer(), nil
	}
	res, err := b.run(ctx)
	if ctx.Err() == nil {
		b.history.write(ctx, err)
	}
	// What the steps made before one failed spares the next build just as well.
	if ctx.Err() == nil {
		err = errors.Join(err, b.save(ctx))
	}
	if err != nil {
		return nil, err
	}
	res.Ran, res.Cached = b.solver.Counts()
	res.Differences = b.solver.Differences()
	return res, nil
}

// building is a build whose Dockerfile has been read.
type building struct {
	e       *Engine
	req     *Request
	outputs []*export.Output
	front   *frontend.Result
	solver  *solve.Solver
	session *cache.Session
	mounts  *mounts
	history *history
	secrets *secrets
	stream  *progress.Stream
	asJSON  bool     // what a subrequest answers is wanted as JSON
	closing []func() // in the order of opening
}

// close ends what begin began.
func (b *building) close() {
	for _, f := range slices.Backward(b.closing) {
		f()
	}
	b.closing = nil
}

// begin reads the Dockerfile, so that it is known what is to be built. The caller closes what it gives.
func (e *Engine) begin(ctx context.Context, req *Request, stream *progress.Stream) (_ *building, err error) {
	r := *req
	b := &building{e: e, req: &r, secrets: &secrets{given: r.Secrets}, stream: stream}
	defer func() {
		if err != nil {
			b.close()
		}
	}()
	dockerfile, err := req.dockerfile()
	if err != nil {
		return nil, err
	}
	b.closing = append(b.closing, dockerfile.remove)
	layouts, contexts, err := layouts(req.Contexts)
	if err != nil {
		return nil, err
	}
	r.Contexts = contexts
	if b.outputs, err = r.outputs(); err != nil {
		return nil, err
	}
	opts := r.options()
	opts["filename"] = dockerfile.name
	if b.asJSON, err = callOptions(opts, r.Call); err != nil {
		return nil, err
	}
	remotes := e.Remotes()
	b.closing = append(b.closing, func() { remotes.Close() })
	if b.session, err = e.session(ctx, remotes, &r, stream); err != nil {
		return nil, err
	}
	b.closing = append(b.closing, b.session.Close)
	if b.mounts, err = b.openMounts(ctx); err != nil {
		return nil, err
	}
	b.closing = append(b.closing, b.mounts.store.Close)
	b.history = b.openHistory()
	dirs := r.locals()
	dirs["dockerfile"] = dockerfile.dir
	src := &sources{
		locals: &locals{dirs: dirs, cache: e.stats, times: b.mounts.times},
		images: sourceimage.New(sourceimage.Options{
			Registry: e.registry, Store: e.blobs, Tags: filepath.Join(e.root, "tags"), Layouts: layouts,
		}),
		layers: e.layers, session: b.session,
	}
	b.solver = solve.New(ctx, solve.Options{
		Sources: src, Files: &fileop.Applier{Temp: filepath.Join(e.root, "tmp")}, Runner: e.runner, Layers: b.session, Records: b.session,
		Progress: stream, Parallel: e.parallel(), Caches: b.mounts.store, Secrets: b.secrets.value,
		Used:   func(u solve.Use) { b.session.Used(u.Record, u.Layers, u.Result) },
		Verify: r.Cache.Verify, Refresh: r.Cache.Refresh.of, NoObserve: e.cfg.Observe == runstep.Off,
		Last: b.history.Last, Origin: b.session.Label,
	})
	b.closing = append(b.closing, b.solver.Close)
	b.front, err = frontend.Build(ctx, frontend.Request{
		Opts: opts, Solver: b.solver, Resolver: &announced{sources: src, stream: stream},
		Warn:   func(w *bkclient.VertexWarning) { stream.Warn(w) },
		Notice: func(msg string) { stream.Begin(msg).Done(nil) },
	})
	if err != nil {
		return nil, err
	}
	if err := b.attach(ctx); err != nil {
		return nil, err
	}
	if len(b.front.Outputs) > 0 {
		b.session.SetExports(forms(b.outputs, &r, b.front))
	}
	return b, nil
}

// maxRewinds bounds how often a build goes back for layers that turn out to be gone while it is exported.
const maxRewinds = 100

// run makes the states and exports them. A layer that a cache promised and does not have is made again (DESIGN invariant 2).
func (b *building) run(ctx context.Context) (*Result, error) {
	for try := 0; ; try++ {
		parts, err := evaluate(ctx, b.solver, b.front)
		if err != nil {
			return nil, err
		}
		res, err := b.export(ctx, parts)
		var gone *layer.GoneError
		if err == nil || !errors.As(err, &gone) || try == maxRewinds || !b.solver.Rewind(ctx, gone) {
			return res, err
		}
	}
}

// evaluate makes the states of all platforms at once.
func evaluate(ctx context.Context, solver *solve.Solver, front *frontend.Result) ([]image.Part, error) {
	parts := make([]image.Part, len(front.Outputs))
	eg, ctx := errgroup.WithContext(ctx)
	for i, o := range front.Outputs {
		parts[i] = image.Part{Platform: o.Platform, Config: o.Config, Base: o.BaseConfig}
		eg.Go(func() (err error) {
			parts[i].State, err = solver.Evaluate(ctx, o.Def)
			return err
		})
	}
	return parts, eg.Wait()
}

// callOptions asks the frontend for something else than a build, and tells whether its answer is wanted as JSON.
func callOptions(opts map[string]string, call string) (asJSON bool, err error) {
	name, rest, _ := strings.Cut(call, ",")
	switch name {
	case "", "build":
		return false, nil
	case "check":
		name = "lint"
	case "outline", "targets":
	default:
		return false, fault.Errorf(fault.Usage, "--call %s: build, check, outline and targets are known", call)
	}
	opts["requestid"] = "frontend." + name
	for field := range strings.SplitSeq(rest, ",") {
		switch field {
		case "", "format=text":
		case "format=json":
			asJSON = true
		default:
			return false, fault.Errorf(fault.Usage, "--call %s: %q is no option; format=text and format=json are", call, field)
		}
	}
	return asJSON, nil
}

// answer gives what a subrequest said.
func (b *building) answer() *Result {
	said := b.front.Metadata
	text := said["result.txt"]
	if b.asJSON {
		text = said["result.json"]
	}
	code := string(said["result.statuscode"])
	return &Result{Text: string(text), Failed: code != "" && code != "0"}
}

// dockerfile is where the Dockerfile lies for the frontend.
type dockerfile struct {
	dir, name string
	temporary bool
}

func (d dockerfile) remove() {
	if d.temporary {
		os.RemoveAll(d.dir)
	}
}

// dockerfile finds the Dockerfile, or writes the one that came as text to a directory of its own.
func (r *Request) dockerfile() (dockerfile, error) {
	if r.DockerfileText != nil {
		dir, err := os.MkdirTemp("", "larder-dockerfile-")
		if err != nil {
			return dockerfile{}, fault.New(fault.Machine, err)
		}
		d := dockerfile{dir, "Dockerfile", true}
		if err := os.WriteFile(filepath.Join(dir, d.name), r.DockerfileText, 0o600); err != nil {
			d.remove()
			return dockerfile{}, fault.New(fault.Machine, err)
		}
		return d, nil
	}
	path := r.Dockerfile
	if path == "" {
		path = filepath.Join(r.Context, "Dockerfile")
	}
	if _, err := os.Stat(path); err != nil {
		if r.Dockerfile == "" && errors.Is(err, os.ErrNotExist) {
			return dockerfile{}, fault.Errorf(fault.Usage, "there is no Dockerfile in %s; name it with -f", r.Context)
		}
		return dockerfile{}, fault.Errorf(fault.Usage, "Dockerfile: %w", err)
	}
	return dockerfile{dir: filepath.Dir(path), name: filepath.Base(path)}, nil
}

// layouts takes the OCI layouts out of the named contexts: the frontend knows them by a name and a digest.
func layouts(contexts map[string]string) (dirs, rest map[string]string, err error) {
	dirs, rest = map[string]string{}, map[string]string{}
	for name, v := range contexts {
		path, ok := strings.CutPrefix(v, "oci-layout://")
		if !ok {
			rest[name] = v
			continue
		}
		dir, dgst, pinned := strings.Cut(path, "@")
		tag := ""
		if i := strings.LastIndexByte(dir, ':'); i > strings.LastIndexByte(dir, '/') {
			dir, tag = dir[:i], dir[i+1:]
		}
		if !pinned {
			d, err := sourceimage.LayoutDigest(dir, tag)
			if err != nil {
				return nil, nil, fmt.Errorf("--build-context %s: %w", name, err)
			}
			dgst = string(d)
		}
		store := fmt.Sprintf("layout%d", len(dirs))
		dirs[store] = dir
		rest[name] = "oci-layout://" + store + "@" + dgst
	}
	return dirs, rest, nil
}

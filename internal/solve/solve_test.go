package solve

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/moby/buildkit/client/llb"
	"github.com/moby/buildkit/solver/pb"

	"larder/internal/fileop"
	"larder/internal/key"
	"larder/internal/layer"
	"larder/internal/progress"
	"larder/internal/record"
	"larder/internal/runstep"
	"larder/internal/tree"
)

// world is a solver's surroundings: sources that are names, commands that are functions of their text.
type world struct {
	t       *testing.T
	records *record.Store

	mu     sync.Mutex
	layers map[key.Digest]*layer.Layer
	away   map[key.Digest]bool // pinned layers whose files are elsewhere
	gone   map[key.Digest]bool // layers that are promised and cannot be had
	tries  map[string]int      // by the argument of "vary"
	ran    []string            // commands, in the order they started
	killed []string            // commands whose context ended before they did
	gate   map[string]chan struct{}
	active int
	most   int
}

func newWorld(t *testing.T) *world {
	records, err := record.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return &world{t: t, records: records, layers: map[key.Digest]*layer.Layer{}, gone: map[key.Digest]bool{}, tries: map[string]int{}, gate: map[string]chan struct{}{}}
}

func (w *world) solver(parallel int) *Solver {
	stream := progress.NewStream()
	go func() {
		for range stream.Events() {
		}
	}()
	s := New(context.Background(), Options{
		Sources: w, Files: &fileop.Applier{Temp: w.t.TempDir()}, Runner: w, Layers: w, Records: local{w.records}, Progress: stream, Parallel: parallel,
	})
	w.t.Cleanup(func() { s.Close(); stream.Close() })
	return s
}

func (w *world) layer(name string) *layer.Layer {
	content := key.Bytes([]byte(name))
	root, err := tree.NewDir(tree.Meta{Mode: 0o755}, false, []tree.Entry{
		{Name: "f", Node: &tree.Node{Kind: tree.File, Meta: tree.Meta{Mode: 0o644}, Size: int64(len(name)), Content: content}},
	})
	if err != nil {
		w.t.Fatal(err)
	}
	id, err := root.Identity()
	if err != nil {
		w.t.Fatal(err)
	}
	return layer.New(id, true, root, layer.Literal(map[key.Digest][]byte{content: []byte(name)}))
}

// Load implements Sources.
func (w *world) Load(_ context.Context, op *pb.SourceOp, _ *pb.Platform) (*layer.State, error) {
	return layer.Stack(w.layer(op.Identifier)), nil
}

// Layer implements Layers, as the following do.
func (w *world) Layer(_ context.Context, ref record.Layer) (*layer.Layer, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	l, ok := w.layers[ref.Identity]
	return l, ok
}

func (w *world) Has(id key.Digest) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return !w.away[id]
}

func (w *world) Copy(record.Layer) layer.Source {
	return nil
}

func (w *world) Adopt(_ context.Context, l *layer.Layer) *layer.Layer { return l }

func (w *world) Lost(gone *layer.GoneError) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.layers, gone.Identity)
}

// local makes the local root's records those of a solver.
type local struct{ *record.Store }

func (l local) Get(_ context.Context, k key.Digest) (*record.Record, bool) { return l.Store.Get(k) }
func (l local) Put(_ context.Context, r *record.Record) (*record.Record, error) {
	return l.Store.Put(r)
}
func (l local) Replace(_ context.Context, r *record.Record) (*record.Record, error) {
	return l.Store.Replace(r)
}
func (l local) Delete(_ context.Context, k key.Digest) error             { return l.Store.Delete(k) }
func (l local) HasTree(_ context.Context, d key.Digest) bool             { return l.Store.HasTree(d) }
func (l local) Tree(_ context.Context, d key.Digest) (*tree.Node, error) { return l.Store.Tree(d) }

// Run implements Runner. A command is words: "wait NAME" waits for a gate, "fail" fails, "make NAME" makes a layer.
func (w *world) Run(ctx context.Context, step runstep.Step) (*runstep.Result, error) {
	cmd := strings.Join(step.Op.Meta.Args, " ")
	if err := w.want(step.Inputs...); err != nil {
		return nil, err
	}
	w.mu.Lock()
	w.ran = append(w.ran, cmd)
	w.active++
	w.most = max(w.most, w.active)
	w.mu.Unlock()
	defer func() {
		w.mu.Lock()
		w.active--
		w.mu.Unlock()
	}()
	made := cmd
	words := strings.Fields(cmd)
	for i := 0; i+1 < len(words); i += 2 {
		switch words[i] {
		case "wait":
			w.mu.Lock()
			gate := w.gate[words[i+1]]
			w.mu.Unlock()
			select {
			case <-gate:
			case <-ctx.Done():
				w.mu.Lock()
				w.killed = append(w.killed, cmd)
				w.mu.Unlock()
				return nil, context.Cause(ctx)
			}
		case "fail":
			return nil, errors.New("failed: " + words[i+1])
		case "make":
			made = words[i+1]
		case "vary":
			w.mu.Lock()
			w.tries[words[i+1]]++
			made = fmt.Sprint(words[i+1], w.tries[words[i+1]])
			w.mu.Unlock()
		}
	}
	l := w.layer(made)
	w.mu.Lock()
	w.layers[l.Identity] = l
	delete(w.gone, l.Identity)
	w.mu.Unlock()
	return &runstep.Result{Outputs: []runstep.Output{{State: step.Inputs[0].Push(l), Base: 0, Layers: []*layer.Layer{l}}}}, nil
}

// want fetches the layers of states: those that are gone cannot be had.
func (w *world) want(states ...*layer.State) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, st := range states {
		for _, l := range st.Layers() {
			if w.gone[l.Identity] {
				return fmt.Errorf("mount: %w", &layer.GoneError{Identity: l.Identity, Err: errors.New("no such blob")})
			}
		}
	}
	return nil
}

func (w *world) commands() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	out := slices.Clone(w.ran)
	slices.Sort(out)
	return out
}

func definition(t *testing.T, st llb.State) *pb.Definition {
	def, err := st.Marshal(context.Background(), llb.LinuxAmd64)
	if err != nil {
		t.Fatal(err)
	}
	return def.ToPB()
}

func run(base llb.State, cmd string, opts ...llb.RunOption) llb.State {
	return base.Run(append([]llb.RunOption{llb.Args(strings.Fields(cmd))}, opts...)...).Root()
}

func contents(t *testing.T, st *layer.State) string {
	var names []string
	for _, l := range st.Layers() {
		root, err := l.Tree(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		f, err := root.Lookup("f")
		if err != nil {
			t.Fatal(err)
		}
		r, err := l.Contents.Open(context.Background(), f.Content, f.Size)
		if err != nil {
			t.Fatal(err)
		}
		b, _ := io.ReadAll(r)
		r.Close()
		names = append(names, string(b))
	}
	return strings.Join(names, " | ")
}

func TestAStepIsRunOnceAndThenRecalled(t *testing.T) {
	w := newWorld(t)
	base := llb.Image("base")
	def := definition(t, run(run(base, "make a"), "make b"))
	for i := range 3 {
		st, err := w.solver(0).Evaluate(context.Background(), def)
		if err != nil {
			t.Fatal(err)
		}
		if got, want := contents(t, st), "docker-image://docker.io/library/base:latest | a | b"; got != want {
			t.Errorf("build %d: %s, want %s", i, got, want)
		}
	}
	if got := w.commands(); !slices.Equal(got, []string{"make a", "make b"}) {
		t.Errorf("ran %q", got)
	}
}

func TestEqualResultsKeepStepsAboveThemHits(t *testing.T) {
	w := newWorld(t)
	build := func(first string) {
		t.Helper()
		if _, err := w.solver(0).Evaluate(context.Background(), definition(t, run(run(llb.Image("base"), first), "make b"))); err != nil {
			t.Fatal(err)
		}
	}
	build("make same x 1")
	build("make same x 2")
	if got := w.commands(); !slices.Equal(got, []string{"make b", "make same x 1", "make same x 2"}) {
		t.Errorf("ran %q: the step above equal layers should have been a hit", got)
	}
}

func TestALayerThatIsGoneIsMadeAgain(t *testing.T) {
	w := newWorld(t)
	def := definition(t, run(llb.Image("base"), "make a"))
	for range 2 {
		if _, err := w.solver(0).Evaluate(context.Background(), def); err != nil {
			t.Fatal(err)
		}
		clear(w.layers)
	}
	if got := w.commands(); len(got) != 2 {
		t.Errorf("ran %q, want the step twice", got)
	}
}

func TestIgnoreCacheRunsAgainAndReplaces(t *testing.T) {
	w := newWorld(t)
	plain := definition(t, run(llb.Image("base"), "make a"))
	fresh := definition(t, run(llb.Image("base"), "make a", llb.IgnoreCache))
	for _, def := range []*pb.Definition{plain, fresh, plain} {
		if _, err := w.solver(0).Evaluate(context.Background(), def); err != nil {
			t.Fatal(err)
		}
	}
	if got := w.commands(); len(got) != 2 {
		t.Errorf("ran %q, want the step twice: once, and once more with --no-cache", got)
	}
}

func TestIndependentStepsRunTogetherWithinTheBound(t *testing.T) {
	for _, bound := range []int{1, 2, 0} {
		w := newWorld(t)
		gate := make(chan struct{})
		w.gate["go"] = gate
		var inputs []llb.State
		for i := range 5 {
			inputs = append(inputs, run(llb.Image("base"), fmt.Sprintf("wait go make l%d", i)))
		}
		done := make(chan error)
		s := w.solver(bound)
		go func() {
			_, err := s.Evaluate(context.Background(), definition(t, llb.Merge(inputs)))
			done <- err
		}()
		want := bound
		if bound == 0 {
			want = 5
		}
		wait(t, func() bool { w.mu.Lock(); defer w.mu.Unlock(); return w.active == want })
		close(gate)
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		if w.most != want {
			t.Errorf("bound %d: %d steps at once, want %d", bound, w.most, want)
		}
	}
}

func TestAFailureCancelsWhatItMakesUseless(t *testing.T) {
	w := newWorld(t)
	w.gate["never"] = make(chan struct{})
	w.gate["other"] = make(chan struct{})
	slow := run(llb.Image("base"), "wait never make slow")
	shared := run(llb.Image("base"), "wait other make shared")
	bad := run(llb.Image("other"), "fail badly")
	s := w.solver(0)

	other := make(chan error)
	go func() {
		_, err := s.Evaluate(context.Background(), definition(t, run(shared, "make top")))
		other <- err
	}()
	wait(t, func() bool { return slices.Contains(w.commands(), "wait other make shared") })

	// The failing step waits for the others to be there, or it would win the race.
	_, err := s.Evaluate(context.Background(), definition(t, llb.Merge([]llb.State{slow, shared, bad})))
	if err == nil || !strings.Contains(err.Error(), "failed: badly") {
		t.Fatalf("error %v, want the failed step's", err)
	}
	if slices.Contains(w.commands(), "wait never make slow") {
		wait(t, func() bool {
			w.mu.Lock()
			defer w.mu.Unlock()
			return slices.Contains(w.killed, "wait never make slow")
		})
	}
	close(w.gate["other"])
	if err := <-other; err != nil {
		t.Errorf("a build that shares a step with the one that failed: %v", err)
	}
	if slices.Contains(w.killed, "wait other make shared") {
		t.Error("a step that another build waits for was stopped")
	}
}

func TestCancelledEvaluateStopsItsStepsAndTheyCanBeWantedAgain(t *testing.T) {
	w := newWorld(t)
	w.gate["go"] = make(chan struct{})
	def := definition(t, run(llb.Image("base"), "wait go make a"))
	s := w.solver(0)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { _, err := s.Evaluate(ctx, def); done <- err }()
	wait(t, func() bool { w.mu.Lock(); defer w.mu.Unlock(); return w.active == 1 })
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want that it was cancelled", err)
	}
	close(w.gate["go"])
	if _, err := s.Evaluate(context.Background(), def); err != nil {
		t.Errorf("the same step once more: %v", err)
	}
}

func TestOneStepForManyAtOnce(t *testing.T) {
	w := newWorld(t)
	def := definition(t, run(run(llb.Image("base"), "make a"), "make b"))
	var wg sync.WaitGroup
	for range 8 { // eight solvers stand for eight processes: only the records are shared
		s := w.solver(0)
		wg.Go(func() {
			if _, err := s.Evaluate(context.Background(), def); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if got := w.commands(); len(got) != 2 {
		t.Errorf("ran %q, want each step once", got)
	}
}

func TestOnlyWhatTheTargetNeeds(t *testing.T) {
	w := newWorld(t)
	run(llb.Image("unused"), "fail never")
	if _, err := w.solver(0).Evaluate(context.Background(), definition(t, run(llb.Image("base"), "make a"))); err != nil {
		t.Fatal(err)
	}
	if got := w.commands(); !slices.Equal(got, []string{"make a"}) {
		t.Errorf("ran %q", got)
	}
}

func TestDefinitionsThatAreNone(t *testing.T) {
	good := definition(t, run(llb.Image("base"), "make a"))
	cut := good.CloneVT()
	cut.Def = cut.Def[1:]
	tail := good.CloneVT()
	tail.Def = tail.Def[:len(tail.Def)-1]
	rubbish := &pb.Definition{Def: [][]byte{[]byte("\xff\xff\xff\xff")}}
	for name, def := range map[string]*pb.Definition{"without an input": cut, "without an end": tail, "rubbish": rubbish} {
		if _, err := newWorld(t).solver(0).Evaluate(context.Background(), def); !errors.Is(err, ErrDefinition) {
			t.Errorf("%s: %v, want ErrDefinition", name, err)
		}
	}
	if st, err := newWorld(t).solver(0).Evaluate(context.Background(), nil); err != nil || st != nil {
		t.Errorf("scratch: %v, %v", st, err)
	}
}

func wait(t *testing.T, until func() bool) {
	t.Helper()
	for range 500 {
		if until() {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatal("waited five seconds in vain")
}

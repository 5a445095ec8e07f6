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
func (l local) All(_ context.Context, k key.Digest) []*record.Record {
	if r, ok := l.Store.Get(k); ok {
		return []*record.Record{r}
	}
	return nil
}
func (l local) PutHint(_ context.Context, r *record.Record, _ bool) (*record.Record, error) {
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

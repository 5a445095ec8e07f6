package fileop

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"time"

	"github.com/moby/buildkit/solver/pb"

	"larder/internal/key"
	"larder/internal/layer"
	"larder/internal/tree"
)

// Result is what an operation made.
type Result struct {
	Outputs []Output // one for each output index of the operation, in order
	// Content is the operation's content key: its recipe, what it copied, and what it saw of the file systems that it
	// wrote to. Operations with one Content make the same layers, but for mtimes.
	Content key.Digest
	// Resolution is the last of these, for Replay.
	Resolution *Resolution
}

// Output is one file system that an operation made.
type Output struct {
	State  *layer.State   // the whole
	Base   int            // index of the input that the new layers sit on, -1 for none
	Layers []*layer.Layer // what is new: one layer, however many actions made it
}

// Applier does file operations. The zero value is ready; it is safe for concurrent use.
type Applier struct {
	// Temp is the directory for what archives hold (ADD of a tar file), os.TempDir() if empty. The files in it have no
	// names: nothing is left behind.
	Temp string
	// Now is the clock that dates changed directories and files without a time stamp; time.Now if nil.
	Now func() time.Time
}

// Apply does an operation with the zero Applier.
func Apply(ctx context.Context, op *pb.FileOp, inputs []*layer.State) (*Result, error) {
	return (&Applier{}).Apply(ctx, op, inputs)
}

// Apply does an operation. A nil input is the empty file system. Of the inputs only metadata is read, but for archives
// and, where an owner is given by name, /etc/passwd and /etc/group. The new layers read their contents from the inputs.
// A path that is missing is a *NotFoundError.
func (a *Applier) Apply(ctx context.Context, op *pb.FileOp, inputs []*layer.State) (*Result, error) {
	return a.run(ctx, op, inputs, nil)
}

// Replay does an operation without looking at the trees of the inputs that it writes to: what it must know of them is
// taken from an earlier Result's Resolution. The error wraps ErrUnresolved where that does not say enough, as for a source
// that has got files under new names; Apply does it then.
func (a *Applier) Replay(ctx context.Context, op *pb.FileOp, inputs []*layer.State, known *Resolution) (*Result, error) {
	return a.run(ctx, op, inputs, known)
}

func (a *Applier) run(ctx context.Context, op *pb.FileOp, inputs []*layer.State, known *Resolution) (*Result, error) {
	r := newRun(op, inputs, known)
	if a.Now != nil {
		r.now = a.Now().UnixNano()
	}
	r.contents.spool.dir = a.Temp
	if a.Temp == "" {
		r.contents.spool.dir = os.TempDir()
	}
	outs, err := r.plan()
	if err != nil {
		return nil, err
	}
	res := &Result{Outputs: make([]Output, len(outs))}
	for i, action := range outs {
		w, err := r.action(ctx, action, nil)
		if err != nil {
			return nil, err
		}
		if res.Outputs[i], err = r.output(w); err != nil {
			return nil, err
		}
	}
	sources, err := r.sourceKey(ctx)
	if err != nil {
		return nil, err
	}
	res.Resolution = r.rec.resolution()
	res.Content = key.New("larder.file.content.v1").Digest(sources).Digest(res.Resolution.Digest()).Sum()
	return res, nil
}

func (r *run) output(w *work) (Output, error) {
	out := Output{Base: w.input}
	root, err := w.layer()
	if err != nil {
		return out, err
	}
	id, err := root.Identity()
	if err != nil {
		return out, err
	}
	l := layer.New(id, false, root, r.contents.of(root))
	out.Layers = []*layer.Layer{l}
	var base *layer.State
	if w.input >= 0 {
		base = r.inputs[w.input]
		r.readFrom(base) // last: only an archive's hard link to a file of the base needs it
	}
	out.State = base.Push(l)
	return out, nil
}

// run is one operation being done. It belongs to one goroutine.
type run struct {
	op       *pb.FileOp
	inputs   []*layer.State
	known    *Resolution // for Replay
	probes   map[at]*Probe
	rec      *recorder
	contents *contents
	now      int64

	uses    []int    // by action: how often its result is written over or is an output
	works   []*work  // by action, once done
	choices []choice // by action, of copies
}

type choice struct {
	done bool
	from origin
	list []chosen
}

// origin is a file system that is read from.
type origin struct {
	root  *tree.Node
	state *layer.State // nil for what an action made
}

func newRun(op *pb.FileOp, inputs []*layer.State, known *Resolution) *run {
	n := len(op.GetActions())
	r := &run{
		op: op, inputs: inputs, known: known, now: time.Now().UnixNano(),
		rec:      &recorder{probes: map[at]*Probe{}},
		contents: &contents{literals: map[key.Digest][]byte{}},
		uses:     make([]int, n), works: make([]*work, n), choices: make([]choice, n),
	}
	if known != nil {
		r.probes = make(map[at]*Probe, len(known.Probes))
		for i := range known.Probes {
			p := &known.Probes[i]
			r.probes[at{p.Input, p.Path}] = p
		}
	}
	return r
}

// plan checks the operation's indexes and gives the action of each output.
func (r *run) plan() ([]int, error) {
	if r.op == nil || len(r.op.Actions) == 0 {
		return nil, errors.New("a file operation with no actions")
	}
	limit := int64(len(r.inputs) + len(r.op.Actions))
	outs := map[int64]int{}
	for i, a := range r.op.Actions {
		if a == nil || a.Action == nil {
			return nil, fmt.Errorf("file action %d is empty", i)
		}
		if a.Input < -1 || a.Input >= limit {
			return nil, fmt.Errorf("invalid input index %d, %d provided", a.Input, limit)
		}
		if a.SecondaryInput < -1 || a.SecondaryInput >= limit {
			return nil, fmt.Errorf("invalid secondary input index %d, %d provided", a.SecondaryInput, limit)
		}
		if j := int(a.Input) - len(r.inputs); j >= 0 {
			r.uses[j]++
		}
		if a.Output != -1 {
			if _, twice := outs[a.Output]; twice {
				return nil, fmt.Errorf("duplicate output %d", a.Output)
			}
			outs[a.Output] = i
			r.uses[i]++
		}
	}
	if len(outs) == 0 {
		return nil, errors.New("no outputs specified")
	}
	list := make([]int, len(outs))
	for i := range list {
		action, ok := outs[int64(i)]
		if !ok {
			return nil, fmt.Errorf("missing output index %d", i)
		}
		list[i] = action
	}
	return list, nil
}

// action does an action, after those that it builds on.
func (r *run) action(ctx context.Context, i int, above []int) (*work, error) {
	if r.works[i] != nil {
		return r.works[i], nil
	}
	if slices.Contains(above, i) {
		return nil, fmt.Errorf("loop from index %d", len(r.inputs)+i)
	}
	above = append(slices.Clone(above), i)
	a := r.op.Actions[i]
	w, err := r.target(ctx, int(a.Input), above)
	if err != nil {
		return nil, err
	}
	if err := r.do(ctx, i, a, w, above); err != nil {
		return nil, err
	}
	r.works[i] = w
	return w, nil
}

// target gives the work that an action changes.
func (r *run) target(ctx context.Context, input int, above []int) (*work, error) {
	if j := input - len(r.inputs); j >= 0 {
		w, err := r.action(ctx, j, above)
		if err == nil && (r.uses[j] > 1 || r.isRead(j)) {
			w = w.clone()
		}
		return w, err
	}
	if input < 0 {
		return newWork(-1, nil, nil, r.now), nil
	}
	if r.known != nil {
		p := r.probes[at{input, ""}]
		if p == nil || p.Node == nil || p.Node.Kind != tree.Dir {
			return nil, fmt.Errorf("the root of input %d is %w", input, ErrUnresolved)
		}
		r.rec.probe(input, "", p.Node)
		return newWork(input, answers{r.rec, input, r.probes}, p.Node, r.now), nil
	}
	root, err := r.inputs[input].Merged(ctx)
	if err != nil {
		return nil, err
	}
	r.rec.probe(input, "", root)
	return newWork(input, treeBase{r.rec, input}, root, r.now), nil
}

// isRead says whether some action reads from action j's result or looks up owners in it.
func (r *run) isRead(j int) bool {
	for i := range r.op.Actions {
		if slices.Contains(r.reads(i), len(r.inputs)+j) {
			return true
		}
	}
	return false
}

// reads lists the indexes that an action reads from, other than the one that it changes.
func (r *run) reads(i int) []int {
	var out []int
	a := r.op.Actions[i]
	if a.GetCopy() != nil {
		out = append(out, int(a.SecondaryInput))
	}
	if opt := ownerOf(a); opt != nil {
		for _, u := range []*pb.UserOpt{opt.User, opt.Group} {
			if named := u.GetByName(); named != nil {
				out = append(out, int(named.Input))
			}
		}
	}
	return out
}

func ownerOf(a *pb.FileAction) *pb.ChownOpt {
	switch a := a.Action.(type) {
	case *pb.FileAction_Copy:
		return a.Copy.GetOwner()
	case *pb.FileAction_Mkdir:
		return a.Mkdir.GetOwner()
	case *pb.FileAction_Mkfile:
		return a.Mkfile.GetOwner()
	case *pb.FileAction_Symlink:
		return a.Symlink.GetOwner()
	}
	return nil
}

// do changes w as an action says. What is dated without a time stamp gets the action's, or now.
func (r *run) do(ctx context.Context, i int, a *pb.FileAction, w *work, above []int) error {
	who, err := r.owner(ctx, ownerOf(a), above)
	if err != nil {
		return err
	}
	date := func(ts int64) {
		w.now = r.now
		if ts != -1 {
			w.now = ts
		}
	}
	switch a := a.Action.(type) {
	case *pb.FileAction_Mkdir:
		date(a.Mkdir.Timestamp)
		return mkdir(w, a.Mkdir, who)
	case *pb.FileAction_Mkfile:
		date(a.Mkfile.Timestamp)
		return r.mkfile(w, a.Mkfile, who)
	case *pb.FileAction_Symlink:
		date(a.Symlink.Timestamp)
		return symlink(w, a.Symlink, who)
	case *pb.FileAction_Rm:
		date(-1)
		return rm(w, a.Rm)
	case *pb.FileAction_Copy:
		date(a.Copy.Timestamp)
		c, err := r.choose(ctx, i, above)
		if err != nil {
			return err
		}
		return r.doCopy(ctx, w, a.Copy, c.from, c.list, who)
	}
	return fmt.Errorf("%T is a file action that this version does not know", a.Action)
}

func (r *run) choose(ctx context.Context, i int, above []int) (*choice, error) {
	c := &r.choices[i]
	if c.done {
		return c, nil
	}
	a := r.op.Actions[i]
	from, err := r.origin(ctx, int(a.SecondaryInput), above)
	if err != nil {
		return nil, err
	}
	list, err := choose(ctx, from.root, a.GetCopy())
	if err != nil {
		return nil, err
	}
	*c = choice{done: true, from: from, list: list}
	return c, nil
}

// recipe is an action without what is replaced in its key by what it leads to.
func recipe(a *pb.FileAction) ([]byte, error) {
	a = a.CloneVT()
	if c := a.GetCopy(); c != nil && a.SecondaryInput != -1 {
		c.Src = path.Base(c.Src)
		c.RequiredPaths = nil
	}
	return a.MarshalVT()
}

package fileop

import (
	"context"
	"fmt"
	"io"
	"slices"

	"github.com/moby/buildkit/solver/pb"

	"larder/internal/key"
	"larder/internal/layer"
	"larder/internal/tree"
)

// origin gives the file system of an index to read from.
func (r *run) origin(ctx context.Context, index int, above []int) (origin, error) {
	switch j := index - len(r.inputs); {
	case index < 0 || j < 0 && r.inputs[index] == nil:
		empty := tree.Empty()
		return origin{root: empty.WithMeta(tree.Meta{Mode: empty.Mode, MTime: r.now})}, nil
	case j < 0:
		st := r.inputs[index]
		root, err := st.Merged(ctx)
		r.readFrom(st)
		return origin{root: root, state: st}, err
	default:
		w, err := r.action(ctx, j, above)
		if err != nil {
			return origin{}, err
		}
		root, err := r.merged(ctx, w)
		return origin{root: root}, err
	}
}

// readFrom notes that contents of new layers may come from st.
func (r *run) readFrom(st *layer.State) {
	if st != nil && !slices.Contains(r.contents.states, st) {
		r.contents.states = append(r.contents.states, st)
	}
}

// merged gives a work as a whole file system.
func (r *run) merged(ctx context.Context, w *work) (*tree.Node, error) {
	top, err := w.layer()
	if err != nil {
		return nil, err
	}
	lower := tree.Empty()
	if w.input >= 0 {
		if r.known != nil {
			return nil, fmt.Errorf("input %d is read from, and is %w", w.input, ErrUnresolved)
		}
		if lower, err = r.inputs[w.input].Merged(ctx); err != nil {
			return nil, err
		}
		r.readFrom(r.inputs[w.input])
	}
	return tree.Apply(lower, top)
}

// open opens a file of an origin for reading.
func (r *run) open(ctx context.Context, from origin, clean string, n *tree.Node) (io.ReadCloser, error) {
	if from.state != nil {
		return openPath(ctx, from.state, clean, n)
	}
	return r.contents.of(from.root).Open(ctx, n.Content, n.Size)
}

// SourceKey names an operation by its recipe and what it copies, looking at the trees that it reads from alone. Together
// with the identities of the states that it writes to it is as good as its content key, and found without doing it.
func SourceKey(ctx context.Context, op *pb.FileOp, inputs []*layer.State) (key.Digest, error) {
	r := newRun(op, inputs, nil)
	if _, err := r.plan(); err != nil {
		return key.Digest{}, err
	}
	return r.sourceKey(ctx)
}

// WritesTo tells whether an operation writes to input, or looks up owners in it: whether Apply needs that input's tree for more
// than to copy from it.
func WritesTo(op *pb.FileOp, input int) bool {
	for _, a := range op.GetActions() {
		if int(a.GetInput()) == input {
			return true
		}
		if opt := ownerOf(a); opt != nil {
			for _, u := range []*pb.UserOpt{opt.User, opt.Group} {
				if named := u.GetByName(); named != nil && int(named.Input) == input {
					return true
				}
			}
		}
	}
	return false
}

func (r *run) sourceKey(ctx context.Context) (key.Digest, error) {
	h := key.New("larder.file.sources.v1").Uint(uint64(len(r.inputs))).Uint(uint64(len(r.op.Actions)))
	for i, a := range r.op.Actions {
		b, err := recipe(a)
		if err != nil {
			return key.Digest{}, err
		}
		h.Raw(b)
		for _, index := range r.reads(i) {
			if index >= len(r.inputs) {
				// What an action made may show any part of its base, so the base counts as a whole.
				for _, in := range r.beneath(index, nil) {
					h.Digests(r.inputs[in].Identities())
				}
			}
		}
		if a.GetCopy() == nil || a.SecondaryInput < 0 || int(a.SecondaryInput) >= len(r.inputs) {
			continue
		}
		c, err := r.choose(ctx, i, nil)
		if err != nil {
			return key.Digest{}, err
		}
		h.Uint(uint64(len(c.list)))
		for _, s := range c.list {
			if err := s.sum(h); err != nil {
				return key.Digest{}, err
			}
		}
	}
	return h.Sum(), nil
}

// beneath lists the inputs that an action's result can show something of, in order.
func (r *run) beneath(index int, seen []int) []int {
	var out []int
	visit := []int{index}
	for len(visit) > 0 {
		at := visit[0]
		visit = visit[1:]
		if at < 0 || slices.Contains(seen, at) {
			continue
		}
		seen = append(seen, at)
		if at < len(r.inputs) {
			out = append(out, at)
			continue
		}
		i := at - len(r.inputs)
		visit = append(visit, int(r.op.Actions[i].Input))
		visit = append(visit, r.reads(i)...)
	}
	slices.Sort(out)
	return out
}

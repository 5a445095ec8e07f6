package solve

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"

	"github.com/moby/buildkit/solver/pb"

	"larder/internal/fileop"
	"larder/internal/key"
	"larder/internal/layer"
	"larder/internal/record"
	"larder/internal/tree"
)

// errGone says that a record names a layer that is not here any more.
var errGone = errors.New("a recorded layer is gone")

// restack makes the states that a record describes on today's inputs, and notes when its layers were made.
func (s *Solver) restack(rec *record.Record, j job, find func(output, n int, ref record.Layer) (*layer.Layer, error)) ([]*layer.State, error) {
	if len(rec.Outputs) != j.outputs() {
		return nil, errGone
	}
	out := make([]*layer.State, len(rec.Outputs))
	layers := []*layer.Layer{} // none is something else than not to have made any, see Use
	for i, o := range rec.Outputs {
		if base := j.bases(i); o.Base >= len(j.inputs) || len(base) != 1 || base[0] != o.Base {
			return nil, errGone // whoever wrote it meant another step
		}
		if o.Base >= 0 {
			out[i] = j.inputs[o.Base]
		}
		for n, ref := range o.Layers {
			l, err := find(i, n, ref)
			if err != nil {
				return nil, err
			}
			layers = append(layers, l)
			out[i] = out[i].Push(l)
			s.name(out[i], j.label)
		}
	}
	for _, l := range layers {
		s.note(l.Identity, rec)
	}
	s.used(rec, layers, j.result)
	return out, nil
}

func (s *Solver) note(identity key.Digest, rec *record.Record) {
	s.stats.Lock()
	defer s.stats.Unlock()
	if _, ok := s.created[identity]; !ok {
		s.created[identity] = *rec
	}
}

// Made gives the record by which this solver came to a layer; false for layers of base images.
func (s *Solver) Made(identity key.Digest) (record.Record, bool) {
	s.stats.Lock()
	defer s.stats.Unlock()
	r, ok := s.created[identity]
	return r, ok
}

// merge stacks the layers of all inputs.
func merge(_ context.Context, op *pb.MergeOp, inputs []*layer.State) (*layer.State, error) {
	var out *layer.State
	for i, in := range op.Inputs {
		if in.Input < 0 || int(in.Input) >= len(inputs) {
			return nil, fmt.Errorf("merge of input %d: %w", in.Input, ErrDefinition)
		}
		st := inputs[in.Input]
		if i == 0 {
			out = st
			continue
		}
		for _, l := range st.Layers() {
			out = out.Push(l)
		}
	}
	return out, nil
}

// diff gives what upper has over lower: upper's own layers where it stands on lower, else one layer computed from trees.
func diff(ctx context.Context, op *pb.DiffOp, inputs []*layer.State) (*layer.State, error) {
	pick := func(i int64) (*layer.State, error) {
		if i == -1 {
			return nil, nil
		}
		if i < 0 || int(i) >= len(inputs) {
			return nil, fmt.Errorf("difference of input %d: %w", i, ErrDefinition)
		}
		return inputs[i], nil
	}
	lower, err := pick(op.Lower.GetInput())
	if err != nil {
		return nil, err
	}
	upper, err := pick(op.Upper.GetInput())
	if err != nil {
		return nil, err
	}
	low, up := lower.Identities(), upper.Identities()
	if len(up) >= len(low) && slices.Equal(low, up[:len(low)]) {
		return layer.Stack(upper.Layers()[len(low):]...), nil
	}
	lowTree, err := lower.Merged(ctx)
	if err != nil {
		return nil, err
	}
	upTree, err := upper.Merged(ctx)
	if err != nil {
		return nil, err
	}
	root, err := tree.Diff(lowTree, upTree)
	if err != nil {
		return nil, err
	}
	id, err := root.Identity()
	if err != nil {
		return nil, err
	}
	return layer.Stack(layer.New(id, false, root, upper.Contents())), nil
}

// replay finds the contents of a file operation's layers by doing the operation again, once, when first asked.
type replay struct {
	s      *Solver
	op     *pb.FileOp
	inputs []*layer.State

	mu  sync.Mutex
	res *fileop.Result
}

func (r *replay) result(ctx context.Context) (*fileop.Result, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.res == nil {
		res, err := r.s.resolve(ctx, r.op, r.inputs, false)
		if err != nil {
			return nil, err
		}
		r.res = res
	}
	return r.res, nil
}

// made picks a layer of what a file operation made. That it is another than was recorded means that the record is wrong: it came from
// somebody who is not to be believed, or whose larder counts otherwise.
func made(res *fileop.Result, output, n int, ref record.Layer) (*layer.Layer, error) {
	if output >= len(res.Outputs) || n >= len(res.Outputs[output].Layers) {
		return nil, &layer.GoneError{Identity: ref.Identity, Err: errors.New("its record names outputs that the operation does not have")}
	}
	l := res.Outputs[output].Layers[n]
	if l.Identity != ref.Identity {
		return nil, &layer.GoneError{Identity: ref.Identity, Err: fmt.Errorf("the operation that is said to make it makes %s", l.Identity)}
	}
	return l, nil
}

// againSource opens the contents of the layer that a function gives.
type againSource func(context.Context) (*layer.Layer, error)

// Open implements layer.Source.
func (again againSource) Open(ctx context.Context, d key.Digest, size int64) (io.ReadCloser, error) {
	l, err := again(ctx)
	if err != nil {
		return nil, err
	}
	return l.Contents.Open(ctx, d, size)
}

// either opens contents from the first of two sources that can: the second knows everything, at a price.
type either struct{ near, far layer.Source }

// Open implements layer.Source.
func (e either) Open(ctx context.Context, d key.Digest, size int64) (io.ReadCloser, error) {
	rc, err := e.near.Open(ctx, d, size)
	if err == nil || ctx.Err() != nil {
		return rc, err
	}
	return e.far.Open(ctx, d, size)
}

package solve

import (
	"context"
	"fmt"
	"time"

	"github.com/moby/buildkit/solver/pb"

	"larder/internal/key"
	"larder/internal/layer"
	"larder/internal/progress"
	"larder/internal/record"
	"larder/internal/runstep"
	"larder/internal/tree"
)

// do gives the outputs of a vertex. Its context is cancelled when nobody wants them any more.
func (s *Solver) do(ctx context.Context, n *node, line *progress.Vertex, inputs []*layer.State) ([]*layer.State, error) {
	ctx = progress.With(ctx, line)
	switch op := n.op.Op.(type) {
	case *pb.Op_Source:
		return s.source(ctx, n, op.Source, line)
	case *pb.Op_File:
		return s.files(ctx, n, op.File, line, inputs)
	case *pb.Op_Exec:
		return s.exec(ctx, n, op.Exec, line, inputs)
	case *pb.Op_Merge:
		out, err := merge(ctx, op.Merge, inputs)
		line.Done(err)
		return []*layer.State{out}, err
	case *pb.Op_Diff:
		out, err := diff(ctx, op.Diff, inputs)
		line.Done(err)
		return []*layer.State{out}, err
	}
	err := fmt.Errorf("%q is an operation that this version does not know", n.name)
	line.Done(err)
	return nil, err
}

func (s *Solver) source(ctx context.Context, n *node, op *pb.SourceOp, line *progress.Vertex) ([]*layer.State, error) {
	line.Start()
	st, err := s.opt.Sources.Load(ctx, op, n.op.Platform)
	line.Done(err)
	return []*layer.State{st}, err
}

// files does file operations: algebra on trees (DESIGN idea 2). The exact key only spares reading the trees; what comes out
// is the same either way.
func (s *Solver) files(ctx context.Context, n *node, op *pb.FileOp, line *progress.Vertex, inputs []*layer.State) ([]*layer.State, error) {
	k := fileKey(op, inputs)
	if !n.ignoreCache {
		if rec, ok := s.opt.Records.Get(k); ok {
			if out, ok := s.recallFiles(rec, op, inputs); ok {
				line.Cached()
				return out, nil
			}
		}
	}
	line.Start()
	res, err := s.opt.Files.Apply(ctx, op, inputs)
	if err != nil {
		line.Done(err)
		return nil, err
	}
	rec := &record.Record{Key: k, Name: n.name, Created: now()}
	for _, o := range res.Outputs {
		out := record.Output{Base: o.Base}
		for _, l := range o.Layers {
			ref, err := s.keepLayer(ctx, l)
			if err != nil {
				line.Done(err)
				return nil, err
			}
			out.Layers = append(out.Layers, ref)
		}
		rec.Outputs = append(rec.Outputs, out)
	}
	rec, err = s.opt.Records.Put(rec)
	if err != nil {
		line.Done(err)
		return nil, err
	}
	contents := make([]layer.Source, len(res.Outputs))
	for i, o := range res.Outputs {
		if len(o.Layers) > 0 {
			contents[i] = o.Layers[len(o.Layers)-1].Contents
		}
	}
	out, err := s.restack(rec, inputs, func(output int, ref record.Layer) (*layer.Layer, error) {
		return s.fileLayer(ref, contents[output]), nil
	})
	line.Done(err)
	return out, err
}

// keepLayer stores the tree of an observed layer, unless a layer of the same identity is stored: then that one, with its
// mtimes, is adopted (DESIGN section 3).
func (s *Solver) keepLayer(ctx context.Context, l *layer.Layer) (record.Layer, error) {
	k := layerKey(l.Identity)
	if rec, ok := s.opt.Records.Get(k); ok && len(rec.Outputs) == 1 && len(rec.Outputs[0].Layers) == 1 {
		if ref := rec.Outputs[0].Layers[0]; s.opt.Records.HasTree(ref.Tree) {
			return ref, nil
		}
		if err := s.opt.Records.Delete(k); err != nil {
			return record.Layer{}, err
		}
	}
	root, err := l.Tree(ctx)
	if err != nil {
		return record.Layer{}, err
	}
	blob, err := s.opt.Records.PutTree(root)
	if err != nil {
		return record.Layer{}, err
	}
	ref := record.Layer{Identity: l.Identity, Tree: blob}
	rec, err := s.opt.Records.Put(&record.Record{Key: k, Created: now(), Outputs: []record.Output{{Base: -1, Layers: []record.Layer{ref}}}})
	if err != nil {
		return record.Layer{}, err
	}
	return rec.Outputs[0].Layers[0], nil
}

func (s *Solver) fileLayer(ref record.Layer, contents layer.Source) *layer.Layer {
	return layer.Lazy(ref.Identity, false, contents, func(context.Context) (*tree.Node, error) {
		return s.opt.Records.Tree(ref.Tree)
	})
}

// recallFiles makes the outputs of a file operation from its record. Contents are found by doing the operation again, when
// somebody needs them: an exact key promises the same inputs.
func (s *Solver) recallFiles(rec *record.Record, op *pb.FileOp, inputs []*layer.State) ([]*layer.State, bool) {
	for _, o := range rec.Outputs {
		for _, ref := range o.Layers {
			if !s.opt.Records.HasTree(ref.Tree) {
				return nil, false
			}
		}
	}
	contents := &replay{files: s.opt.Files, op: op, inputs: inputs}
	out, err := s.restack(rec, inputs, func(output int, ref record.Layer) (*layer.Layer, error) {
		return s.fileLayer(ref, contents.of(output)), nil
	})
	return out, err == nil
}

// exec does a RUN step.
func (s *Solver) exec(ctx context.Context, n *node, op *pb.ExecOp, line *progress.Vertex, inputs []*layer.State) ([]*layer.State, error) {
	k, err := execKey(ctx, op, n.op.Platform, inputs)
	if err != nil {
		line.Done(err)
		return nil, err
	}
	if out, ok := s.recallExec(ctx, n, k, line, inputs); ok {
		return out, nil
	}
	// Whoever holds the lock runs the step; the others find its record afterwards.
	unlock, err := s.opt.Records.Lock(ctx, k)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if out, ok := s.recallExec(ctx, n, k, line, inputs); ok {
		return out, nil
	}
	if s.slots != nil {
		if err := s.slots.Acquire(ctx, 1); err != nil {
			return nil, err
		}
		defer s.slots.Release(1)
	}
	line.Start()
	out, err := s.runExec(ctx, n, k, op, line, inputs)
	line.Done(err)
	return out, err
}

func (s *Solver) runExec(ctx context.Context, n *node, k key.Digest, op *pb.ExecOp, line *progress.Vertex, inputs []*layer.State) ([]*layer.State, error) {
	started := time.Now()
	res, err := s.opt.Runner.Run(ctx, runstep.Step{
		Op: op, Inputs: inputs, Secrets: s.opt.Secrets,
		Stdout: line.Log(1), Stderr: line.Log(2),
	})
	if err != nil {
		return nil, err
	}
	s.count(false)
	rec := &record.Record{Key: k, Name: n.name, Created: now(), Duration: time.Since(started).Round(time.Millisecond)}
	made := map[key.Digest]*layer.Layer{}
	for _, o := range res.Outputs {
		out := record.Output{Base: o.Base}
		for _, l := range o.Layers {
			made[l.Identity] = l
			out.Layers = append(out.Layers, record.Layer{Identity: l.Identity, Pinned: true})
		}
		rec.Outputs = append(rec.Outputs, out)
	}
	put := s.opt.Records.Put
	if n.ignoreCache {
		put = s.opt.Records.Replace // the user wants this result, now and from now on
	}
	rec, err = put(rec)
	if err != nil {
		return nil, err
	}
	return s.restack(rec, inputs, func(_ int, ref record.Layer) (*layer.Layer, error) {
		if l, ok := made[ref.Identity]; ok {
			return l, nil
		}
		if l, ok := s.opt.Layers.Layer(ctx, ref.Identity); ok {
			return l, nil
		}
		return nil, fmt.Errorf("layer %s was removed while the build ran", ref.Identity)
	})
}

// recallExec makes the outputs of a RUN step from its record, if it has one whose layers are all here.
func (s *Solver) recallExec(ctx context.Context, n *node, k key.Digest, line *progress.Vertex, inputs []*layer.State) ([]*layer.State, bool) {
	if n.ignoreCache {
		return nil, false
	}
	rec, ok := s.opt.Records.Get(k)
	if !ok {
		return nil, false
	}
	out, err := s.restack(rec, inputs, func(_ int, ref record.Layer) (*layer.Layer, error) {
		l, ok := s.opt.Layers.Layer(ctx, ref.Identity)
		if !ok {
			return nil, errGone
		}
		return l, nil
	})
	if err != nil {
		if err := s.opt.Records.Delete(k); err != nil {
			line.Note("forget a record whose layers are gone: " + err.Error())
		}
		return nil, false
	}
	s.count(true)
	line.Cached()
	return out, true
}

func (s *Solver) count(cached bool) {
	s.stats.Lock()
	defer s.stats.Unlock()
	if cached {
		s.cached++
	} else {
		s.ran++
	}
}

// now is the time that records and, through them, images carry.
func now() time.Time { return time.Now().UTC().Truncate(time.Second) }

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
		if rec, ok := s.opt.Records.Get(k); ok && s.hasTrees(rec) {
			if out, err := s.recallFiles(rec, op, inputs); err == nil {
				line.Cached()
				return out, nil
			}
		}
	}
	line.Start()
	out, err := s.applyFiles(ctx, n, k, op, inputs)
	line.Done(err)
	return out, err
}

func (s *Solver) applyFiles(ctx context.Context, n *node, k key.Digest, op *pb.FileOp, inputs []*layer.State) ([]*layer.State, error) {
	res, err := s.opt.Files.Apply(ctx, op, inputs)
	if err != nil {
		return nil, err
	}
	rec := &record.Record{Key: k, Name: n.name}
	for _, o := range res.Outputs {
		out := record.Output{Base: o.Base}
		for _, l := range o.Layers {
			kept, err := s.keepLayer(ctx, op, l)
			if err != nil {
				return nil, err
			}
			// An operation that made what was there already leaves the image as it was, its times included.
			if kept.Created.After(rec.Created) {
				rec.Created = kept.Created
			}
			out.Layers = append(out.Layers, kept.Outputs[0].Layers[0])
		}
		rec.Outputs = append(rec.Outputs, out)
	}
	first, err := s.opt.Records.Put(rec)
	if err == nil && !s.hasTrees(first) {
		first, err = s.opt.Records.Replace(rec) // what was there before was no use
	}
	if err != nil {
		return nil, err
	}
	return s.restack(first, inputs, func(output, n int, ref record.Layer) (*layer.Layer, error) {
		return s.fileLayer(k, op, ref, func(context.Context) (*layer.Layer, error) {
			return made(res, output, n, ref)
		}), nil
	})
}

// hasTrees tells whether all trees that a record names are stored.
func (s *Solver) hasTrees(rec *record.Record) bool {
	for _, o := range rec.Outputs {
		for _, ref := range o.Layers {
			if !s.opt.Records.HasTree(ref.Tree) {
				return false
			}
		}
	}
	return true
}

// keepLayer stores the tree of an observed layer under a record of its own, which it gives, unless a layer of the same identity is stored: then that one, with its
// mtimes, is adopted (DESIGN section 3).
func (s *Solver) keepLayer(ctx context.Context, op *pb.FileOp, l *layer.Layer) (*record.Record, error) {
	k := layerKey(l.Identity, op)
	if rec, ok := s.opt.Records.Get(k); ok && len(rec.Outputs) == 1 && len(rec.Outputs[0].Layers) == 1 {
		if s.hasTrees(rec) {
			return rec, nil
		}
		if err := s.opt.Records.Delete(k); err != nil {
			return nil, err
		}
	}
	root, err := l.Tree(ctx)
	if err != nil {
		return nil, err
	}
	blob, err := s.opt.Records.PutTree(root)
	if err != nil {
		return nil, err
	}
	ref := record.Layer{Identity: l.Identity, Tree: blob}
	return s.opt.Records.Put(&record.Record{Key: k, Created: now(), Outputs: []record.Output{{Base: -1, Layers: []record.Layer{ref}}}})
}

// fileLayer makes a layer whose tree is stored. again does the operation that made it, for its contents, and for its tree
// where the stored one turns out to be gone or damaged: then its records go too, so that the next build stores new ones.
func (s *Solver) fileLayer(exact key.Digest, op *pb.FileOp, ref record.Layer, again func(context.Context) (*layer.Layer, error)) *layer.Layer {
	return layer.Lazy(ref.Identity, false, againSource(again), func(ctx context.Context) (*tree.Node, error) {
		root, err := s.opt.Records.Tree(ref.Tree)
		if err == nil {
			return root, nil
		}
		for _, k := range []key.Digest{exact, layerKey(ref.Identity, op)} {
			if err := s.opt.Records.Delete(k); err != nil {
				return nil, err
			}
		}
		l, err := again(ctx)
		if err != nil {
			return nil, err
		}
		return l.Tree(ctx)
	})
}

// recallFiles makes the outputs of a file operation from its record. An exact key promises the same inputs, so the operation
// can be done again when its contents are needed.
func (s *Solver) recallFiles(rec *record.Record, op *pb.FileOp, inputs []*layer.State) ([]*layer.State, error) {
	r := &replay{files: s.opt.Files, op: op, inputs: inputs}
	return s.restack(rec, inputs, func(output, n int, ref record.Layer) (*layer.Layer, error) {
		return s.fileLayer(rec.Key, op, ref, func(ctx context.Context) (*layer.Layer, error) {
			res, err := r.result(ctx)
			if err != nil {
				return nil, err
			}
			return made(res, output, n, ref)
		}), nil
	})
}

// exec does a RUN step.
func (s *Solver) exec(ctx context.Context, n *node, op *pb.ExecOp, line *progress.Vertex, inputs []*layer.State) ([]*layer.State, error) {
	k, err := execKey(ctx, op, n.op.Platform, inputs)
	if err != nil {
		line.Done(err)
		return nil, err
	}
	if out, ok := s.recallExec(ctx, n, k, line, inputs, false); ok {
		return out, nil
	}
	// Whoever holds the lock runs the step; the others find its record afterwards.
	unlock, err := s.opt.Records.Lock(ctx, k)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if out, ok := s.recallExec(ctx, n, k, line, inputs, true); ok {
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
	return s.restack(rec, inputs, func(_, _ int, ref record.Layer) (*layer.Layer, error) {
		if l, ok := made[ref.Identity]; ok {
			return l, nil
		}
		if l, ok := s.opt.Layers.Layer(ctx, ref.Identity); ok {
			return l, nil
		}
		return nil, fmt.Errorf("layer %s was removed while the build ran", ref.Identity)
	})
}

// recallExec makes the outputs of a RUN step from its record, if it has one whose layers are all here. Who holds the key's
// lock forgets a record that is no use, so that the one to come is the first.
func (s *Solver) recallExec(ctx context.Context, n *node, k key.Digest, line *progress.Vertex, inputs []*layer.State, locked bool) ([]*layer.State, bool) {
	if n.ignoreCache {
		return nil, false
	}
	rec, ok := s.opt.Records.Get(k)
	if !ok {
		return nil, false
	}
	out, err := s.restack(rec, inputs, func(_, _ int, ref record.Layer) (*layer.Layer, error) {
		l, ok := s.opt.Layers.Layer(ctx, ref.Identity)
		if !ok {
			return nil, errGone
		}
		return l, nil
	})
	if err != nil {
		if !locked {
			return nil, false
		}
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

package solve

import (
	"context"
	"errors"

	"github.com/moby/buildkit/solver/pb"

	"larder/internal/fileop"
	"larder/internal/key"
	"larder/internal/layer"
	"larder/internal/record"
	"larder/internal/report"
	"larder/internal/tree"
)

// maxResolution bounds the destination resolutions that are kept, in bytes: one that says more costs more to carry than the
// trees that it stands for.
const maxResolution = 32 << 10

// files does file operations: algebra on trees (DESIGN idea 2). The exact key only spares reading the trees; what comes out
// is the same either way.
func (s *Solver) files(ctx context.Context, j job, op *pb.FileOp) ([]*layer.State, error) {
	k := fileKey(op, j.inputs)
	if !j.ignoreCache {
		if rec, ok := s.opt.Records.Get(ctx, k); ok && (rec.From != "" || s.hasTrees(ctx, rec)) {
			if out, err := s.recallFiles(ctx, rec, j, op); err == nil {
				s.accountFiles(ctx, j, report.Exact, rec, out)
				j.line.Cached()
				return out, nil
			}
		}
	}
	j.line.Start()
	out, err := s.applyFiles(ctx, k, j, op)
	j.done(err)
	if err != nil && ctx.Err() == nil {
		s.accountFailed(j, report.File)
	}
	return out, err
}

func (s *Solver) applyFiles(ctx context.Context, k key.Digest, j job, op *pb.FileOp) ([]*layer.State, error) {
	res, err := s.resolve(ctx, op, j.inputs, j.ignoreCache)
	if err != nil {
		return nil, err
	}
	rec := &record.Record{Key: k, Name: j.label, With: []key.Digest{resolutionKey(op, j.inputs)}}
	began, how := now(), report.Content // what comes out was there already
	for _, o := range res.Outputs {
		out := record.Output{Base: o.Base}
		for _, l := range o.Layers {
			kept, err := s.keepLayer(ctx, op, l)
			if err != nil {
				return nil, err
			}
			rec.With = append(rec.With, kept.Key)
			// An operation that made what was there already leaves the image as it was, its times included.
			if kept.Created.After(rec.Created) {
				rec.Created = kept.Created
			}
			if !kept.Created.Before(began) {
				how = report.Ran
			}
			out.Layers = append(out.Layers, kept.Outputs[0].Layers[0])
		}
		rec.Outputs = append(rec.Outputs, out)
	}
	put := s.opt.Records.Put
	if j.ignoreCache {
		put = s.opt.Records.Replace
	}
	first, err := put(ctx, rec)
	if err == nil && !s.hasTrees(ctx, first) {
		first, err = s.opt.Records.Replace(ctx, rec) // what was there before was no use
	}
	if err != nil {
		return nil, err
	}
	out, err := s.restack(first, j, func(output, n int, ref record.Layer) (*layer.Layer, error) {
		return s.fileLayer(first, op, ref, false, func(context.Context) (*layer.Layer, error) {
			return made(res, output, n, ref)
		}), nil
	})
	if err == nil {
		s.accountFiles(ctx, j, how, first, out)
	}
	return out, err
}

// resolve does an operation. Where a file system that it writes to is not on this machine, what an earlier run saw of it is
// asked first: the base image need not be fetched to find out what a COPY makes of it (DESIGN section 3).
// With anew, nothing is asked, and what comes out takes the place of what is there.
func (s *Solver) resolve(ctx context.Context, op *pb.FileOp, inputs []*layer.State, anew bool) (*fileop.Result, error) {
	k := resolutionKey(op, inputs)
	if anew {
		if err := s.opt.Records.Delete(ctx, k); err != nil {
			return nil, err
		}
	}
	rec, known := s.opt.Records.Get(ctx, k)
	var old *fileop.Resolution
	if known {
		old = new(fileop.Resolution)
		if old.UnmarshalBinary(rec.Data) != nil {
			old = nil
		}
	}
	if old != nil && !s.here(destinations(op, inputs)) {
		res, err := s.opt.Files.Replay(ctx, op, inputs, old)
		if err == nil {
			s.used(rec, nil, false)
		}
		if err == nil || !errors.Is(err, fileop.ErrUnresolved) {
			return res, err
		}
	}
	res, err := s.opt.Files.Apply(ctx, op, inputs)
	if err != nil {
		return nil, err
	}
	return res, s.keepResolution(ctx, k, rec, old, res.Resolution)
}

// keepResolution stores what an operation saw, beside what earlier ones saw of the same file systems.
func (s *Solver) keepResolution(ctx context.Context, k key.Digest, rec *record.Record, old, seen *fileop.Resolution) error {
	put := s.opt.Records.Put
	if rec != nil {
		put = s.opt.Records.Replace
	}
	if old != nil {
		all := old.Union(seen)
		if all.Digest() == old.Digest() {
			s.used(rec, nil, false)
			return nil
		}
		seen = all
	}
	data, err := seen.MarshalBinary()
	if err != nil || len(data) > maxResolution {
		return err
	}
	rec, err = put(ctx, &record.Record{Key: k, Created: now(), Data: data})
	if err == nil {
		s.used(rec, nil, false)
	}
	return err
}

// here tells whether the trees of states can be had without a registry.
func (s *Solver) here(states []*layer.State) bool {
	for _, st := range states {
		for ; st != nil; st = st.Parent() {
			if l := st.Top(); l.Pinned && !s.opt.Layers.Has(l.Identity) {
				return false
			}
		}
	}
	return true
}

// hasTrees tells whether all trees that a record names can be had.
func (s *Solver) hasTrees(ctx context.Context, rec *record.Record) bool {
	for _, o := range rec.Outputs {
		for _, ref := range o.Layers {
			if !s.opt.Records.HasTree(ctx, ref.Tree) {
				return false
			}
		}
	}
	return true
}

// keepLayer stores the tree of an observed layer under a record of its own, which it gives, unless a layer of the same
// identity is stored: then that one, with its mtimes, is adopted (DESIGN section 3).
func (s *Solver) keepLayer(ctx context.Context, op *pb.FileOp, l *layer.Layer) (*record.Record, error) {
	k := layerKey(l.Identity, op)
	if rec, ok := s.opt.Records.Get(ctx, k); ok {
		ref, ok := rec.OnlyLayer()
		if ok && ref.Identity == l.Identity && (rec.From != "" || s.hasTrees(ctx, rec)) { // fileLayer mends what a remote cache does not have
			s.used(rec, nil, false)
			return rec, nil
		}
		if err := s.opt.Records.Delete(ctx, k); err != nil {
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
	rec, err := s.opt.Records.Put(ctx, &record.Record{Key: k, Created: now(), Outputs: record.OnlyLayer(ref)})
	if err == nil {
		s.used(rec, nil, false)
	}
	return rec, err
}

// fileLayer makes a layer whose tree is stored. again does the operation that made it, for its contents, and for its tree
// where the stored one turns out to be gone or damaged: then new records take the place of those that named it.
// foreign says that what it is copied from is not on this machine: a copy of what was copied is smaller than the layers that it was
// copied from.
func (s *Solver) fileLayer(rec *record.Record, op *pb.FileOp, ref record.Layer, foreign bool, again func(context.Context) (*layer.Layer, error)) *layer.Layer {
	var contents layer.Source = againSource(again)
	if foreign {
		if copied := s.opt.Layers.Copy(ref); copied != nil {
			contents = either{copied, contents}
		}
	}
	return layer.Lazy(ref.Identity, false, contents, func(ctx context.Context) (*tree.Node, error) {
		root, err := s.opt.Records.Tree(ctx, ref.Tree)
		if err == nil {
			if id, err := root.Identity(); err == nil && id == ref.Identity {
				return root, nil
			}
		}
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		l, err := again(ctx)
		if err != nil {
			return nil, err
		}
		if root, err = l.Tree(ctx); err != nil {
			return nil, err
		}
		return root, s.mend(ctx, rec, op, ref, root)
	})
}

// recallFiles makes the outputs of a file operation from its record. An exact key promises the same inputs, so the operation
// can be done again when its contents are needed.
func (s *Solver) recallFiles(ctx context.Context, rec *record.Record, j job, op *pb.FileOp) ([]*layer.State, error) {
	r := &replay{s: s, op: op, inputs: j.inputs}
	foreign := !s.here(origins(op, j.inputs))
	return s.restack(rec, j, func(output, n int, ref record.Layer) (*layer.Layer, error) {
		return s.fileLayer(rec, op, ref, foreign, func(ctx context.Context) (*layer.Layer, error) {
			res, err := r.result(ctx)
			if err != nil {
				return nil, err
			}
			l, err := made(res, output, n, ref)
			if err != nil { // the vertex goes back, see rewind.go, and must not find the record again
				err = errors.Join(err, s.opt.Records.Delete(ctx, rec.Key))
			}
			return l, err
		}), nil
	})
}

// mend stores a tree that was lost, and records that name it.
func (s *Solver) mend(ctx context.Context, rec *record.Record, op *pb.FileOp, ref record.Layer, root *tree.Node) error {
	blob, err := s.opt.Records.PutTree(root)
	if err != nil || blob == ref.Tree {
		return err
	}
	right := func(old record.Layer) record.Layer {
		if old.Identity == ref.Identity {
			old.Tree = blob
		}
		return old
	}
	one := &record.Record{Key: layerKey(ref.Identity, op), Created: rec.Created, Outputs: record.OnlyLayer(right(ref))}
	whole := *rec
	whole.From, whole.Outputs = "", nil
	for _, o := range rec.Outputs {
		out := record.Output{Base: o.Base}
		for _, l := range o.Layers {
			out.Layers = append(out.Layers, right(l))
		}
		whole.Outputs = append(whole.Outputs, out)
	}
	for _, r := range []*record.Record{one, &whole} {
		if r, err = s.opt.Records.Replace(ctx, r); err != nil {
			return err
		}
		s.used(r, nil, false)
	}
	return nil
}

package solve

import (
	"context"
	"errors"
	"fmt"

	"github.com/moby/buildkit/solver/pb"

	"larder/internal/key"
	"larder/internal/layer"
	"larder/internal/observation"
	"larder/internal/record"
	"larder/internal/report"
	"larder/internal/runstep"
	"larder/internal/tree"
)

// maxLooks bounds a path set. What looked at more depends on whole directories.
const maxLooks = 2000

// seeing is a RUN step with what it can look at (DESIGN section 3).
type seeing struct {
	key    key.Digest // of its recipe and all inputs but what is observed
	inputs []runstep.Input
	parts  []*tree.Node // what is observed, as it is today
}

// see finds out what a step can look at. Nil without an error means that none of it is observed, or that it cannot be told without running
// the step.
func (s *Solver) see(ctx context.Context, j job, op *pb.ExecOp) (*seeing, error) {
	if s.opt.NoObserve {
		return nil, nil
	}
	inputs, err := runstep.Inputs(ctx, op, j.inputs)
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if err != nil {
		return nil, nil // whoever runs the step will say it
	}
	v := &seeing{inputs: inputs}
	for _, g := range runstep.Observed(inputs) {
		v.parts = append(v.parts, g.Root)
	}
	if len(v.parts) == 0 {
		return v, nil
	}
	h := key.New("larder.run.observed.v1")
	if err := recipe(h, op, j.op.Platform); err != nil {
		return nil, err
	}
	shown := map[int]runstep.Input{}
	for _, in := range inputs {
		shown[in.Mount] = in
	}
	for i, m := range op.Mounts {
		if m.Input < 0 {
			continue
		}
		in, ok := shown[i]
		if !ok || selected(m) && !(in.Part && in.Groups[0].Observed) { // a cache mount that begins with an input, a part of a base image
			h.Str("pinned")
			if err := s.input(ctx, h, m, j.inputs[m.Input]); err != nil {
				return nil, err
			}
			continue
		}
		h.Str("groups").Uint(uint64(len(in.Groups))).Str(in.File)
		for _, g := range in.Groups {
			if g.Observed {
				h.Str("observed")
			} else {
				h.Str("pinned").Digests(layer.Stack(g.Layers...).Identities())
			}
		}
	}
	v.key = h.Sum()
	return v, nil
}

// pathSetKey is where a path set is kept.
func pathSetKey(set key.Digest) key.Digest { return key.New("larder.pathset.v1").Digest(set).Sum() }

// recallObserved makes the outputs of a RUN step from the record of a run that would have seen today what it saw then.
func (s *Solver) recallObserved(ctx context.Context, j job, k key.Digest, v *seeing, op *pb.ExecOp, step *report.Step, locked bool) ([]*layer.State, bool, error) {
	if j.ignoreCache || v == nil || len(v.parts) == 0 {
		return nil, false, nil
	}
	var lists [][]key.Digest
	for _, rec := range s.opt.Records.All(ctx, v.key) {
		if list, err := observation.UnmarshalList(rec.Hint); err == nil {
			lists = append(lists, list)
		}
	}
	for _, d := range observation.Union(lists...) {
		rec, ok := s.opt.Records.Get(ctx, pathSetKey(d))
		if !ok {
			continue
		}
		var set observation.Set
		if set.UnmarshalBinary(rec.Hint) != nil || set.Digest() != d || len(set.Parts) != len(v.parts) {
			continue
		}
		found, err := set.Key(v.key, v.parts)
		if err != nil {
			return nil, false, nil // a tree that is gone: running the step will show
		}
		out, ok, err := s.recallExec(ctx, j, found, op, step, locked)
		if err != nil || !ok {
			if err != nil {
				return nil, false, err
			}
			continue
		}
		s.used(rec, nil, false)
		step.How = report.Observed
		if err := errors.Join(fill(step, set, v.parts), s.list(ctx, v, d, rec)); err != nil {
			j.line.Note("what was of use is not noted: " + err.Error())
		}
		return out, true, s.derive(ctx, j, k, found)
	}
	return nil, false, nil
}

// derive keeps what was found under another key under the exact one as well, so that the next look-up reads no trees.
func (s *Solver) derive(ctx context.Context, j job, k, found key.Digest) error {
	rec, ok := s.opt.Records.Get(ctx, found)
	if !ok {
		return nil
	}
	exact := *rec
	exact.Key, exact.With = k, []key.Digest{found}
	kept, err := s.put(ctx, j, &exact)
	if err != nil {
		return fmt.Errorf("keep a record: %w", err)
	}
	_, err = s.restack(kept, j, s.findLayer(ctx))
	if errors.Is(err, errGone) {
		return nil // somebody else's, and no use
	}
	return err
}

// looked is what a step that ran looked at, as it is recorded.
type looked struct {
	set   observation.Set
	found key.Digest // where the next step that would see the same looks for what this one made
}

// reduce makes a path set of what a step looked at; nil where it was not observed.
func (v *seeing) reduce(looks []runstep.Looks) (_ *looked, err error) {
	if v == nil || len(v.parts) == 0 || len(looks) != len(v.parts) {
		return nil, nil
	}
	l := &looked{set: observation.Set{Parts: make([][]observation.Look, len(looks))}}
	for i, part := range looks {
		if l.set.Parts[i], err = observation.Reduce(part.Looks, v.parts[i], maxLooks); err != nil {
			return nil, err
		}
	}
	l.found, err = l.set.Key(v.key, v.parts)
	return l, err
}

// keepObserved records what a step made under what it looked at. rec is its exact record.
func (s *Solver) keepObserved(ctx context.Context, j job, rec *record.Record, v *seeing, l *looked) error {
	data, err := l.set.MarshalBinary()
	if err != nil {
		return err
	}
	d := l.set.Digest()
	set := &record.Record{Key: pathSetKey(d), Created: rec.Created, Hint: data}
	if set, err = s.opt.Records.PutHint(ctx, set, false); err != nil {
		return err
	}
	if err := s.list(ctx, v, d, set); err != nil {
		return err
	}
	seen := *rec
	seen.Key, seen.With = l.found, []key.Digest{v.key, pathSetKey(d)}
	kept, err := s.put(ctx, j, &seen)
	if err != nil {
		return err
	}
	s.used(set, nil, false)
	s.used(kept, nil, false)
	return nil
}

// list notes that a path set, which has a record, was of use for a recipe.
func (s *Solver) list(ctx context.Context, v *seeing, d key.Digest, set *record.Record) error {
	rec, err := s.opt.Records.PutHint(ctx, &record.Record{
		Key: v.key, Created: set.Created, Hint: observation.MarshalList([]key.Digest{d}), From: set.From,
	}, true)
	if err == nil {
		s.used(rec, nil, false)
	}
	return err
}

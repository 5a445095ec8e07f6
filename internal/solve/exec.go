package solve

import (
	"context"
	"fmt"
	"reflect"
	"time"

	"github.com/containerd/platforms"
	"github.com/moby/buildkit/solver/pb"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"larder/internal/key"
	"larder/internal/layer"
	"larder/internal/record"
	"larder/internal/report"
	"larder/internal/runstep"
)

// exec does a RUN step.
func (s *Solver) exec(ctx context.Context, j job, op *pb.ExecOp) (out []*layer.State, err error) {
	step := s.accountExec(j, op, nil)
	defer func() {
		if ctx.Err() == nil && step.How != "" { // else nobody wanted it any more
			s.account(j, step)
		}
	}()
	k, err := s.execKey(ctx, op, j.op.Platform, j.inputs)
	if err != nil {
		j.done(err)
		return nil, err
	}
	if out, ok, err := s.recallExec(ctx, j, k, op, step, false); ok || err != nil {
		return out, err
	}
	v, err := s.see(ctx, j, op)
	if err != nil {
		j.done(err)
		return nil, err
	}
	expired := step.Why
	step = s.accountExec(j, op, v)
	step.Why = expired
	if out, ok, err := s.recallObserved(ctx, j, k, v, op, step, false); ok || err != nil {
		return out, err
	}
	// Whoever holds the lock runs the step; the others find its record afterwards.
	unlock, err := s.opt.Records.Lock(ctx, k)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if out, ok, err := s.recallExec(ctx, j, k, op, step, true); ok || err != nil {
		return out, err
	}
	if out, ok, err := s.recallObserved(ctx, j, k, v, op, step, true); ok || err != nil {
		return out, err
	}
	if err := s.slot(ctx); err != nil {
		return nil, err
	}
	defer s.release()
	j.line.Start()
	s.why(ctx, j, step)
	tell(j, step)
	out, err = s.runExec(ctx, j, k, v, op, step)
	j.done(err)
	if err != nil {
		step.How = report.Failed
	}
	return out, err
}

// slot waits until one more RUN step may run.
func (s *Solver) slot(ctx context.Context) error {
	if s.slots == nil {
		return nil
	}
	return s.slots.Acquire(ctx, 1)
}

func (s *Solver) release() {
	if s.slots != nil {
		s.slots.Release(1)
	}
}

// run runs the command of a RUN step.
func (s *Solver) run(ctx context.Context, j job, op *pb.ExecOp) (*runstep.Result, error) {
	return s.opt.Runner.Run(ctx, runstep.Step{
		Op: op, Inputs: j.inputs, Platform: PlatformName(j.op.Platform), Caches: s.opt.Caches, Secrets: s.opt.Secrets,
		Stdout: j.line.Log(1), Stderr: j.line.Log(2),
	})
}

// PlatformName gives a step's platform as text, "linux/arm64/v8"; empty where it says none.
func PlatformName(p *pb.Platform) string {
	if p == nil {
		return ""
	}
	return platforms.FormatAll(platforms.Normalize(ocispecs.Platform{
		OS: p.OS, Architecture: p.Architecture, Variant: p.Variant, OSVersion: p.OSVersion, OSFeatures: p.OSFeatures,
	}))
}

func (s *Solver) runExec(ctx context.Context, j job, k key.Digest, v *seeing, op *pb.ExecOp, step *report.Step) ([]*layer.State, error) {
	started := time.Now()
	res, err := s.run(ctx, j, op)
	step.Took = time.Since(started).Round(time.Millisecond)
	if err != nil {
		return nil, err
	}
	s.count(j, false)
	step.How, step.Made, step.Not = report.Ran, now(), res.Unobserved
	s.blind(j, res.Unobserved)
	rec := &record.Record{Key: k, Name: j.label, Created: step.Made, Duration: step.Took}
	made := map[key.Digest]*layer.Layer{}
	for _, o := range res.Outputs {
		out := record.Output{Base: o.Base}
		for _, l := range o.Layers {
			made[l.Identity] = s.opt.Layers.Adopt(ctx, l)
			out.Layers = append(out.Layers, record.Layer{Identity: l.Identity, Pinned: true})
		}
		rec.Outputs = append(rec.Outputs, out)
	}
	looked, err := v.reduce(res.Looks)
	if err != nil {
		return nil, err
	}
	if looked != nil {
		rec.With = []key.Digest{looked.found}
		if err := fill(step, looked.set, v.parts); err != nil {
			return nil, err
		}
	}
	own := rec.Outputs
	if rec, err = s.put(ctx, j, rec); err != nil {
		return nil, err
	}
	// What somebody else made of the same inputs may come from other looks than these.
	if looked != nil && reflect.DeepEqual(own, rec.Outputs) {
		if err := s.keepObserved(ctx, j, rec, v, looked); err != nil {
			j.line.Note("what it looked at is not kept: " + err.Error())
		}
	}
	return s.restack(rec, j, func(_, _ int, ref record.Layer) (*layer.Layer, error) {
		if l, ok := made[ref.Identity]; ok {
			return l, nil
		}
		if l, ok := s.opt.Layers.Layer(ctx, ref); ok {
			return l, nil
		}
		return nil, fmt.Errorf("layer %s was removed while the build ran", ref.Identity)
	})
}

// put keeps the record of a step that ran, in the place of what is there where the user wants this result, now and from now on.
func (s *Solver) put(ctx context.Context, j job, rec *record.Record) (*record.Record, error) {
	if j.ignoreCache || s.maxAge(j) > 0 {
		return s.opt.Records.Replace(ctx, rec)
	}
	return s.opt.Records.Put(ctx, rec)
}

// maxAge is the age from which on a step's result is made anew; 0 for never.
func (s *Solver) maxAge(j job) time.Duration {
	if s.opt.Refresh == nil {
		return 0
	}
	return s.opt.Refresh(j.name)
}

// recallExec makes the outputs of a RUN step from its record, if it has one whose layers can be had. Who holds the key's lock
// forgets a record that is no use, so that the one to come is the first.
func (s *Solver) recallExec(ctx context.Context, j job, k key.Digest, op *pb.ExecOp, step *report.Step, locked bool) ([]*layer.State, bool, error) {
	if j.ignoreCache {
		return nil, false, nil
	}
	rec, ok := s.opt.Records.Get(ctx, k)
	if !ok {
		return nil, false, nil
	}
	if age := s.maxAge(j); age > 0 && time.Since(rec.Created) > age {
		step.Why = report.ToldBy("--refresh")
		return nil, false, nil
	}
	out, err := s.restack(rec, j, s.findLayer(ctx))
	if err != nil {
		if !locked {
			return nil, false, nil
		}
		if err := s.opt.Records.Delete(ctx, k); err != nil {
			j.line.Note("forget a record whose layers are gone: " + err.Error())
		}
		return nil, false, nil
	}
	if s.opt.Verify {
		if err := s.verify(ctx, j, op, rec, out); err != nil {
			return nil, false, err
		}
	}
	s.count(j, true)
	j.line.Cached()
	step.How, step.From, step.Made, step.Took, step.Why = report.Exact, s.origin(rec), rec.Created, rec.Duration, nil
	return out, true, nil
}

// blind says once in a build that the inputs of steps are not observed, where this machine is why.
func (s *Solver) blind(j job, why string) {
	if why == "" || s.opt.NoObserve {
		return
	}
	s.stats.Lock()
	said := s.said
	s.said = true
	s.stats.Unlock()
	if !said {
		j.line.Note("inputs are not observed, so any change of them counts: " + why)
	}
}

// findLayer finds the layers that a record names.
func (s *Solver) findLayer(ctx context.Context) func(output, n int, ref record.Layer) (*layer.Layer, error) {
	return func(_, _ int, ref record.Layer) (*layer.Layer, error) {
		if l, ok := s.opt.Layers.Layer(ctx, ref); ok {
			return l, nil
		}
		return nil, errGone
	}
}

// count notes what became of a step: one that was taken back and ran after all was not spared.
func (s *Solver) count(j job, cached bool) {
	s.stats.Lock()
	defer s.stats.Unlock()
	if cached {
		s.cached[j.digest] = true
	} else {
		s.ran[j.digest] = true
	}
}

// now is the time that records and, through them, images carry.
func now() time.Time { return time.Now().UTC().Truncate(time.Second) }

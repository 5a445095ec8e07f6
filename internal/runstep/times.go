package runstep

import (
	"context"
	"time"

	"github.com/moby/buildkit/solver/pb"

	"larder/internal/key"
	"larder/internal/layer"
	"larder/internal/ledger"
	"larder/internal/tree"
)

// maxWait bounds how long a step waits for the clock to pass the times that it is shown. They are ahead of it by a second or so;
// what is further ahead comes from another machine's clock.
const maxWait = 2 * time.Second

// date finds out which files the step has to be shown with other times than their layers have, and notes in its cache mounts what it is
// shown (DESIGN section 3, Times). Steps without cache mounts have nothing to compare times with.
func (p *prepared) date(ctx context.Context) error {
	if len(p.caches) == 0 {
		return nil
	}
	observed := map[string]*tree.Node{}
	shows := map[string]*layer.State{}
	for i, m := range p.step.Op.Mounts {
		if m.MountType != pb.MountType_BIND || m.Input < 0 || m.Input >= int64(len(p.step.Inputs)) {
			continue
		}
		state := p.step.Inputs[m.Input]
		if state == nil {
			continue
		}
		// What counts is what the directories of layers show, whatever else is known of them; those that are observed are shown by their trees.
		state, err := p.r.snapshots.Timed(ctx, state, p.observed(i))
		if err != nil {
			return err
		}
		root, err := state.Observed(ctx)
		if err != nil {
			return err
		}
		dest := p.dest(m)
		observed[dest], shows[dest] = root, state
	}
	parts, err := ledger.Parts(observed)
	if err != nil {
		return err
	}
	look := ledger.Look{By: looker(p.step.Op), Now: time.Now()}
	for _, c := range p.caches {
		past, err := c.Past()
		switch {
		case err != nil: // who knows what was made of what
			look.Ledgers, look.Newest = append(look.Ledgers, nil), look.Now.UnixNano()
		case past.Newest != 0:
			look.Ledgers, look.Newest = append(look.Ledgers, past.Ledger), max(look.Newest, past.Newest)
		}
	}
	shown, err := ledger.Show(parts, look)
	if err != nil {
		return err
	}
	for _, c := range p.caches {
		if err := c.Show(ctx, shown, look.By); err != nil {
			return err
		}
	}
	p.over = map[string]*tree.Node{}
	for dest, state := range shows {
		part, err := ledger.Part(shown, dest)
		if err != nil {
			return err
		}
		merged, err := state.Merged(ctx)
		if err != nil {
			return err
		}
		if p.over[dest], err = ledger.Over(part, merged); err != nil {
			return err
		}
	}
	return p.await(ctx, shown)
}

// looker names a step to ledgers, the same in builds that differ in arguments, versions or a proxy's address.
func looker(op *pb.ExecOp) key.Digest {
	h := key.New("larder.look.v2").Str(op.Meta.Cwd).Strs(op.Meta.Args).Uint(uint64(len(op.Mounts)))
	for _, m := range op.Mounts {
		h.Str(m.Dest)
	}
	return h.Sum()
}

// await waits until what is shown lies in the past, but for what is far from it: what the step makes of it is to be newer.
func (p *prepared) await(ctx context.Context, shown *tree.Node) error {
	latest, err := ledger.Latest(shown, time.Now().Add(maxWait))
	if err != nil {
		return err
	}
	wait := time.Until(time.Unix(0, latest))
	if wait <= 0 {
		return nil
	}
	t := time.NewTimer(wait)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

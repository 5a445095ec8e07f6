package catalog

import (
	"context"
	"math/rand/v2"
	"time"
)

// pace measures how long a store takes for a request, and waits in multiples of that: what another writer may have under way is
// over after so many.
type pace struct {
	recent [6]time.Duration
	n      int
	yields int
}

const (
	minTrip = time.Millisecond
	maxTrip = 200 * time.Millisecond // so that one slow request does not make the waiting endless
)

func (p *pace) took(d time.Duration) {
	p.recent[p.n%len(p.recent)] = d
	p.n++
}

// trip is the slowest of the last few requests.
func (p *pace) trip() time.Duration {
	slowest := minTrip
	for _, d := range p.recent {
		slowest = max(slowest, d)
	}
	return min(slowest, maxTrip)
}

// breathe waits until a write that began before ours, without knowing of it, must have arrived.
func (p *pace) breathe(ctx context.Context) error { return p.wait(ctx, 2, 3) }

// settle waits for all writers that were under way, the slow ones too.
func (p *pace) settle(ctx context.Context) error { return p.wait(ctx, 10, 20) }

// yield waits after a lost race, longer each time, so that writers spread.
func (p *pace) yield(ctx context.Context) error {
	p.yields = min(p.yields+1, 5)
	return p.wait(ctx, 0, float64(int(1)<<p.yields))
}

// wait waits for a random time between two multiples of a trip.
func (p *pace) wait(ctx context.Context, least, most float64) error {
	t := time.NewTimer(time.Duration(float64(p.trip()) * (least + rand.Float64()*(most-least))))
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

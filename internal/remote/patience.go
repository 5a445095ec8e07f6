package remote

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"larder/internal/fault"
)

const (
	firstPause = 500 * time.Millisecond // doubles each time, and is up to a quarter longer
	longPause  = 15 * time.Second       // the longest, unless the store asks for more
	maxDamage  = 2                      // how often damaged bytes are fetched again: a proxy that spoils them will go on doing so
)

var errSilent = errors.New("no answer")

// silence is the failure of a request that was not answered in time.
type silence struct {
	store    string
	patience time.Duration
}

func (s *silence) Error() string { return fmt.Sprintf("%s: no answer within %v", s.store, s.patience) }
func (s *silence) Unwrap() error { return errSilent }

// down is why a store is not asked any more.
type down struct {
	store string
	err   error
}

func (d *down) Error() string   { return fmt.Sprintf("%s counts as down: %v", d.store, d.err) }
func (d *down) Unwrap() []error { return []error{ErrDown, d.err} }

// side is what is known about the reads, or the writes, of a store.
type side struct {
	patience time.Duration

	mu   sync.Mutex
	last time.Time // when one went well
	down error
}

func (s *side) well(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last = now
}

// why gives the reason for which the side is down, nil while it is not.
func (s *side) why() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.down
}

// giveUp declares the side down unless something went well since a moment. It gives the error to return.
func (s *side) giveUp(store string, err error, since time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.last.After(since) {
		return err
	}
	if s.down == nil {
		s.down = fault.New(fault.Registry, &down{store: store, err: err})
	}
	return s.down
}

// episode is the trouble of one operation.
type episode struct {
	r       *retrying
	s       *side
	first   time.Time // of its failures, zero before
	tries   int
	damaged int
}

func (r *retrying) begin(s *side) *episode { return &episode{r: r, s: s} }

// wait comes back after a pause where the operation should be tried again, and with the error to return where not.
func (e *episode) wait(ctx context.Context, err error) error {
	if ctx.Err() != nil || final(err) {
		return err
	}
	now := e.r.policy.Now()
	if e.first.IsZero() {
		e.first = now
	}
	pause := min(firstPause<<min(e.tries, 10), longPause)
	pause += rand.N(pause / 4)
	e.tries++
	if errors.Is(err, ErrDamaged) {
		if e.damaged++; e.damaged > maxDamage {
			return err
		}
	} else {
		var asks interface{ RetryAfter() time.Duration }
		if errors.As(err, &asks) {
			pause = max(pause, asks.RetryAfter())
		}
		patience := e.s.patience
		if e.s == &e.r.writes && e.r.reads.why() != nil {
			patience = 0
		}
		if errors.Is(err, errSilent) || now.Add(pause).Sub(e.first) > patience {
			return e.s.giveUp(e.r.Name(), err, e.first)
		}
	}
	e.r.policy.Sleep(ctx, pause)
	if ctx.Err() != nil {
		return err
	}
	return nil
}

// calm ends the trouble: there was progress.
func (e *episode) calm() { e.first, e.tries = time.Time{}, 0 }

// final tells what is as it is from what may pass.
func final(err error) bool {
	for _, is := range []error{ErrNotFound, ErrConflict, ErrDenied, ErrImmutable, ErrUnsupported, ErrFinal, ErrDown} {
		if errors.Is(err, is) {
			return true
		}
	}
	var missing *MissingError
	return errors.As(err, &missing)
}

package catalog

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"larder/internal/key"
	"larder/internal/remote"
)

// melee is writers that change one cache mount at the same moment, some of which are killed.
type melee struct {
	united  bool
	writers int
	kills   float64       // the share of writers that are killed
	after   time.Duration // at the latest
	seed    uint64
}

// fight lets the writers begin with a base of three segments, each with a client of its own. Whatever becomes of them, the row can be read, and all
// that it names is in the store. It gives how many survivors did not find their part there in the end.
func (f melee) fight(t *testing.T, client func() remote.Store, opt Options) (survivors, lost int) {
	t.Helper()
	x, k := texts{}, keyOf("mount m")
	store := client()
	var base Mount
	for _, thing := range []string{"base0", "base1", "base2"} {
		p := x.build("m", f.united, base.Segments, appends, thing)
		p.Mount.Builds = base.Builds + 1
		if err := x.stock(t.Context(), store, p); err != nil {
			t.Fatal(err)
		}
		if _, err := Save(t.Context(), store, mainScope, putting(p), opt); err != nil {
			t.Fatal(err)
		}
		base = f.find(t, store, k, opt)
	}
	r := rand.New(rand.NewPCG(f.seed, 1))
	var (
		wg   sync.WaitGroup
		mu   sync.Mutex
		held []MountPut // of survivors
		all  []MountPut
	)
	for i := range f.writers {
		mine := client()
		how := how(r.IntN(int(moves))) // each adds something
		p := x.build("m", f.united, base.Segments, how, fmt.Sprint("w", i))
		p.Mount.Builds = base.Builds + 1
		all = append(all, p)
		if err := x.stock(t.Context(), store, p); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		if r.Float64() < f.kills {
			time.AfterFunc(time.Duration(r.Int64N(int64(f.after))), cancel)
		}
		wg.Go(func() {
			_, err := Save(ctx, mine, mainScope, putting(p), opt)
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err == nil:
				held = append(held, p)
			case !errors.Is(err, context.Canceled):
				t.Errorf("seed %d: writer %d: %v", f.seed, i, err)
			}
		})
	}
	wg.Wait()
	got := f.find(t, store, k, opt)
	things, err := x.holds(got.Segments)
	if err != nil {
		t.Fatalf("seed %d: torn: %v", f.seed, err)
	}
	for d := range got.Blobs() {
		if ok, err := store.Has(t.Context(), d); err != nil || !ok {
			t.Errorf("seed %d: %s is not in the store, %v", f.seed, x[d.Digest], err)
		}
	}
	for i := range 3 {
		if !things[fmt.Sprint("base", i)] {
			t.Errorf("seed %d: the base is lost", f.seed)
		}
	}
	whole := sameRow(got.Segments, base.Segments)
	for _, p := range all {
		whole = whole || sameRow(got.Segments, p.Mount.Segments)
	}
	if !f.united && !whole {
		t.Errorf("seed %d: the row is nobody's", f.seed)
	}
	for _, p := range held {
		for i := range f.writers {
			thing := fmt.Sprint("w", i)
			if own, _ := x.holds(p.Mount.Segments); own[thing] && !things[thing] {
				lost++
			}
		}
	}
	if f.united {
		return len(held), lost
	}
	lost = 0
	if len(held) > 0 && sameRow(got.Segments, base.Segments) {
		lost = 1 // all of them were overwritten by somebody who knew none
	}
	return min(len(held), 1), lost
}

func (f melee) find(t *testing.T, store remote.Store, k key.Digest, opt Options) Mount {
	t.Helper()
	c, err := Load(t.Context(), store, mainScope, opt)
	if err != nil {
		t.Fatal(err)
	}
	m, ok := c.Mount(t.Context(), k)
	if !ok {
		t.Fatalf("seed %d: there is no row", f.seed)
	}
	return m
}

// TestMountWritersAtOnce is sixteen jobs that end at the same moment, a third of which are killed, in a store that cannot write
// conditionally and in one that can.
func TestMountWritersAtOnce(t *testing.T) { mountsAtOnce(t, 4) }

func TestSoakMountWritersAtOnce(t *testing.T) {
	if os.Getenv("LARDER_SOAK") == "" {
		mountsAtOnce(t, 1)
		return
	}
	mountsAtOnce(t, 200)
}

func mountsAtOnce(t *testing.T, seeds int) {
	for _, united := range []bool{true, false} {
		for _, conditional := range []bool{true, false} {
			survivors, lost, longest := 0, 0, time.Duration(0)
			for seed := range seeds {
				synctest.Test(t, func(t *testing.T) {
					m := newMemory("registry.example/app")
					m.conditional = conditional
					m.trip = jitter(uint64(seed), 20*time.Millisecond, 0)
					since := time.Now()
					s, l := melee{united, 16, 0.35, 400 * time.Millisecond, uint64(seed)}.fight(t, func() remote.Store { return m }, Options{})
					survivors, lost, longest = survivors+s, lost+l, max(longest, time.Since(since))
				})
			}
			t.Logf("united %v, conditional %v: %d of %d lost in %d runs; the longest took %s", united, conditional, lost, survivors, seeds, longest)
			if conditional && lost > 0 || lost*100 > survivors {
				t.Errorf("united %v, conditional %v: %d of %d lost", united, conditional, lost, survivors)
			}
		}
	}
}

// TestDistributionMountWriters does that with a real registry.
func TestDistributionMountWriters(t *testing.T) {
	t.Parallel()
	mountsInDistribution(t, 1, 2*time.Millisecond)
}

func TestSoakDistributionMountWriters(t *testing.T) {
	t.Parallel()
	if os.Getenv("LARDER_SOAK") == "" {
		mountsInDistribution(t, 1, 0)
		return
	}
	mountsInDistribution(t, 20, 2*time.Millisecond)
	mountsInDistribution(t, 5, 25*time.Millisecond)
}

func mountsInDistribution(t *testing.T, rounds int, latency time.Duration) {
	for _, united := range []bool{true, false} {
		t.Run(fmt.Sprintf("united %v, %s", united, latency), func(t *testing.T) {
			t.Parallel()
			survivors, lost := 0, 0
			for seed := range rounds {
				_, client := distribution(t, latency)
				// A machine that is busy with other tests makes every round trip longer.
				s, l := melee{united, 16, 0.35, 300 * time.Millisecond, uint64(seed)}.fight(t, client, Options{Limits: Limits{Patience: 2 * time.Minute}})
				survivors, lost = survivors+s, lost+l
			}
			t.Logf("%d of %d lost in %d runs", lost, survivors, rounds)
			if lost*100 > survivors {
				t.Errorf("%d of %d survivors lost their part", lost, survivors)
			}
		})
	}
}

// TestWholeRowsAreWrittenOnce: a writer whose row counts whole gives way to one that came later, and comes back where somebody wrote
// without having seen either.
func TestWholeRowsAreWrittenOnce(t *testing.T) {
	for name, c := range map[string]struct {
		over int // whose row stands there when the first writer looks again: 0 the base's, 1 a later writer's
		want string
	}{"the base": {0, "full mine"}, "a later writer's": {1, "full later"}} {
		bubble(t, func(t *testing.T) {
			x, k := texts{}, keyOf("mount m")
			m := newMemory("registry.example/app")
			m.trip = func(context.Context) { time.Sleep(10 * time.Millisecond) }
			var docs [][]byte
			for _, thing := range []string{"base", "later"} {
				p := x.build("m", false, nil, appends, thing)
				if err := x.stock(t.Context(), m, p); err != nil {
					t.Fatal(err)
				}
				mustSave(t, m, mainScope, putting(p), Options{})
				docs = append(docs, m.docs[mainScope.Tag])
			}
			m.docs[mainScope.Tag] = docs[0]
			mine := x.build("m", false, nil, appends, "mine")
			if err := x.stock(t.Context(), m, mine); err != nil {
				t.Fatal(err)
			}
			m.count()
			puts := 0
			m.fault = func(op, _ string) error {
				if op == "Manifest" && puts == 1 { // it looks whether it holds
					m.mu.Lock()
					m.docs[mainScope.Tag] = docs[c.over]
					m.mu.Unlock()
				}
				if op == "PutManifest" || op == "Manifest" && puts > 0 {
					puts++
				}
				return nil
			}
			mustSave(t, m, mainScope, putting(mine), Options{})
			got := mustLoad(t, m, mainScope, Options{})
			row, _ := got.Mount(t.Context(), k)
			if text := x[row.Segments[0].Blob.Digest]; text != c.want || len(row.Segments) != 1 {
				t.Errorf("over %s: %q", name, text)
			}
		})
	}
}

package catalog

import (
	"fmt"
	"os"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"larder/internal/key"
	"larder/internal/remote"
)

// TestMain makes the compressors, which tests share, before a test runs in a bubble of its own.
func TestMain(m *testing.M) {
	b, err := newPage("", time.Time{}, newState()).encode()
	if err == nil {
		_, err = decodeFirst(b)
	}
	if err == nil {
		_, err = decodeFurther(b)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// crowd lets writers save at the same moment, each records of its own, and says what became of them.
type crowd struct {
	writers, found, records, wrong int
	attempts, most                 int
	elapsed                        time.Duration
}

func (c crowd) String() string {
	return fmt.Sprintf("%d writers: %d of %d records found, %d wrong, %.1f attempts each (most: %d), %s", c.writers, c.found, c.records, c.wrong,
		float64(c.attempts)/float64(c.writers), c.most, c.elapsed.Round(time.Millisecond))
}

// gather lets each writer have a client of its own, as jobs on different machines do.
func gather(t *testing.T, client func() remote.Store, name Name, writers, each int, opt Options) crowd {
	t.Helper()
	c := crowd{writers: writers}
	var (
		wg sync.WaitGroup
		mu sync.Mutex
	)
	store := client()
	if m, ok := store.(*memory); ok {
		for i := range writers {
			m.stocked(fmt.Sprint("w", i), "x", each)
		}
	}
	since := time.Now()
	for i := range writers {
		mine := client()
		wg.Go(func() {
			saved, err := Save(t.Context(), mine, name, steps(fmt.Sprint("w", i), "x", each), opt)
			if err != nil {
				t.Errorf("writer %d: %v", i, err)
			}
			mu.Lock()
			defer mu.Unlock()
			c.attempts += saved.Attempts
			c.most = max(c.most, saved.Attempts)
		})
	}
	wg.Wait()
	c.elapsed = time.Since(since)
	cat, err := Load(t.Context(), store, name, opt)
	if err != nil {
		t.Fatal(err)
	}
	want := map[key.Digest]key.Digest{}
	for i := range writers {
		for _, p := range steps(fmt.Sprint("w", i), "x", each).Put {
			want[p.Record.Key] = p.Record.Digest()
			c.records++
			e, ok := cat.Record(t.Context(), p.Record.Key)
			if !ok {
				continue
			}
			l := p.Record.Outputs[0].Layers[0]
			if _, tree := cat.Tree(t.Context(), l.Tree); tree && len(cat.Layer(t.Context(), l.Identity)) == 1 && e.Record.Digest() == p.Record.Digest() {
				c.found++
			} else {
				c.wrong++
			}
		}
	}
	for _, e := range cat.Entries(t.Context()) {
		if d, ok := want[e.Record.Key]; ok && d != e.Record.Digest() {
			c.wrong++
		}
	}
	return c
}

// race is one way for writers to meet. beginning says that there is no catalog yet.
type race struct {
	writers                int
	latency                time.Duration
	conditional, beginning bool
}

func TestWritersAtOnce(t *testing.T) {
	run(t, []race{
		{8, 2 * time.Millisecond, false, true},
		{8, 25 * time.Millisecond, false, false},
		{8, 25 * time.Millisecond, true, true},
		{64, 25 * time.Millisecond, false, false},
	})
}

func TestSoakWritersAtOnce(t *testing.T) {
	if os.Getenv("LARDER_SOAK") == "" {
		run(t, []race{{16, 2 * time.Millisecond, false, true}})
		return
	}
	var all []race
	for _, writers := range []int{2, 8, 64} {
		for _, latency := range []time.Duration{2 * time.Millisecond, 25 * time.Millisecond} {
			for i := range 4 {
				all = append(all, race{writers, latency, i&1 > 0, i&2 > 0})
			}
		}
	}
	run(t, all)
}

func run(t *testing.T, races []race) {
	const seed = 1
	for _, c := range races {
		each := 3
		if c.writers > 16 {
			each = 1
		}
		t.Run(fmt.Sprintf("%d writers, %s, conditional=%v, beginning=%v", c.writers, c.latency, c.conditional, c.beginning), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newMemory("registry.example/app")
				m.conditional = c.conditional
				m.trip = jitter(seed, c.latency, 0)
				name := Name{"main", ScopeTag("main")}
				if !c.beginning {
					m.stocked("old", "x", 20)
					if _, err := Save(t.Context(), m, name, steps("old", "x", 20), Options{}); err != nil {
						t.Fatal(err)
					}
					time.Sleep(time.Hour)
				}
				got := gather(t, func() remote.Store { return m }, name, c.writers, each, Options{})
				t.Log(got)
				if got.wrong > 0 || got.found*100 < got.records*99 {
					t.Errorf("seed %d: %s", seed, got)
				}
			})
		})
	}
}

// TestSoakStallingWriters gives each way of a request a chance to take many times as long as others, so that writes arrive long after
// their writers looked.
func TestSoakStallingWriters(t *testing.T) {
	seeds := 12
	if os.Getenv("LARDER_SOAK") != "" {
		seeds = 1000
	}
	records, found := 0, 0
	for seed := range seeds {
		synctest.Test(t, func(t *testing.T) {
			m := newMemory("registry.example/app")
			m.trip = jitter(uint64(seed), 20*time.Millisecond, 0.05)
			c := gather(t, func() remote.Store { return m }, Name{"main", ScopeTag("main")}, 12, 2, Options{})
			if c.wrong > 0 {
				t.Errorf("seed %d: %s", seed, c)
			}
			records += c.records
			found += c.found
		})
	}
	t.Logf("%d of %d records found in %d runs", found, records, seeds)
	if found*1000 < records*995 {
		t.Errorf("%d of %d records found in %d runs", found, records, seeds)
	}
}

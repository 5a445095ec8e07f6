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
		_, err = decodePage(b)
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

func gather(t *testing.T, store remote.Store, name Name, writers, each int, opt Options) crowd {
	t.Helper()
	c := crowd{writers: writers}
	var (
		wg sync.WaitGroup
		mu sync.Mutex
	)
	since := time.Now()
	for i := range writers {
		wg.Go(func() {
			saved, err := Save(t.Context(), store, name, steps(fmt.Sprint("w", i), "x", each), opt)
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
		if want[e.Record.Key] != e.Record.Digest() {
			c.wrong++
		}
	}
	return c
}

func TestWritersAtOnce(t *testing.T) {
	for _, writers := range []int{8, 64} {
		for _, latency := range []time.Duration{2 * time.Millisecond, 25 * time.Millisecond} {
			for _, conditional := range []bool{false, true} {
				t.Run(fmt.Sprintf("%d/%s/conditional=%v", writers, latency, conditional), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						const each, seed = 3, 1
						m := newMemory("registry.example/app")
						m.conditional = conditional
						for i := range writers {
							m.stocked(fmt.Sprint("w", i), "x", each)
						}
						m.trip = jitter(seed, latency, 0)
						c := gather(t, m, Name{"main", ScopeTag("main")}, writers, each, Options{})
						t.Log(c)
						if c.wrong > 0 || c.found*100 < c.records*99 {
							t.Errorf("seed %d: %s", seed, c)
						}
					})
				})
			}
		}
	}
}

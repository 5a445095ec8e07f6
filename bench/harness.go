package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"larder/internal/testregistry"
)

type harness struct {
	settings
	scratch  string
	registry *testregistry.Registry
	stock    *stock
	link     *link
	far      *testregistry.Proxy // the registry, further away by settings.latency; nil without
	settle   func()              // called before each measurement
}

// contestant is one builder with a working copy and repositories of its own.
type contestant struct {
	name   string
	b      Builder
	dir    string
	repo   string // of builds without a remote cache
	app    string // of builds with one
	lines  int    // so many oneLine edits were made
	primed bool   // the local state has built the working copy as it is, without a remote cache
	filled bool   // the stock has what a first build of the working copy leaves in the registry
}

// workload measures one workload in all scenarios. It returns what was measured before an error.
func (h *harness) workload(ctx context.Context, w workload, list []scenario) (rows []row, err error) {
	var all []*contestant
	defer func() {
		for _, c := range all {
			err = errors.Join(err, c.b.Stop(), os.RemoveAll(c.dir))
		}
	}()
	for _, name := range h.builders {
		b, err := newBuilder(name, env{state: h.scratch, registry: h.link.addr, binDir: h.binDir, peerDir: h.peerDir})
		if err != nil {
			return nil, err
		}
		repo := "bench/" + name + "/" + w.name
		c := &contestant{name: name, b: b, dir: filepath.Join(h.scratch, "work-"+name), repo: repo, app: repo + "-app"}
		if err := w.copyTo(h.sources, c.dir); err != nil {
			return nil, err
		}
		if err := b.Start(ctx); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		all = append(all, c)
	}
	for _, s := range list {
		for _, delay := range h.delays(s) {
			got, err := h.scenario(ctx, w, s, delay, all)
			if err != nil {
				return rows, fmt.Errorf("workload %s, scenario %s: %w", w.name, label(s.name, delay), err)
			}
			rows = append(rows, got...)
		}
	}
	return rows, nil
}

// delays are the latencies that a scenario is measured with.
func (h *harness) delays(s scenario) []time.Duration {
	if s.fresh && h.latency > 0 {
		return []time.Duration{0, h.latency}
	}
	return []time.Duration{0}
}

// scenario lets the builders take turns.
func (h *harness) scenario(ctx context.Context, w workload, s scenario, delay time.Duration, all []*contestant) ([]row, error) {
	for _, c := range all {
		if err := h.first(ctx, s, c); err != nil {
			return nil, fmt.Errorf("%s, first build: %w", c.name, err)
		}
	}
	runs := h.runsOf(s, delay)
	measured := make([][]run, len(all))
	for n := 1; n <= runs; n++ {
		for i, c := range all {
			m, err := h.measure(ctx, w, s, delay, c, n)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", c.name, err)
			}
			fmt.Fprintf(os.Stderr, "%-5s %-21s %-8s run %d of %d: %7.2f s\n",
				w.name, label(s.name, delay), c.name, n, runs, m.seconds)
			measured[i] = append(measured[i], m)
		}
	}
	var rows []row
	for i, c := range all {
		rows = append(rows, newRow(w.name, s.name, delay, c.name, measured[i]))
	}
	return rows, nil
}

// runsOf tells how often a scenario is measured. Where a build takes long, round trips are a small part of it: once with
// latency shows that they still are.
func (h *harness) runsOf(s scenario, delay time.Duration) int {
	switch {
	case s.few && delay > 0:
		return 1
	case s.few:
		return h.coldRuns
	}
	return h.runs
}

// first makes the build that a scenario follows on, unless it has been made.
func (h *harness) first(ctx context.Context, s scenario, c *contestant) error {
	switch {
	case s.cold:
		return nil
	case s.fresh:
		if c.filled {
			return nil
		}
		if err := h.newMachine(ctx, c, true); err != nil {
			return err
		}
		if err := c.b.Build(ctx, h.job(c, true)); err != nil {
			return err
		}
		return h.fill(c)
	}
	if c.primed {
		return nil
	}
	err := c.b.Build(ctx, h.job(c, false))
	c.primed = err == nil
	return err
}

// measure prepares one build and times it.
func (h *harness) measure(ctx context.Context, w workload, s scenario, delay time.Duration, c *contestant, n int) (m run, err error) {
	switch {
	case s.cold:
		err = h.newMachine(ctx, c, s.cache)
	case s.fresh:
		c.primed = false
		err = errors.Join(c.b.Stop(), h.stock.restore(h.repositories(c, true)...))
	}
	if err != nil {
		return run{}, err
	}
	undo, err := h.edit(w, s, c, n)
	if err != nil {
		return run{}, err
	}
	defer func() { err = errors.Join(err, undo()) }()
	h.settle()
	if err := c.b.ResetPeak(); err != nil {
		return run{}, err
	}
	if delay > 0 {
		h.link.lead(h.far.Addr)
		defer h.link.lead(h.registry.Addr)
	}
	h.registry.ResetCounts()
	start := time.Now()
	if s.fresh {
		if err := c.b.Start(ctx); err != nil {
			return run{}, err
		}
	}
	if err := c.b.Build(ctx, h.job(c, s.cache)); err != nil {
		return run{}, err
	}
	elapsed := time.Since(start)
	counts := h.registry.Counts()
	m = run{
		seconds: elapsed.Round(time.Millisecond).Seconds(),
		peak:    c.b.PeakRSS(),
		down:    counts.Down,
		up:      counts.Up,
		count:   int64(counts.Requests),
	}
	if s.cold && s.cache {
		return m, h.fill(c)
	}
	c.primed = !s.cache
	return m, nil
}

// edit makes a scenario's n-th change in the working copy. A fresh scenario's is taken back after the build by undo, so
// that each run is one change away from what the registry holds.
func (h *harness) edit(w workload, s scenario, c *contestant, n int) (undo func() error, err error) {
	nothing := func() error { return nil }
	switch s.change {
	case oneDependency:
		c.filled = false
		return nothing, w.oneDep(c.dir, n)
	case oneLine:
		c.lines++
		path := filepath.Join(c.dir, w.lineFile(c.lines))
		old, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		if s.fresh {
			return func() error { return os.WriteFile(path, old, 0o644) }, w.oneLine(path, c.lines)
		}
		c.filled = false
		return nothing, w.oneLine(path, c.lines)
	}
	return nothing, nil
}

// newMachine removes all that is left of a contestant's builds, here and in the registry, and starts the builder.
func (h *harness) newMachine(ctx context.Context, c *contestant, cache bool) error {
	c.primed = false
	err := c.b.Stop()
	for _, r := range h.repositories(c, cache) {
		err = errors.Join(err, h.registry.Forget(r))
	}
	if err != nil {
		return err
	}
	return c.b.Start(ctx)
}

// fill keeps what the contestant's last build left in the registry.
func (h *harness) fill(c *contestant) error {
	err := h.stock.keep(h.repositories(c, true)...)
	c.filled = err == nil
	return err
}

// repositories are those that a contestant's builds write to.
func (h *harness) repositories(c *contestant, cache bool) []string {
	if !cache {
		return []string{c.repo}
	}
	if r := c.b.CacheRepository(c.app); r != c.app {
		return []string{c.app, r}
	}
	return []string{c.app}
}

func (h *harness) job(c *contestant, cache bool) job {
	if !cache {
		return job{dir: c.dir, image: h.link.addr + "/" + c.repo}
	}
	return job{dir: c.dir, image: h.link.addr + "/" + c.app + ":bench", cache: h.link.addr + "/" + c.b.CacheRepository(c.app)}
}

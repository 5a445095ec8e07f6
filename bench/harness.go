package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
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
	packages *packageProxy
	settle   func() // called before each measurement
}

// contestant is one builder with a working copy and repositories of its own.
type contestant struct {
	name   string
	b      Builder
	dir    string
	repo   string          // what the names of its repositories begin with
	lines  int             // so many oneLine and readmeLine edits were made
	deps   int             // the number of the last oneDependency edit
	primed map[series]bool // the local state has built the working copy as it is
	filled map[series]bool // the stock has what a first build of the working copy leaves in the registry
}

func newContestant(name string, b Builder, dir, repo string) *contestant {
	return &contestant{name: name, b: b, dir: dir, repo: repo, primed: map[series]bool{}, filled: map[series]bool{}}
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
		c := newContestant(name, b, filepath.Join(h.scratch, "work-"+name), repo)
		if err := w.copyTo(h.sources, c.dir); err != nil {
			return nil, err
		}
		if err := b.Start(ctx); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		all = append(all, c)
	}
	for _, s := range list {
		if !w.takesPart(s) {
			continue
		}
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
	if s.state == fresh && !s.packages && h.latency > 0 {
		return []time.Duration{0, h.latency}
	}
	return []time.Duration{0}
}

// scenario lets the builders take turns, those of them that can do what it asks.
func (h *harness) scenario(ctx context.Context, w workload, s scenario, delay time.Duration, all []*contestant) ([]row, error) {
	if s.series == ran {
		all = slices.DeleteFunc(slices.Clone(all), func(c *contestant) bool {
			_, can := c.b.(Runner)
			return !can
		})
	}
	for _, c := range all {
		if err := h.first(ctx, w, s, c); err != nil {
			return nil, fmt.Errorf("%s, first build: %w", c.name, err)
		}
	}
	runs := h.runsOf(s, delay)
	measured := make([][]run, len(all))
	for n := 1; n <= runs; n++ {
		for i, c := range all {
			m, err := h.measure(ctx, w, s, delay, c)
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
func (s settings) runsOf(sc scenario, delay time.Duration) int {
	switch {
	case sc.few && delay > 0:
		return 1
	case sc.few:
		return s.coldRuns
	}
	return s.runs
}

// first makes the build that a scenario follows on, unless it has been made.
func (h *harness) first(ctx context.Context, w workload, s scenario, c *contestant) error {
	switch s.state {
	case cold:
		return nil
	case fresh, based:
		if c.filled[s.series] {
			return nil
		}
		if err := h.newMachine(ctx, c, s.series); err != nil {
			return err
		}
		if err := h.build(ctx, w, s.series, c, h.job(c, s.series)); err != nil {
			return err
		}
		return h.fill(c, s.series)
	}
	if c.primed[s.series] {
		return nil
	}
	err := h.build(ctx, w, s.series, c, h.job(c, s.series))
	c.primed[s.series] = err == nil
	return err
}

// build does what a series does.
func (h *harness) build(ctx context.Context, w workload, s series, c *contestant, j job) error {
	if s == ran {
		return c.b.(Runner).Run(ctx, j, w.target, w.test)
	}
	return c.b.Build(ctx, j)
}

// measure prepares one build and times it.
func (h *harness) measure(ctx context.Context, w workload, s scenario, delay time.Duration, c *contestant) (m run, err error) {
	switch s.state {
	case cold:
		err = h.newMachine(ctx, c, s.series)
	case fresh, based:
		clear(c.primed)
		err = errors.Join(c.b.Stop(), h.stock.restore(h.repositories(c, s.series)...))
	}
	if err == nil && s.state == based {
		err = h.placeBases(ctx, c)
	}
	if err != nil {
		return run{}, err
	}
	undo, err := h.edit(w, s, c)
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
	j := h.job(c, s.series)
	if s.packages {
		j.proxy = h.packages.url()
	}
	mounts, err := h.meter(c, s.series)
	if err != nil {
		return run{}, err
	}
	before := h.packages.received()
	h.registry.ResetCounts()
	start := time.Now()
	if s.state == fresh {
		if err := c.b.Start(ctx); err != nil {
			return run{}, err
		}
	}
	if err := h.build(ctx, w, s.series, c, j); err != nil {
		return run{}, err
	}
	elapsed := time.Since(start)
	counts, log := h.registry.Counts(), h.registry.Requests()
	m = run{
		seconds: elapsed.Round(time.Millisecond).Seconds(),
		peak:    c.b.PeakRSS(),
		down:    counts.Down,
		up:      counts.Up,
		count:   int64(counts.Requests),
	}
	for _, step := range c.b.Ran() {
		m.ran = append(m.ran, step.name)
	}
	if s.packages {
		m.packages = new(h.packages.received() - before)
	}
	if m.mounts, err = mounts.traffic(log); err != nil {
		return run{}, err
	}
	if s.state == cold && s.series != alone {
		return m, h.fill(c, s.series)
	}
	c.primed[s.series] = s.state == cold || s.state == kept
	return m, nil
}

// edit makes a scenario's next change in the working copy. On a new machine it is taken back after the build by undo, so
// that each run is one change away from what the registry holds.
func (h *harness) edit(w workload, s scenario, c *contestant) (undo func() error, err error) {
	undo = func() error { return nil }
	if s.change == nothing {
		return undo, nil
	}
	if s.state == kept {
		clear(c.primed)
		clear(c.filled)
	} else if undo, err = h.setAside(c.dir); err != nil {
		return nil, err
	}
	switch s.change {
	case oneLine:
		c.lines++
		return undo, w.oneLine(filepath.Join(c.dir, w.lineFile(c.lines)), c.lines)
	case readmeLine:
		c.lines++
		return undo, addLine(filepath.Join(c.dir, w.readme), c.lines)
	}
	c.deps = c.deps%w.maxDeps + 1 // never the one that is there
	return undo, w.oneDep(c.dir, c.deps)
}

// setAside puts a copy of a working copy in its place, and gives what brings the working copy back.
func (h *harness) setAside(dir string) (undo func() error, err error) {
	aside := dir + "-aside"
	if err := os.Rename(dir, aside); err != nil {
		return nil, err
	}
	undo = func() error { return errors.Join(os.RemoveAll(dir), os.Rename(aside, dir)) }
	if err := os.CopyFS(dir, os.DirFS(aside)); err != nil {
		return nil, errors.Join(err, undo())
	}
	return undo, nil
}

// newMachine removes all that is left of a contestant's builds, here and in the registry, and starts the builder.
func (h *harness) newMachine(ctx context.Context, c *contestant, s series) error {
	clear(c.primed)
	err := c.b.Stop()
	for _, r := range h.repositories(c, s) {
		err = errors.Join(err, h.registry.Forget(r))
	}
	if err != nil {
		return err
	}
	return c.b.Start(ctx)
}

// fill keeps what the contestant's last build left in the registry.
func (h *harness) fill(c *contestant, s series) error {
	err := h.stock.keep(h.repositories(c, s)...)
	c.filled[s] = err == nil
	return err
}

// repository is that of a series' images.
func (c *contestant) repository(s series) string {
	return c.repo + map[series]string{alone: "", cached: "-app", ran: "-run"}[s]
}

// repositories are those that a contestant's builds write to.
func (h *harness) repositories(c *contestant, s series) []string {
	image := c.repository(s)
	if s == alone {
		return []string{image}
	}
	if cache := c.b.CacheRepository(image); cache != image {
		return []string{image, cache}
	}
	return []string{image}
}

func (h *harness) job(c *contestant, s series) job {
	image := h.link.addr + "/" + c.repository(s)
	if s == alone {
		return job{dir: c.dir, image: image}
	}
	return job{dir: c.dir, image: image + ":bench", cache: h.link.addr + "/" + c.b.CacheRepository(c.repository(s))}
}

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"larder/internal/testregistry"
)

type harness struct {
	settings
	scratch  string
	registry *testregistry.Registry
}

// contestant is one builder with a working copy and a repository of its own.
type contestant struct {
	name   string
	b      Builder
	dir    string
	repo   string
	primed bool // the working copy has been built by the state as it is
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
		b, err := newBuilder(name, env{state: h.scratch, registry: h.registry.Addr, binDir: h.binDir, peerDir: h.peerDir})
		if err != nil {
			return nil, err
		}
		c := &contestant{name: name, b: b, dir: filepath.Join(h.scratch, "work-"+name), repo: "bench/" + name + "/" + w.name}
		if err := w.copyTo(h.sources, c.dir); err != nil {
			return nil, err
		}
		if err := b.Start(ctx); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		all = append(all, c)
	}
	for _, s := range list {
		got, err := h.scenario(ctx, w, s, all)
		if err != nil {
			return rows, fmt.Errorf("workload %s, scenario %s: %w", w.name, s.name, err)
		}
		rows = append(rows, got...)
	}
	return rows, nil
}

// scenario lets the builders take turns.
func (h *harness) scenario(ctx context.Context, w workload, s scenario, all []*contestant) ([]row, error) {
	runs := h.runs
	if s.cold {
		runs = h.coldRuns
	}
	if !s.cold {
		for _, c := range all {
			if c.primed {
				continue
			}
			if err := c.b.Build(ctx, c.dir, h.registry.Ref(c.repo)); err != nil {
				return nil, fmt.Errorf("%s, first build: %w", c.name, err)
			}
			c.primed = true
		}
	}
	measured := make([][]run, len(all))
	for n := 1; n <= runs; n++ {
		for i, c := range all {
			m, err := h.measure(ctx, w, s, c, n)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", c.name, err)
			}
			fmt.Fprintf(os.Stderr, "%-5s %-8s %-8s run %d of %d: %7.2f s\n", w.name, s.name, c.name, n, runs, m.seconds)
			measured[i] = append(measured[i], m)
		}
	}
	var rows []row
	for i, c := range all {
		rows = append(rows, newRow(w.name, s.name, c.name, measured[i]))
	}
	return rows, nil
}

// measure prepares one build and times it.
func (h *harness) measure(ctx context.Context, w workload, s scenario, c *contestant, n int) (run, error) {
	if s.cold {
		if err := errors.Join(c.b.Reset(ctx), h.registry.Forget(c.repo)); err != nil {
			return run{}, err
		}
	}
	if s.edit != nil {
		if err := s.edit(w, c.dir, n); err != nil {
			return run{}, err
		}
	}
	unix.Sync() // one build's dirty pages are not written back during the next
	if err := c.b.ResetPeak(); err != nil {
		return run{}, err
	}
	h.registry.ResetCounts()
	start := time.Now()
	if err := c.b.Build(ctx, c.dir, h.registry.Ref(c.repo)); err != nil {
		return run{}, err
	}
	elapsed := time.Since(start)
	c.primed = true
	counts := h.registry.Counts()
	return run{
		seconds: elapsed.Round(time.Millisecond).Seconds(),
		peak:    c.b.PeakRSS(),
		down:    counts.Down,
		up:      counts.Up,
		count:   int64(counts.Requests),
	}, nil
}

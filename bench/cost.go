package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"

	"larder/internal/report"
)

// observeMode is a value of larder's --observe.
type observeMode string

const (
	observeAuto observeMode = "auto" // contents by passthrough where the kernel has it
	observeCopy observeMode = "copy" // contents by plain reads
	observeOff  observeMode = "off"
)

// observeModes in the order in which they take turns, the one that is compared with first.
var observeModes = []observeMode{observeOff, observeAuto, observeCopy}

// observer is larder with a way to observe, and with a local root of its own: no way finds what another one made.
type observer struct {
	mode observeMode
	*larder
}

// costHarness measures what observation costs the steps that are observed.
type costHarness struct {
	settings
	scratch  string
	registry string // host:port
	settle   func() // called before each measurement
}

// measureAll measures steps and adds them to the results.
func (h *costHarness) measureAll(ctx context.Context, steps []costStep) (err error) {
	var rows []costRow
	for _, s := range steps {
		got, serr := h.step(ctx, s)
		if serr != nil {
			err = errors.Join(err, fmt.Errorf("step %s: %w", s.name, serr))
		}
		rows = append(rows, got...)
		if ctx.Err() != nil {
			break
		}
	}
	if len(rows) == 0 {
		return err
	}
	all, serr := saveCost(h.costOut, rows)
	if serr != nil {
		return errors.Join(err, serr)
	}
	return errors.Join(err, printCost(os.Stdout, all))
}

// step measures one step in all modes. They take turns, and each begins as often as the others.
func (h *costHarness) step(ctx context.Context, s costStep) (rows []costRow, err error) {
	dir := filepath.Join(h.scratch, "cost-"+s.name)
	if err := s.copyTo(h.sources, dir); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	files, err := countFiles(dir)
	if err != nil {
		return nil, err
	}
	var all []observer
	defer func() {
		for _, o := range all {
			err = errors.Join(err, o.Stop())
		}
	}()
	for _, mode := range observeModes {
		l, err := newLarder(env{state: filepath.Join(h.scratch, "larder-"+string(mode)), registry: h.registry, binDir: h.binDir})
		if err != nil {
			return nil, err
		}
		if err := l.Start(ctx); err != nil {
			return nil, err
		}
		all = append(all, observer{mode, l})
	}
	measured := make([][]costRun, len(all))
	for n := range h.runs + 1 {
		for i := range all {
			i := (n + i) % len(all)
			m, err := h.measure(ctx, all[i], dir, n)
			if err != nil {
				return nil, fmt.Errorf("--observe %s: %w", all[i].mode, err)
			}
			if n == 0 { // it makes what stands before the step
				continue
			}
			fmt.Fprintf(os.Stderr, "%-9s --observe %-4s run %d of %d: %7.2f s\n", s.name, all[i].mode, n, h.runs, m.step)
			measured[i] = append(measured[i], m)
		}
	}
	for i, o := range all {
		rows = append(rows, newCostRow(s, files, o.mode, measured[i]))
	}
	return rows, nil
}

// costRun is one measured build, in seconds.
type costRun struct {
	step  float64 // of the step: its mounts, its command, and what is kept of both
	build float64 // of larder's process
	cpu   float64 // of that and all that it ran
}

// measure runs a step once more. Another number makes it another step, of which nothing is known; number 0 is the first build, in
// which other steps run as well.
func (h *costHarness) measure(ctx context.Context, o observer, dir string, n int) (costRun, error) {
	h.settle()
	start := time.Now()
	args := []string{"build", "--observe", string(o.mode), "--build-arg", "SALT=" + strconv.Itoa(n)}
	err := o.do(ctx, append(append(args, o.flags(job{})...), dir))
	elapsed := time.Since(start)
	if err != nil {
		return costRun{}, err
	}
	ran := o.Ran()
	if n > 0 && len(ran) != 1 || len(ran) == 0 {
		return costRun{}, fmt.Errorf("%d RUN steps ran in build %d, want the last one only: %v", len(ran), n, ran)
	}
	if err := o.check(ctx); err != nil {
		return costRun{}, err
	}
	return costRun{step: ran[len(ran)-1].seconds, build: elapsed.Seconds(), cpu: o.cpu.Seconds()}, nil
}

// check insists that the step was observed where it should have been, and only there.
func (o observer) check(ctx context.Context) error {
	text, err := exec.CommandContext(ctx, o.program, "explain", "--json", "--root", o.root).Output()
	if err != nil {
		return fmt.Errorf("larder explain: %w", err)
	}
	var b report.Build
	if err := json.Unmarshal(text, &b); err != nil {
		return fmt.Errorf("larder explain: %w", err)
	}
	looks, reason := 0, ""
	for _, s := range b.Steps {
		if s.Type != report.Run || s.How != report.Ran {
			continue
		}
		reason = s.Not
		for _, in := range s.Inputs {
			for _, g := range in.Groups {
				looks += len(g.Seen)
			}
		}
	}
	if observed := looks > 0 && reason == ""; observed != (o.mode != observeOff) {
		return fmt.Errorf("the step was observed: %t, %d looks at its inputs are known %s", observed, looks, reason)
	}
	return nil
}

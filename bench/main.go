package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"larder/internal/testregistry"
)

// settings are the flags.
type settings struct {
	workloads, scenarios, builders []string
	runs, coldRuns                 int
	baseline                       string
	sources, out, binDir, peerDir  string
	scratch                        string
	latency                        time.Duration
	cost                           bool // what observation costs, instead of builders side by side
	steps                          []string
	costOut                        string
}

func main() {
	var s settings
	list := func(name, value, usage string) *string {
		return flag.String(name, value, usage+", separated by commas")
	}
	ws := list("workloads", strings.Join(workloadNames(), ","), "what to build")
	ss := list("scenarios", strings.Join(scenarioNames(), ","), "what happens between builds")
	bs := list("builders", "larder,buildkit", "who builds, in turn")
	flag.IntVar(&s.runs, "runs", 5, "measured builds per builder and scenario")
	flag.IntVar(&s.coldRuns, "cold-runs", 3, "the same for the scenarios that take long")
	flag.DurationVar(&s.latency, "latency", 25*time.Millisecond,
		"measure the fresh scenarios again with this much added to each round trip with the registry; 0 does not")
	flag.StringVar(&s.baseline, "baseline", "buildkit", "builder that ratios are relative to")
	flag.StringVar(&s.sources, "sources", "bench/workloads", "where the workloads are")
	flag.StringVar(&s.out, "out", "bench/results/latest.json", "results; rows measured earlier stay unless measured again")
	flag.StringVar(&s.binDir, "bin", "bin", "where larder is")
	flag.StringVar(&s.peerDir, "peers", filepath.Join(testregistry.CacheDir(), "peers"), "where the other builders are")
	flag.StringVar(&s.scratch, "scratch", testregistry.CacheDir(), "where working copies and local states are made")
	flag.BoolVar(&s.cost, "cost", false, "measure what it costs RUN steps to be observed, instead of builders side by side")
	steps := list("steps", strings.Join(costStepNames(), ","), "with -cost: the RUN steps")
	flag.StringVar(&s.costOut, "cost-out", "bench/results/cost.json", "results of -cost; rows measured earlier stay unless measured again")
	flag.Parse()
	s.steps = strings.Split(*steps, ",")
	s.workloads, s.scenarios, s.builders = strings.Split(*ws, ","), strings.Split(*ss, ","), strings.Split(*bs, ",")
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := bench(ctx, s); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func bench(ctx context.Context, s settings) (err error) {
	plan, err := newPlan(s)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(s.scratch, 0o755); err != nil {
		return err
	}
	scratch, err := os.MkdirTemp(s.scratch, "bench-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(scratch)) }()
	registryDir := filepath.Join(scratch, "registry")
	reg, err := testregistry.Serve(testregistry.Options{Dir: registryDir})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, reg.Close()) }()
	for _, name := range testregistry.BaseNames() {
		if _, err := reg.PushLayout(ctx, name, filepath.Join(testregistry.BasesDir(), name)); err != nil {
			return fmt.Errorf("base images (make bases): %w", err)
		}
	}
	settle := unix.Sync // one build's dirty pages are not written back during the next
	if s.cost {
		h := &costHarness{settings: s, scratch: scratch, registry: reg.Addr, settle: settle}
		return h.measureAll(ctx, plan.steps)
	}
	k, err := newLink(reg.Addr)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, k.Close()) }()
	h := &harness{
		settings: s,
		scratch:  scratch,
		registry: reg,
		stock:    newStock(reg, registryDir, filepath.Join(scratch, "stock")),
		link:     k,
		settle:   settle,
	}
	if s.latency > 0 {
		if h.far, err = testregistry.NewProxy(reg.Addr, testregistry.ProxyOptions{RoundTrip: s.latency}); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, h.far.Close()) }()
	}
	if h.packages, err = newPackageProxy(); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, h.packages.Close()) }()
	var rows []row
	for _, w := range plan.workloads {
		got, werr := h.workload(ctx, w, plan.scenarios)
		err = errors.Join(err, werr)
		rows = append(rows, got...)
		if ctx.Err() != nil {
			break
		}
	}
	if len(rows) == 0 {
		return err
	}
	all, serr := save(s.out, rows, thisMachine(s.baseline))
	if serr != nil {
		return errors.Join(err, serr)
	}
	return errors.Join(err, printTable(os.Stdout, all))
}

// plan is what the flags name, resolved before anything starts.
type plan struct {
	workloads []workload
	scenarios []scenario
	steps     []costStep
}

func newPlan(s settings) (plan, error) {
	var p plan
	for _, name := range s.scenarios {
		sc, err := scenarioByName(name)
		if err != nil {
			return p, err
		}
		p.scenarios = append(p.scenarios, sc)
	}
	for _, name := range s.workloads {
		w, err := workloadByName(name)
		if err != nil {
			return p, err
		}
		for _, sc := range p.scenarios {
			if runs := s.runsOf(sc, 0); sc.change == oneDependency && runs > w.maxDeps {
				return p, fmt.Errorf("workload %s has %d different dependency edits, fewer than %d runs", name, w.maxDeps, runs)
			}
		}
		p.workloads = append(p.workloads, w)
	}
	for _, name := range s.steps {
		step, err := costStepByName(name)
		if err != nil {
			return p, err
		}
		p.steps = append(p.steps, step)
	}
	if s.runs < 1 || s.coldRuns < 1 {
		return p, errors.New("-runs and -cold-runs must be at least 1")
	}
	if s.latency < 0 || s.latency%time.Millisecond != 0 {
		return p, errors.New("-latency must be a number of whole milliseconds")
	}
	return p, nil
}

package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// fakeLarder is a program that notes how it is called and says what a build of larder does: the first one runs two steps, others the
// last of them, which takes two seconds, or three where it is observed. In a directory with a file "spoilt" both run each time, in one
// with a file "blind" nothing is observed.
const fakeLarder = `#!/bin/sh
calls=$(dirname "$0")/calls
if [ "$1" = explain ]; then
	case "$(tail -n 1 "$calls")" in
	*"--observe off"* | *blind*) seen= ;;
	*) seen='{"path":"a","kind":1,"value":"0000000000000000"}' ;;
	esac
	echo '{"steps":[{"type":"run","how":"ran","inputs":[{"place":"/","groups":[{"seen":['"$seen"']}]}]}]}'
	exit
fi
echo "$*" >> "$calls"
for dir; do :; done
case "$*" in *"--observe off"*) end=02 ;; *) end=03 ;; esac
line() { # name, second at which it ends, whether it was spared
	echo '{"vertexes":[{"digest":"sha256:'"$1"'","name":"[2/4] RUN '"$1"'","started":"2026-01-02T03:04:00Z","completed":"2026-01-02T03:04:'"$2"'Z","cached":'"$3"'}]}'
}
spared=true
case "$*" in *SALT=0*) spared=false ;; esac
[ ! -e "$dir/spoilt" ] || spared=false
[ ! -e "$dir/blind" ] || echo blind >> "$calls"
line first 01 $spared
line second $end false
`

// newCostStage is a harness whose larder is the fake one, and a step.
func newCostStage(t *testing.T, runs int) (*costHarness, costStep, string) {
	t.Helper()
	dir := t.TempDir()
	bin := filepath.Join(dir, "bin")
	for path, text := range map[string]string{
		filepath.Join(bin, "larder"): fakeLarder, filepath.Join(dir, "sources", "make", "Dockerfile"): "FROM scratch\n",
	} {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	h := &costHarness{
		settings: settings{runs: runs, binDir: bin, sources: filepath.Join(dir, "sources"), costOut: filepath.Join(dir, "cost.json")},
		scratch:  filepath.Join(dir, "scratch"), settle: func() {},
	}
	if err := os.Mkdir(h.scratch, 0o755); err != nil {
		t.Fatal(err)
	}
	return h, costStep{workload{name: "make"}, smallBound}, filepath.Join(bin, "calls")
}

func TestCostTakesTurns(t *testing.T) {
	h, s, calls := newCostStage(t, 2)
	rows, err := h.step(context.Background(), s)
	if err != nil {
		t.Fatal(err)
	}
	setCostRatios(rows)
	var got []string
	for _, r := range rows {
		got = append(got, fmt.Sprint(r.Observe, r.Seconds, r.MedianS, *r.Ratio, r.Files))
	}
	if want := []string{"off[2 2] 2 1 1", "auto[3 3] 3 1.5 1", "copy[3 3] 3 1.5 1"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	text, err := os.ReadFile(calls)
	if err != nil {
		t.Fatal(err)
	}
	var order []string
	roots := map[string]string{}
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line)
		mode, salt := f[slices.Index(f, "--observe")+1], f[slices.Index(f, "--build-arg")+1]
		order = append(order, mode+strings.TrimPrefix(salt, "SALT="))
		root := f[slices.Index(f, "--root")+1]
		if roots[root] != "" && roots[root] != mode {
			t.Errorf("%s and %s share a root", mode, roots[root])
		}
		roots[root] = mode
	}
	if s := strings.Join(order, " "); s != "off0 auto0 copy0 auto1 copy1 off1 copy2 off2 auto2" {
		t.Errorf("order: %s", s)
	}
	left, err := os.ReadDir(h.scratch)
	if err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// TestCostIsOfOneObservedStep: where another step runs as well, what stands before the measured one was not kept; and one that larder
// could not observe does not count as one that it did.
func TestCostIsOfOneObservedStep(t *testing.T) {
	for name, want := range map[string]string{
		"spoilt": "2 RUN steps ran in build 1", "blind": "--observe auto: the step was observed: false",
	} {
		h, s, _ := newCostStage(t, 1)
		s.generate = func(dir string) error { return os.WriteFile(filepath.Join(dir, name), nil, 0o644) }
		if _, err := h.step(context.Background(), s); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want %q", name, err, want)
		}
	}
}

// TestCostResultsOfKernels: what was measured on another kernel stays, and is not compared with this one's.
func TestCostResultsOfKernels(t *testing.T) {
	path := filepath.Join(t.TempDir(), "results", "cost.json")
	npm, err := costStepByName("npm-ci")
	if err != nil {
		t.Fatal(err)
	}
	row := func(mode observeMode, kernel string, seconds ...float64) costRow {
		var runs []costRun
		for _, s := range seconds {
			runs = append(runs, costRun{step: s, build: s + 1, cpu: s / 2})
		}
		r := newCostRow(npm, 7, mode, runs)
		r.Machine.Kernel, r.Machine.CPUs = kernel, 2
		return r
	}
	gone := row(observeOff, "6.12", 1)
	gone.Step = "no-more"
	if _, err := saveCost(path, []costRow{gone, row(observeAuto, "6.12", 3), row(observeOff, "6.12", 2)}); err != nil {
		t.Fatal(err)
	}
	all, err := saveCost(path, []costRow{row(observeOff, "6.18", 4, 2, 9), row(observeCopy, "6.18", 4.4), row(observeAuto, "6.18", 4.1)})
	if err != nil {
		t.Fatal(err)
	}
	if r := findCost(all, "npm-ci", "6.18", observeCopy); r == nil || *r.Ratio != 1.1 || *r.BuildRatio != 1.08 || *r.CPURatio != 1.1 {
		t.Errorf("row %+v", r)
	}
	var table strings.Builder
	if err := printCost(&table, all); err != nil {
		t.Fatal(err)
	}
	var got []string
	for line := range strings.Lines(table.String()) {
		got = append(got, strings.Join(strings.Fields(line), " "))
	}
	head := "step observed files not observed auto ratio copy ratio may be runs"
	want := []string{
		"Linux 6.12, 2 CPUs: a step's seconds, medians", head, "npm-ci 7 2.00 3.00 !1.50 - - 1.05 1",
		"Linux 6.18, 2 CPUs: a step's seconds, medians", head, "npm-ci 7 4.00 4.10 1.02 4.40 !1.10 1.05 3",
	}
	if !slices.Equal(got, want) {
		t.Errorf("table:\n%s", table.String())
	}
}

// TestModules: they are the same in every run, and each is imported by one that is reached from the first.
func TestModules(t *testing.T) {
	const dirs = 8
	a, b := t.TempDir(), t.TempDir()
	for _, dir := range []string{a, b} {
		if err := writeModules(dir, dirs); err != nil {
			t.Fatal(err)
		}
	}
	if hashDir(t, a) != hashDir(t, b) {
		t.Error("two runs generate different modules")
	}
	n, err := countFiles(a)
	if err != nil || n != dirs*modulesPerDir+1 {
		t.Errorf("%d files, %v", n, err)
	}
	last, err := os.ReadFile(filepath.Join(a, "src", "part007", "m99.js"))
	if err != nil || !strings.Contains(string(last), `from "./m98.js"`) {
		t.Errorf("a module: %s, %v", last, err)
	}
	first, err := os.ReadFile(filepath.Join(a, "src", "main.js"))
	if err != nil || strings.Count(string(first), "/m99.js\";\n") != dirs {
		t.Errorf("the first module: %s, %v", first, err)
	}
}

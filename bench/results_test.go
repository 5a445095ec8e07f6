package main

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestMedian(t *testing.T) {
	for _, c := range []struct {
		in   []float64
		want float64
	}{{nil, 0}, {[]float64{3}, 3}, {[]float64{9, 1, 2}, 2}, {[]float64{4, 1, 3, 2}, 2.5}} {
		if got := median(c.in); got != c.want {
			t.Errorf("median of %v is %v, want %v", c.in, got, c.want)
		}
	}
}

func TestSaveKeepsWhatWasNotMeasuredAgain(t *testing.T) {
	path := filepath.Join(t.TempDir(), "results", "latest.json")
	m := machine{Baseline: "buildkit"}
	first := []row{
		newRow("go", "cold", 0, "buildkit", []run{{seconds: 10, peak: 5}, {seconds: 20, peak: 7}}),
		newRow("node", "cold", 0, "buildkit", []run{{seconds: 4}}),
	}
	if _, err := save(path, first, m); err != nil {
		t.Fatal(err)
	}
	// What was saved before rows said which steps ran does not say that none did.
	old, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, bytes.ReplaceAll(old, []byte(`"ran": []`), []byte(`"ran": null`)), 0o644); err != nil {
		t.Fatal(err)
	}
	all, err := save(path, []row{newRow("go", "cold", 0, "larder", []run{{seconds: 12}})}, m)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, r := range all {
		got = append(got, r.Workload+" "+r.Builder)
	}
	if s := strings.Join(got, ", "); s != "go larder, go buildkit, node buildkit" {
		t.Errorf("rows: %s", s)
	}
	if all[0].Ratio == nil || *all[0].Ratio != 0.8 {
		t.Errorf("ratio %v, want 0.8", all[0].Ratio)
	}
	if all[0].Ran == nil || all[1].Ran != nil {
		t.Errorf("steps run: %q and %q", all[0].Ran, all[1].Ran)
	}
	if all[1].MedianS != 15 || all[1].PeakRSS != 7 {
		t.Errorf("row %+v", all[1])
	}
}

// TestLatencyIsAPlaceOfItsOwn: rows through a proxy neither replace those without one nor are compared with them.
func TestLatencyIsAPlaceOfItsOwn(t *testing.T) {
	path := filepath.Join(t.TempDir(), "latest.json")
	m := machine{Baseline: "buildkit"}
	var all []row
	for _, r := range []row{
		newRow("go", "fresh", 25*time.Millisecond, "larder", []run{{seconds: 3, count: 9, down: 70_000}}),
		newRow("go", "fresh-oneline", 0, "larder", []run{{seconds: 30}}),
		newRow("go", "fresh", 0, "buildkit", []run{{seconds: 4}}),
		newRow("go", "fresh", 0, "larder", []run{{seconds: 1}}),
		newRow("go", "fresh", 25*time.Millisecond, "buildkit", []run{{seconds: 6}}),
		newRow("go", "fresh", 25*time.Millisecond, "larder", []run{{seconds: 2, count: 8, down: 60_000, up: 1_600, ran: []string{"go vet", "go build"}}}),
	} {
		var err error
		if all, err = save(path, []row{r}, m); err != nil {
			t.Fatal(err)
		}
	}
	var table strings.Builder
	if err := printTable(&table, all); err != nil {
		t.Fatal(err)
	}
	var got []string
	for line := range strings.Lines(table.String()) {
		got = append(got, strings.Join(strings.Fields(line), " "))
	}
	want := []string{
		"workload scenario builder median s ratio peak MB down kB up kB requests steps run runs",
		"go fresh larder 1.00 0.25 0 0 0 0 0 1",
		"go fresh buildkit 4.00 1.00 0 0 0 0 0 1",
		"go fresh (25 ms) larder 2.00 0.33 0 60 2 8 2 1",
		"go fresh (25 ms) buildkit 6.00 1.00 0 0 0 0 0 1",
		"go fresh-oneline larder 30.00 - 0 0 0 0 0 1",
	}
	if !slices.Equal(got, want) {
		t.Errorf("table:\n%s", table.String())
	}
}

// TestWarmRatios compares with a machine that kept everything: the baseline's, or the builder's own where only it can do that.
func TestWarmRatios(t *testing.T) {
	rows := []row{
		newRow("go", "oneline", 0, "buildkit", []run{{seconds: 4}}),
		newRow("go", "oneline", 0, "larder", []run{{seconds: 1}}),
		newRow("go", "fresh-oneline", 0, "larder", []run{{
			seconds: 6, mounts: &mountTraffic{mountTimes{1.5, 0.25}, 250_000, 4_000},
		}}),
		newRow("go", "fresh-oneline", 25*time.Millisecond, "larder", []run{{seconds: 7}}),
		newRow("go", "fresh-oneline", 0, "buildkit", []run{{seconds: 60}}),
		newRow("go", "fresh-onedep", 0, "larder", []run{{seconds: 6, packages: new(int64(1_500))}}),
		newRow("go", "run", 0, "larder", []run{{seconds: 2}}),
		newRow("go", "fresh-run", 0, "larder", []run{{seconds: 3}}),
	}
	setRatios(rows, "buildkit")
	var table strings.Builder
	if err := printMounts(&table, rows); err != nil {
		t.Fatal(err)
	}
	var got []string
	for line := range strings.Lines(table.String()) {
		got = append(got, strings.Join(strings.Fields(line), " "))
	}
	want := []string{
		"", "Cache mounts, and how long a machine takes that kept everything (warm = 1):",
		"workload scenario builder median s warm restore s kB save s kB packages kB",
		"go fresh-oneline larder 6.00 1.50 1.500 250 0.250 4 -",
		"go fresh-oneline buildkit 60.00 15.00 - - - - -",
		"go fresh-onedep larder 6.00 - - - - - 1.50",
		"go fresh-run larder 3.00 1.50 - - - - -",
	}
	if !slices.Equal(got, want) {
		t.Errorf("table:\n%s", table.String())
	}
	if rows[2].Ratio == nil || *rows[2].Ratio != 0.1 {
		t.Errorf("ratio %v, want 0.1", rows[2].Ratio)
	}
}

func TestPlanRefusesWhatCannotBeMeasured(t *testing.T) {
	good := settings{workloads: []string{"node"}, scenarios: []string{"onedep", "fresh", "fresh-onedep"}, runs: 5, coldRuns: 1}
	if _, err := newPlan(good); err != nil {
		t.Fatal(err)
	}
	for want, spoil := range map[string]func(*settings){
		"no workload":        func(s *settings) { s.workloads = []string{"rust"} },
		"fresh, fresh-":      func(s *settings) { s.scenarios = []string{"lukewarm"} },
		"fewer than 6 runs":  func(s *settings) { s.runs = 6 },
		"fewer than 7 runs":  func(s *settings) { s.coldRuns = 7 },
		"at least 1":         func(s *settings) { s.coldRuns = 0 },
		"no step":            func(s *settings) { s.steps = []string{"bundle", "make"} },
		"whole milliseconds": func(s *settings) { s.latency = time.Microsecond },
	} {
		s := good
		spoil(&s)
		if _, err := newPlan(s); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want %q", s, err, want)
		}
	}
}

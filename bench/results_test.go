package main

import (
	"path/filepath"
	"strings"
	"testing"
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
	if all[1].MedianS != 15 || all[1].PeakRSS != 7 {
		t.Errorf("row %+v", all[1])
	}
}

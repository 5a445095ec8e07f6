package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
)

// costRow is one step with one way to observe it, on one kernel.
type costRow struct {
	Step       string      `json:"step"`
	Observe    observeMode `json:"observe"`
	Files      int         `json:"observed_files"` // in the observed layer
	Seconds    []float64   `json:"seconds"`        // what the step took in each run, in their order
	MedianS    float64     `json:"median_s"`
	Ratio      *float64    `json:"ratio"`          // to the median without observation on the same kernel; null without one
	Bound      float64     `json:"bound"`          // what the ratio may be
	BuildS     float64     `json:"build_median_s"` // of the whole builds, from the start of larder's process to its end
	BuildRatio *float64    `json:"build_ratio"`    // as ratio, of the whole builds
	CPUS       float64     `json:"cpu_median_s"`   // of whole builds, all processes together
	CPURatio   *float64    `json:"cpu_ratio"`      // as ratio, of those
	Machine    machine     `json:"machine"`
}

func newCostRow(s costStep, files int, mode observeMode, runs []costRun) costRow {
	r := costRow{Step: s.name, Observe: mode, Files: files, Bound: s.bound, Machine: thisMachine(string(observeOff))}
	var builds, cpu []float64
	for _, m := range runs {
		r.Seconds = append(r.Seconds, thousandth(m.step))
		builds, cpu = append(builds, m.build), append(cpu, m.cpu)
	}
	r.MedianS, r.BuildS, r.CPUS = thousandth(median(r.Seconds)), thousandth(median(builds)), thousandth(median(cpu))
	return r
}

// setCostRatios compares each row with the one without observation of the same step and kernel.
func setCostRatios(rows []costRow) {
	for i := range rows {
		r := &rows[i]
		r.Ratio, r.BuildRatio, r.CPURatio = nil, nil, nil
		if off := findCost(rows, r.Step, r.Machine.Kernel, observeOff); off != nil {
			r.Ratio, r.BuildRatio, r.CPURatio = ratio(r.MedianS, off.MedianS), ratio(r.BuildS, off.BuildS), ratio(r.CPUS, off.CPUS)
		}
	}
}

// findCost is nil where there is none.
func findCost(rows []costRow, step, kernel string, mode observeMode) *costRow {
	for i, r := range rows {
		if r.Step == step && r.Machine.Kernel == kernel && r.Observe == mode {
			return &rows[i]
		}
	}
	return nil
}

// mergeCost puts new rows over old ones of the same step, way and kernel. Those of steps that are there no more go.
func mergeCost(old, fresh []costRow) []costRow {
	out := slices.Clone(fresh)
	for _, o := range old {
		if findCost(fresh, o.Step, o.Machine.Kernel, o.Observe) == nil && slices.Contains(costStepNames(), o.Step) {
			out = append(out, o)
		}
	}
	slices.SortStableFunc(out, func(a, b costRow) int {
		names := costStepNames()
		return cmp.Or(
			strings.Compare(a.Machine.Kernel, b.Machine.Kernel),
			cmp.Compare(slices.Index(names, a.Step), slices.Index(names, b.Step)),
			cmp.Compare(slices.Index(observeModes, a.Observe), slices.Index(observeModes, b.Observe)),
		)
	})
	return out
}

// saveCost merges rows into the file.
func saveCost(path string, rows []costRow) ([]costRow, error) {
	var old []costRow
	if b, err := os.ReadFile(path); err == nil {
		if err := json.Unmarshal(b, &old); err != nil {
			return nil, fmt.Errorf("%s holds no results (remove it): %w", path, err)
		}
	} else if !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	all := mergeCost(old, rows)
	setCostRatios(all)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, err
	}
	return all, writeJSON(path, all)
}

// printCost shows one line for each step and kernel. Ratios that are above what they may be have a mark.
func printCost(w io.Writer, rows []costRow) error {
	kernel := ""
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	for _, off := range rows {
		if off.Observe != observeOff {
			continue
		}
		if off.Machine.Kernel != kernel {
			kernel = off.Machine.Kernel
			fmt.Fprintf(tw, "Linux %s, %d CPUs: a step's seconds, medians\n", kernel, off.Machine.CPUs)
			fmt.Fprintln(tw, "step\tobserved files\tnot observed\tauto\tratio\tcopy\tratio\tmay be\truns\t")
		}
		fmt.Fprintf(tw, "%s\t%d\t%.2f\t%s\t%s\t%.2f\t%d\t\n", off.Step, off.Files, off.MedianS,
			costCells(findCost(rows, off.Step, kernel, observeAuto)), costCells(findCost(rows, off.Step, kernel, observeCopy)),
			off.Bound, len(off.Seconds))
	}
	return tw.Flush()
}

// costCells are seconds and ratio, the latter marked where it is above the bound.
func costCells(r *costRow) string {
	if r == nil {
		return "-\t-"
	}
	mark := ""
	if r.Ratio != nil && *r.Ratio > r.Bound {
		mark = "!"
	}
	return fmt.Sprintf("%.2f\t%s%s", r.MedianS, mark, orDash(r.Ratio))
}

package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"golang.org/x/sys/unix"
)

// row is one builder in one scenario of one workload. Bytes and requests are medians over the runs, the peak is the
// highest of them.
type row struct {
	Workload     string    `json:"workload"`
	Scenario     string    `json:"scenario"`
	LatencyMS    int64     `json:"latency_ms"` // added to each round trip with the registry
	Builder      string    `json:"builder"`
	Seconds      []float64 `json:"seconds"`
	MedianS      float64   `json:"median_s"`
	Ratio        *float64  `json:"ratio"`      // to the baseline's median; null without one
	WarmRatio    *float64  `json:"warm_ratio"` // to the median on a machine that kept everything; null without one
	PeakRSS      int64     `json:"peak_rss_bytes"`
	RegistryDown int64     `json:"registry_down_bytes"`
	RegistryUp   int64     `json:"registry_up_bytes"`
	Requests     int64     `json:"requests"`
	PackagesDown *int64    `json:"packages_down_bytes"` // from package registries; null where nobody counted
	Mounts       *mountRow `json:"cache_mounts"`        // null for a builder that restores none
	Ran          []string  `json:"ran"`                 // the RUN steps that the last run was not spared; null where nobody looked
	Measured     time.Time `json:"measured"`
}

// mountRow is what was restored of cache mounts and saved, each a median over the runs.
type mountRow struct {
	RestoreS     float64 `json:"restore_s"`
	RestoreBytes int64   `json:"restore_bytes"`
	SaveS        float64 `json:"save_s"`
	SaveBytes    int64   `json:"save_bytes"`
}

// run is one measured build.
type run struct {
	seconds               float64
	peak, down, up, count int64
	packages              *int64
	mounts                *mountTraffic
	ran                   []string
}

func newRow(workload, scenario string, delay time.Duration, builder string, runs []run) row {
	r := row{
		Workload: workload, Scenario: scenario, LatencyMS: delay.Milliseconds(), Builder: builder,
		Measured: time.Now().UTC().Truncate(time.Second),
	}
	r.Ran = append([]string{}, runs[len(runs)-1].ran...)
	var down, up, count, packages []int64
	var mounts []mountTraffic
	for _, m := range runs {
		r.Seconds = append(r.Seconds, m.seconds)
		r.PeakRSS = max(r.PeakRSS, m.peak)
		down, up, count = append(down, m.down), append(up, m.up), append(count, m.count)
		if m.packages != nil {
			packages = append(packages, *m.packages)
		}
		if m.mounts != nil {
			mounts = append(mounts, *m.mounts)
		}
	}
	if len(packages) > 0 {
		r.PackagesDown = new(median(packages))
	}
	if len(mounts) > 0 {
		r.Mounts = newMountRow(mounts)
	}
	r.MedianS, r.RegistryDown, r.RegistryUp, r.Requests = median(r.Seconds), median(down), median(up), median(count)
	return r
}

// mountTraffic is how long a build was busy with cache mounts, and the bytes of their contents that it got and sent.
type mountTraffic struct {
	mountTimes
	down, up int64
}

func newMountRow(runs []mountTraffic) *mountRow {
	var restore, save []float64
	var restored, saved []int64
	for _, m := range runs {
		restore, restored = append(restore, m.restore), append(restored, m.down)
		save, saved = append(save, m.save), append(saved, m.up)
	}
	return &mountRow{RestoreS: thousandth(median(restore)), RestoreBytes: median(restored), SaveS: thousandth(median(save)), SaveBytes: median(saved)}
}

func thousandth(v float64) float64 { return math.Round(v*1000) / 1000 }

func median[T int64 | float64](values []T) T {
	if len(values) == 0 {
		return 0
	}
	s := slices.Sorted(slices.Values(values))
	if len(s)%2 == 1 {
		return s[len(s)/2]
	}
	return (s[len(s)/2-1] + s[len(s)/2]) / 2
}

// label names a scenario for people.
func label(scenario string, delay time.Duration) string {
	if delay == 0 {
		return scenario
	}
	return fmt.Sprintf("%s (%d ms)", scenario, delay.Milliseconds())
}

// place says what a row measured: all but the builder.
func (r row) place() string { return r.Workload + "/" + r.label() }

func (r row) label() string { return label(r.Scenario, time.Duration(r.LatencyMS)*time.Millisecond) }

// setRatios compares each row with the baseline's row of the same workload, scenario and latency, and with the one of a machine
// that kept everything: the baseline's too, or its own where the baseline cannot do the same. What a round trip costs is not
// compared with what a near registry costs.
func setRatios(rows []row, baseline string) {
	medianOf := func(builder, place string) float64 {
		for _, r := range rows {
			if r.Builder == builder && r.place() == place {
				return r.MedianS
			}
		}
		return 0
	}
	for i := range rows {
		r := &rows[i]
		r.Ratio, r.WarmRatio = ratio(r.MedianS, medianOf(baseline, r.place())), nil
		if s, err := scenarioByName(r.Scenario); err == nil && s.warm != "" && r.LatencyMS == 0 {
			warm := row{Workload: r.Workload, Scenario: s.warm}.place()
			if s.series == ran {
				r.WarmRatio = ratio(r.MedianS, medianOf(r.Builder, warm))
			} else {
				r.WarmRatio = ratio(r.MedianS, medianOf(baseline, warm))
			}
		}
	}
}

// ratio is nil where there is nothing to compare with.
func ratio(v, to float64) *float64 {
	if to <= 0 {
		return nil
	}
	return new(thousandth(v / to))
}

// merge puts new rows over old ones of the same workload, scenario, latency and builder, in the order in which they run.
func merge(old, fresh []row) []row {
	out := slices.Clone(fresh)
	for _, o := range old {
		if !slices.ContainsFunc(fresh, func(r row) bool { return r.place() == o.place() && r.Builder == o.Builder }) {
			out = append(out, o)
		}
	}
	workloadOf := func(r row) int {
		return slices.IndexFunc(workloads, func(w workload) bool { return w.name == r.Workload })
	}
	scenarioOf := func(r row) int {
		return slices.IndexFunc(scenarios, func(s scenario) bool { return s.name == r.Scenario })
	}
	slices.SortStableFunc(out, func(a, b row) int {
		return cmp.Or(
			cmp.Compare(workloadOf(a), workloadOf(b)),
			cmp.Compare(scenarioOf(a), scenarioOf(b)),
			cmp.Compare(a.LatencyMS, b.LatencyMS),
			strings.Compare(b.Builder, a.Builder),
		)
	})
	return out
}

func printTable(w io.Writer, rows []row) error {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(tw, "workload\tscenario\tbuilder\tmedian s\tratio\tpeak MB\tdown kB\tup kB\trequests\tsteps run\truns\t")
	for _, r := range rows {
		steps := "-"
		if r.Ran != nil {
			steps = strconv.Itoa(len(r.Ran))
		}
		fmt.Fprintf(tw, "%s\t%s\t%s\t%.2f\t%s\t%.0f\t%.0f\t%.0f\t%d\t%s\t%d\t\n", r.Workload, r.label(), r.Builder, r.MedianS, orDash(r.Ratio),
			float64(r.PeakRSS)/1e6, float64(r.RegistryDown)/1e3, float64(r.RegistryUp)/1e3, r.Requests, steps, len(r.Seconds))
	}
	if err := tw.Flush(); err != nil {
		return err
	}
	return printMounts(w, rows)
}

// printMounts shows what the rows say of cache mounts and of machines that kept theirs.
func printMounts(w io.Writer, rows []row) error {
	rows = slices.DeleteFunc(slices.Clone(rows), func(r row) bool {
		return r.WarmRatio == nil && r.PackagesDown == nil && (r.Mounts == nil || *r.Mounts == mountRow{})
	})
	if len(rows) == 0 {
		return nil
	}
	fmt.Fprintln(w, "\nCache mounts, and how long a machine takes that kept everything (warm = 1):")
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(tw, "workload\tscenario\tbuilder\tmedian s\twarm\trestore s\tkB\tsave s\tkB\tpackages kB\t")
	for _, r := range rows {
		var packages *float64
		if r.PackagesDown != nil {
			packages = new(float64(*r.PackagesDown) / 1e3)
		}
		mounts := "-\t-\t-\t-"
		if m := r.Mounts; m != nil {
			mounts = fmt.Sprintf("%.3f\t%.0f\t%.3f\t%.0f", m.RestoreS, float64(m.RestoreBytes)/1e3, m.SaveS, float64(m.SaveBytes)/1e3)
		}
		fmt.Fprintf(tw, "%s\t%s\t%s\t%.2f\t%s\t%s\t%s\t\n", r.Workload, r.label(), r.Builder, r.MedianS, orDash(r.WarmRatio), mounts, orDash(packages))
	}
	return tw.Flush()
}

func orDash(v *float64) string {
	if v == nil {
		return "-"
	}
	return strconv.FormatFloat(*v, 'f', 2, 64)
}

// machine says where the newest rows were measured.
type machine struct {
	Date     time.Time `json:"date"`
	CPUs     int       `json:"cpus"`
	MemoryMB uint64    `json:"memory_mb"`
	Kernel   string    `json:"kernel"`
	Go       string    `json:"go"`
	Baseline string    `json:"baseline"`
}

func thisMachine(baseline string) machine {
	m := machine{Date: time.Now().UTC().Truncate(time.Second), CPUs: runtime.NumCPU(), Go: runtime.Version(), Baseline: baseline}
	var info unix.Sysinfo_t
	if unix.Sysinfo(&info) == nil {
		m.MemoryMB = info.Totalram * uint64(info.Unit) >> 20
	}
	var uts unix.Utsname
	if unix.Uname(&uts) == nil {
		m.Kernel = unix.ByteSliceToString(uts.Release[:])
	}
	return m
}

// save merges rows into the file, and writes the machine beside it.
func save(path string, rows []row, m machine) ([]row, error) {
	var old []row
	if b, err := os.ReadFile(path); err == nil {
		if err := json.Unmarshal(b, &old); err != nil {
			return nil, fmt.Errorf("%s holds no results (remove it): %w", path, err)
		}
	} else if !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	all := merge(old, rows)
	setRatios(all, m.Baseline)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, err
	}
	if err := writeJSON(path, all); err != nil {
		return nil, err
	}
	return all, writeJSON(strings.TrimSuffix(path, ".json")+".machine.json", m)
}

func writeJSON(path string, v any) error {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(b, '\n'), 0o644)
}

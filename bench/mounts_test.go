package main

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// download gets what is outside through a proxy.
func (f *fakeBuilder) download(proxy string) error {
	u, err := url.Parse(proxy)
	if err != nil {
		return err
	}
	client := &http.Client{Transport: &http.Transport{Proxy: http.ProxyURL(u), DisableKeepAlives: true}}
	res, err := client.Get(f.outside)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	_, err = io.Copy(io.Discard, res.Body)
	return err
}

// fakeRunner is a builder that can run commands, too.
type fakeRunner struct{ *fakeBuilder }

func (f *fakeRunner) Run(ctx context.Context, j job, target string, command []string) error {
	*f.events = append(*f.events, f.name+" runs "+target+": "+strings.Join(command, " "))
	return f.Build(ctx, j)
}

func (f *fakeRunner) MountTimes() mountTimes { return mountTimes{restore: 0.25, save: 0.5} }

// newMountStage is a stage whose workload has cache mounts, on two base images, and whose builder a can run commands.
func newMountStage(t *testing.T) *stage {
	s := newStage(t, 0)
	s.w.mounts, s.w.target, s.w.test = true, "build", []string{"check", "it"}
	for _, c := range s.all {
		dockerfile := "FROM ${REGISTRY}/sdk AS build\nFROM ${REGISTRY}/small\nFROM ${REGISTRY}/sdk AS more\nFROM scratch\n"
		if err := os.WriteFile(filepath.Join(c.dir, "Dockerfile"), []byte(dockerfile), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	s.all[0].b = &fakeRunner{s.fakes[0]}
	return s
}

// TestBaseRunsFindBaseImagesOnly insists that a build on a machine with base images finds those, and of the registry what the first
// build left.
func TestBaseRunsFindBaseImagesOnly(t *testing.T) {
	s := newMountStage(t)
	s.play(t, "nochange", "base-oneline")
	const bases = `ARG REGISTRY=localhost:5055
FROM ${REGISTRY}/sdk AS base0
RUN echo sdk > /based-on
FROM ${REGISTRY}/small AS base1
RUN echo small > /based-on
FROM scratch
COPY --from=base0 /based-on /base0
COPY --from=base1 /based-on /base1
`
	for _, f := range s.fakes {
		var measured []found
		for _, m := range f.seen {
			if m.job.cache != "" && m.source != "original" {
				measured = append(measured, m)
			}
		}
		if len(measured) != 2 || measured[0].source == measured[1].source {
			t.Fatalf("%s: builds of changed sources: %+v", f.name, measured)
		}
		for _, m := range measured {
			if !slices.Equal(m.local, []string{bases}) {
				t.Errorf("%s finds on its machine: %q", f.name, m.local)
			}
			if !slices.Equal(m.cache, []string{"original"}) {
				t.Errorf("%s finds caches of %q", f.name, m.cache)
			}
		}
	}
	if got := strings.Join(s.events[len(s.events)-4:], ","); got != "b stop,b start,b bases,b build" {
		t.Errorf("the last run: %s", got)
	}
}

// TestRunsAreOfThoseWhoCan lets the only builder run commands that can, on a kept machine and on new ones.
func TestRunsAreOfThoseWhoCan(t *testing.T) {
	s := newMountStage(t)
	for name, local := range map[string]int{"run": -1, "fresh-run": 0, "base-run": 1} {
		s.events = nil
		before := len(s.fakes[0].seen)
		rows := s.play(t, name)
		if len(rows) != 1 || rows[0].Builder != "a" || len(rows[0].Seconds) != 2 {
			t.Fatalf("%s: rows: %+v", name, rows)
		}
		if m := rows[0].Mounts; m == nil || *m != (mountRow{RestoreS: 0.25, SaveS: 0.5}) {
			t.Errorf("%s: cache mounts: %+v", name, m)
		}
		if !slices.Contains(s.events, "a runs build: check it") || slices.ContainsFunc(s.events, func(e string) bool { return e[0] == 'b' }) {
			t.Errorf("%s: %q", name, s.events)
		}
		seen := s.fakes[0].seen[before:]
		for i, m := range seen[len(seen)-2:] {
			if !strings.HasSuffix(m.job.cache, "-run") || !slices.Equal(m.cache, []string{"original"}) {
				t.Errorf("%s %d: cache %s holds %q", name, i, m.job.cache, m.cache)
			}
			if local >= 0 && len(m.local) != local || local < 0 && m.local[len(m.local)-1] != "original" {
				t.Errorf("%s %d finds on its machine: %q", name, i, m.local)
			}
		}
	}
}

// TestPackagesAreCounted counts what comes through the proxy in the measured builds, and in no others.
func TestPackagesAreCounted(t *testing.T) {
	const size = 5000
	outside := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(make([]byte, size)) }))
	t.Cleanup(outside.Close)
	s := newMountStage(t)
	s.harness.packages = newTestPackageProxy(t)
	for _, f := range s.fakes {
		f.outside = outside.URL
	}
	rows := s.play(t, "fresh-onedep", "fresh-oneline")
	if len(rows) != 4 {
		t.Fatalf("rows: %+v", rows)
	}
	for _, r := range rows[:2] {
		if r.PackagesDown == nil || *r.PackagesDown != size {
			t.Errorf("%s of %s counts %v bytes of packages, want %d", r.Scenario, r.Builder, r.PackagesDown, size)
		}
	}
	for _, r := range rows[2:] {
		if r.PackagesDown != nil {
			t.Errorf("%s of %s counts packages", r.Scenario, r.Builder)
		}
	}
	for _, c := range s.all {
		if b, err := os.ReadFile(filepath.Join(c.dir, "source")); err != nil || string(b) != "original" {
			t.Errorf("%s's working copy: %q, %v", c.name, b, err)
		}
	}
}

// TestWhoTakesPart: scenarios of cache mounts are nothing for workloads without, nor those of a README for others.
func TestWhoTakesPart(t *testing.T) {
	for _, c := range []struct{ workload, takes, not string }{
		{"go", "fresh base-oneline fresh-onedep run base-run", ""},
		{"node-mounts", "oneline base-oneline fresh-onedep", "run fresh-run base-run"},
		{"apt", "onedep fresh-oneline", "base-oneline fresh-onedep run readme"},
		{"order", "readme fresh-readme fresh-onedep oneline", "base-oneline run"},
	} {
		w, err := workloadByName(c.workload)
		if err != nil {
			t.Fatal(err)
		}
		for names, want := range map[string]bool{c.takes: true, c.not: false} {
			for _, name := range strings.Fields(names) {
				s, err := scenarioByName(name)
				if err != nil {
					t.Fatal(err)
				}
				if w.takesPart(s) != want {
					t.Errorf("%s takes part in %s: %t", w.name, s.name, !want)
				}
			}
		}
	}
}

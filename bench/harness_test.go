package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"larder/internal/testregistry"
)

// fakeBuilder pushes the working copy's source as a blob to the image's repository, and to the cache's where there is
// one, and notes what it found.
type fakeBuilder struct {
	t       *testing.T
	name    string
	addr    string
	client  *http.Client // makes a connection for each request
	events  *[]string    // of all builders
	beside  bool         // its cache is in another repository
	outside string       // the URL of what it downloads where it is told of a proxy
	running bool
	local   []string // sources that the local state has built
	seen    []found
}

// found is what one build met.
type found struct {
	job    job
	source string
	local  []string // sources built here before
	image  []string // sources in the image's repository, of those that any build had
	cache  []string // the same of the cache's
}

func (f *fakeBuilder) Start(context.Context) error {
	if f.running {
		f.t.Errorf("%s is started twice", f.name)
	}
	f.running = true
	*f.events = append(*f.events, f.name+" start")
	return nil
}

func (f *fakeBuilder) Stop() error {
	f.running, f.local = false, nil
	*f.events = append(*f.events, f.name+" stop")
	return nil
}

func (f *fakeBuilder) Build(_ context.Context, j job) error {
	if !f.running {
		f.t.Errorf("%s builds before it is started", f.name)
	}
	if j.image == "" {
		b, err := os.ReadFile(filepath.Join(j.dir, "Dockerfile"))
		*f.events = append(*f.events, f.name+" bases")
		f.local = append(f.local, string(b))
		return err
	}
	*f.events = append(*f.events, f.name+" build")
	if j.proxy != "" {
		if err := f.download(j.proxy); err != nil {
			return err
		}
	}
	b, err := os.ReadFile(filepath.Join(j.dir, "source"))
	if err != nil {
		return err
	}
	repo, _, _ := strings.Cut(strings.TrimPrefix(j.image, f.addr+"/"), ":")
	met := found{job: j, source: string(b), local: slices.Clone(f.local), image: f.list(repo)}
	if err := f.push(repo, b); err != nil {
		return err
	}
	if cache := strings.TrimPrefix(j.cache, f.addr+"/"); cache != "" {
		met.cache = met.image
		if cache != repo {
			met.cache = f.list(cache)
			if err := f.push(cache, b); err != nil {
				return err
			}
		}
	}
	f.seen = append(f.seen, met)
	f.local = append(f.local, string(b))
	return nil
}

// list tells which of the sources seen so far a repository holds.
func (f *fakeBuilder) list(repo string) (sources []string) {
	for _, s := range f.seen {
		res, err := f.client.Head("http://" + f.addr + "/v2/" + repo + "/blobs/" + digest.FromString(s.source).String())
		if err != nil {
			f.t.Error(err)
			return nil
		}
		res.Body.Close()
		if res.StatusCode == http.StatusOK && !slices.Contains(sources, s.source) {
			sources = append(sources, s.source)
		}
	}
	return sources
}

func (f *fakeBuilder) push(repo string, b []byte) error {
	res, err := f.client.Post("http://"+f.addr+"/v2/"+repo+"/blobs/uploads/", "", nil)
	if err != nil {
		return err
	}
	res.Body.Close()
	to := res.Header.Get("Location") + "&digest=" + digest.FromBytes(b).String()
	req, err := http.NewRequest(http.MethodPut, to, bytes.NewReader(b))
	if err != nil {
		return err
	}
	if res, err = f.client.Do(req); err != nil {
		return err
	}
	text, _ := io.ReadAll(res.Body)
	res.Body.Close()
	if res.StatusCode != http.StatusCreated {
		return fmt.Errorf("%s: %s", res.Status, text)
	}
	return nil
}

func (f *fakeBuilder) CacheRepository(r string) string {
	if f.beside {
		return r + "-cache"
	}
	return r
}

// Ran is the one step of a source that was not built here before.
func (f *fakeBuilder) Ran() []ranStep {
	if last := f.seen[len(f.seen)-1]; !slices.Contains(last.local, last.source) {
		return []ranStep{{name: "make " + last.source}}
	}
	return nil
}

func (f *fakeBuilder) PeakRSS() int64   { return 1 << 20 }
func (f *fakeBuilder) ResetPeak() error { return nil }

// stage is a harness with two fake builders and a workload of one file.
type stage struct {
	*harness
	w      workload
	all    []*contestant
	fakes  []*fakeBuilder
	events []string
}

func newStage(t *testing.T, latency time.Duration) *stage {
	t.Helper()
	dir := t.TempDir()
	reg := testregistry.StartWith(t, testregistry.Options{Dir: filepath.Join(dir, "registry")})
	k := newTestLink(t, reg.Addr)
	far, err := testregistry.NewProxy(reg.Addr, testregistry.ProxyOptions{RoundTrip: latency})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := far.Close(); err != nil {
			t.Error(err)
		}
	})
	s := &stage{
		harness: &harness{
			settings: settings{runs: 2, coldRuns: 2, latency: latency},
			scratch:  dir,
			registry: reg,
			stock:    newStock(reg, filepath.Join(dir, "registry"), filepath.Join(dir, "stock")),
			link:     k,
			far:      far,
			settle:   func() {},
		},
		w: workload{
			name:     "one",
			maxDeps:  5,
			lineFile: always("source"),
			oneLine:  func(path string, n int) error { return os.WriteFile(path, fmt.Appendf(nil, "line %d", n), 0o644) },
			oneDep: func(dir string, n int) error {
				return os.WriteFile(filepath.Join(dir, "source"), fmt.Appendf(nil, "dependency %d", n), 0o644)
			},
		},
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	for i, name := range []string{"a", "b"} {
		f := &fakeBuilder{t: t, name: name, addr: k.addr, client: client, events: &s.events, beside: i == 1}
		c := newContestant(name, f, filepath.Join(dir, "work-"+name), "bench/"+name)
		if err := os.Mkdir(c.dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(c.dir, "source"), []byte("original"), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := f.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		s.all, s.fakes = append(s.all, c), append(s.fakes, f)
	}
	return s
}

// play runs scenarios, each in all its latencies.
func (s *stage) play(t *testing.T, names ...string) (rows []row) {
	t.Helper()
	for _, name := range names {
		sc, err := scenarioByName(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range s.delays(sc) {
			got, err := s.scenario(t.Context(), s.w, sc, d, s.all)
			if err != nil {
				t.Fatal(err)
			}
			rows = append(rows, got...)
		}
	}
	return rows
}

// TestFreshRunsMeetTheFirstBuild insists that each fresh build finds no local state, and of the registry exactly what
// the first build left, whatever ran before it.
func TestFreshRunsMeetTheFirstBuild(t *testing.T) {
	for _, before := range []string{"", "cold-cache", "oneline"} {
		t.Run("after "+before, func(t *testing.T) {
			s := newStage(t, 2*time.Millisecond)
			s.runs, s.coldRuns = 1, 1
			original := "original"
			if before != "" {
				s.play(t, before)
			}
			if before == "oneline" {
				original = "line 1"
			}
			for _, f := range s.fakes {
				f.seen = slices.DeleteFunc(f.seen, func(m found) bool { return m.job.cache == "" })
			}
			s.play(t, "fresh-oneline", "fresh", "fresh-oneline")
			for _, f := range s.fakes {
				edits := map[string]bool{}
				for i, m := range f.seen {
					if len(m.local) != 0 {
						t.Errorf("%s, build %d finds %q built here", f.name, i, m.local)
					}
					if m.source != original {
						if edits[m.source] {
							t.Errorf("%s, build %d: %q comes again", f.name, i, m.source)
						}
						edits[m.source] = true
					}
					want := []string{original}
					if i == 0 {
						want = nil
					}
					if !slices.Equal(m.image, want) || !slices.Equal(m.cache, want) {
						t.Errorf("%s, build %d finds images of %q and caches of %q, want %q", f.name, i, m.image, m.cache, want)
					}
				}
				// The first build, then two scenarios of edits and one without, with two latencies each.
				if len(edits) != 4 || len(f.seen) != 1+6 {
					t.Errorf("%s: %d builds, %d edits", f.name, len(f.seen), len(edits))
				}
			}
			for _, c := range s.all {
				if b, err := os.ReadFile(filepath.Join(c.dir, "source")); err != nil || string(b) != original {
					t.Errorf("%s's working copy: %q, %v, want %q", c.name, b, err, original)
				}
			}
		})
	}
}

// TestLocalScenariosAfterFreshOnes insists that they find the local state of builds without a remote cache only, the
// last of them of the working copy as it was.
func TestLocalScenariosAfterFreshOnes(t *testing.T) {
	s := newStage(t, 0)
	s.play(t, "nochange", "fresh", "nochange", "onedep", "fresh", "cold", "oneline")
	want := []struct {
		cache  bool
		source string
		local  string
	}{
		{false, "original", ""}, {false, "original", "original"}, {false, "original", "original original"}, // nochange
		{true, "original", ""}, {true, "original", ""}, {true, "original", ""}, // fresh, its first build before it
		// nochange after fresh has a first build again. The local state of the last fresh run is there as well.
		{false, "original", "original"}, {false, "original", "original original"}, {false, "original", "original original original"},
		{false, "dependency 1", "original original original original"},
		{false, "dependency 2", "original original original original dependency 1"},
		{true, "dependency 2", ""}, {true, "dependency 2", ""}, {true, "dependency 2", ""}, // another working copy, another first build
		{false, "dependency 2", ""}, {false, "dependency 2", ""}, // cold
		{false, "line 1", "dependency 2"}, {false, "line 2", "dependency 2 line 1"}, // oneline
	}
	for _, f := range s.fakes {
		if len(f.seen) != len(want) {
			t.Fatalf("%s made %d builds, want %d", f.name, len(f.seen), len(want))
		}
		for i, w := range want {
			m := f.seen[i]
			if (m.job.cache != "") != w.cache || m.source != w.source || strings.Join(m.local, " ") != w.local {
				t.Errorf("%s, build %d: cache %q, source %q, built here %q; want %+v", f.name, i, m.job.cache, m.source, m.local, w)
			}
		}
	}
}

func TestBuildersTakeTurnsAndStartInsideFreshRuns(t *testing.T) {
	s := newStage(t, 0)
	s.play(t, "cold-cache")
	s.events = nil
	rows := s.play(t, "fresh")
	turn := "a stop,a start,a build,b stop,b start,b build"
	if got := strings.Join(s.events, ","); got != turn+","+turn {
		t.Errorf("order: %s", got)
	}
	if len(rows) != 2 || rows[0].Builder != "a" || rows[1].Builder != "b" || len(rows[0].Seconds) != 2 {
		t.Fatalf("rows: %+v", rows)
	}
	// The fake asks for the sources that it has seen, and uploads with two requests per repository.
	if rows[0].Requests == 0 || rows[0].RegistryUp != int64(len("original")) || rows[1].RegistryUp != 2*int64(len("original")) {
		t.Errorf("rows: %+v", rows)
	}
}

// TestLatencyIsOfTheMeasuredBuildsOnly compares the same builds through both kinds of link.
func TestLatencyIsOfTheMeasuredBuildsOnly(t *testing.T) {
	const delay = 30 * time.Millisecond
	s := newStage(t, delay)
	s.runs = 1
	rows := s.play(t, "fresh")
	if len(rows) != 4 || rows[0].LatencyMS != 0 || rows[2].LatencyMS != delay.Milliseconds() {
		t.Fatalf("rows: %+v", rows)
	}
	for _, r := range rows[2:] {
		if least := float64(r.Requests) * delay.Seconds(); r.MedianS < least {
			t.Errorf("%d requests in a row took %.3f s, want %.3f at least", r.Requests, r.MedianS, least)
		}
	}
	// Nothing else went that way: each of the fake's requests has a connection of its own.
	if far := s.far.Traffic().Connections; far != rows[2].Requests+rows[3].Requests {
		t.Errorf("%d connections through the proxy for %d requests", far, rows[2].Requests+rows[3].Requests)
	}
}

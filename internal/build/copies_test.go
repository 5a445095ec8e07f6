package build

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"larder/internal/runstep"
	"larder/internal/testregistry"
)

// brokenRunner has steps fail when they have looked at everything.
type brokenRunner struct{ *fakeRunner }

func (b brokenRunner) Run(ctx context.Context, step runstep.Step) (*runstep.Result, error) {
	if _, err := b.fakeRunner.Run(ctx, step); err != nil {
		return nil, err
	}
	return nil, &runstep.ProcessError{Args: step.Op.Meta.Args, Err: errors.New("exit code: 1")}
}

// TestAMachineThatMayNotReadTakesNothingFromOthers: all blobs are denied to one machine, on which nothing can be run either.
func TestAMachineThatMayNotReadTakesNothingFromOthers(t *testing.T) {
	for _, status := range []int{http.StatusForbidden, http.StatusUnauthorized} {
		var sick atomic.Bool
		reg := newRegistry(t, testregistry.Options{Wrap: func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if sick.Load() && r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/app/blobs/") {
					w.WriteHeader(status)
					return
				}
				next.ServeHTTP(w, r)
			})
		}})
		dir := project(t, twoRuns(reg.Ref("base")))
		image := reg.Ref("app:main")
		want, _ := newMachine(t, reg.Addr).must(request(dir, image))

		sick.Store(true)
		write(t, dir, map[string]string{"f": "1"})
		m := newMachine(t, reg.Addr)
		m.engine.runner = brokenRunner{m.runner}
		if _, _, err := m.build(request(dir, image)); err == nil {
			t.Fatal("a machine on which nothing can be run built the image")
		}
		sick.Store(false)
		write(t, dir, map[string]string{"f": "0"})
		m = newMachine(t, reg.Addr)
		if got, _ := m.must(request(dir, image)); got != want || len(m.runner.commands()) > 0 {
			t.Errorf("status %d: afterwards others ran %q and made %s, was %s", status, m.runner.commands(), got, want)
		}
		write(t, dir, map[string]string{"f": "2"})
		m = newMachine(t, reg.Addr)
		if m.must(request(dir, image)); !slices.Equal(m.runner.commands(), []string{"two b"}) {
			t.Errorf("status %d: afterwards an edit ran %q: the layer below is there", status, m.runner.commands())
		}
	}
}

// TestNoCacheReplacesWhatTheCatalogSaysOfBaseImages: after --no-cache, a COPY of something new is right as well.
func TestNoCacheReplacesWhatTheCatalogSaysOfBaseImages(t *testing.T) {
	s := newSite(t)
	dir := project(t, map[string]string{"Dockerfile": "FROM " + s.reg.Ref("base") + "\nCOPY --chown=app f /\nRUN one a\n", "f": "0"})
	image := s.reg.Ref("app:main")
	newMachine(t, s.reg.Addr).must(request(dir, image))
	s.alter("app", DefaultScope, ownedByRoot)
	anew := request(dir, image)
	anew.NoCache = true
	newMachine(t, s.reg.Addr).must(anew)
	write(t, dir, map[string]string{"f": "1"})
	want := reference(t, dir, image, s.reg.Addr)
	if got, _ := newMachine(t, s.reg.Addr).must(request(dir, image)); got != want {
		t.Errorf("image %s, a build from nothing gives %s", got, want)
	}
}

// TestOneOfTwoEqualCopiesIsEnough: two caches have the very same blobs, and one of them loses its own, or has other bytes.
func TestOneOfTwoEqualCopiesIsEnough(t *testing.T) {
	reg := newRegistry(t, testregistry.Options{})
	dir := project(t, twoRuns(reg.Ref("base")))
	for name, spoil := range spoilings {
		for loser := range 2 {
			write(t, dir, map[string]string{"f": "0"})
			caches := []string{t.TempDir(), t.TempDir()}
			req := func() *Request {
				r := request(dir, reg.Ref("app:main"))
				r.Cache = Cache{}
				return r.cached(caches[0]).cached(caches[1])
			}
			newMachine(t, reg.Addr).must(req())
			if n := bigBlobs(t, caches[loser], spoil); n != 2 {
				t.Fatalf("%d layers spoilt, want 2", n)
			}
			write(t, dir, map[string]string{"f": "1"})
			m := newMachine(t, reg.Addr)
			m.must(req())
			if ran := m.names(); !slices.Equal(ran, []string{"two b"}) {
				t.Errorf("%s in cache %d: ran %q", name, loser, ran)
			}
		}
	}
}

// TestWhatOneCacheLostStaysInTheOther: a blob is gone from one cache, and a build that uses both and fails says so. The other cache has
// that blob still.
func TestWhatOneCacheLostStaysInTheOther(t *testing.T) {
	reg := newRegistry(t, testregistry.Options{})
	dir := project(t, twoRuns(reg.Ref("base")))
	caches := []string{t.TempDir(), t.TempDir()}
	with := func(caches ...string) *Request {
		r := request(dir, reg.Ref("app:main"))
		r.Cache = Cache{}
		for _, c := range caches {
			r.cached(c)
		}
		return r
	}
	newMachine(t, reg.Addr).must(with(caches...))
	bigBlobs(t, caches[0], spoilings["gone"])
	write(t, dir, map[string]string{"f": "1"})
	m := newMachine(t, reg.Addr)
	m.engine.runner = brokenRunner{m.runner}
	if _, _, err := m.build(with(caches...)); err == nil {
		t.Fatal("a machine on which nothing can be run built the image")
	}
	write(t, dir, map[string]string{"f": "0"})
	m = newMachine(t, reg.Addr)
	if _, res := m.must(with(caches[1])); res.Ran > 0 {
		t.Errorf("the other cache alone: ran %q", m.names())
	}
}

// TestAnExportThatGoesBackCountsRight: everything hits, and every layer turns out to be gone.
func TestAnExportThatGoesBackCountsRight(t *testing.T) {
	s := newSite(t)
	dir := project(t, twoRuns(s.reg.Ref("base")))
	newMachine(t, s.reg.Addr).must(request(dir, s.reg.Ref("app:main")))
	s.loseBlobs()
	req := request(dir, s.reg.Ref("app:main"))
	req.Outputs = []map[string]string{{"type": "oci", "dest": t.TempDir() + "/image.tar"}}
	m := newMachine(t, s.reg.Addr)
	if _, res := m.must(req); res.Ran != 2 || res.Cached != 0 {
		t.Errorf("%d run, %d cached; want 2, 0\n%s", res.Ran, res.Cached, m.text())
	}
}

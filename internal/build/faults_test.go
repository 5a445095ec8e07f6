package build

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/opencontainers/go-digest"

	"larder/internal/fault"
	"larder/internal/layer"
	"larder/internal/registry"
	"larder/internal/remote"
	"larder/internal/testregistry"
)

// faulty is a registry whose requests fail as told, and what builds against it must give.
type faulty struct {
	t      testing.TB
	reg    *testregistry.Registry
	faults *testregistry.Faults
	dir    string
	edited string
	want   map[string]string // digest of the image, by directory
}

func newFaulty(t testing.TB) *faulty {
	f := &faulty{t: t, faults: &testregistry.Faults{}, want: map[string]string{}}
	f.reg = newRegistry(t, testregistry.Options{Wrap: f.faults.Wrap})
	files := stages(f.reg.Ref("base"))
	f.dir = project(t, files)
	files["left/a.c"] = "int edited;"
	f.edited = project(t, files)
	for _, dir := range []string{f.dir, f.edited} {
		f.want[dir] = reference(t, dir, f.reg.Ref("x:y"), f.reg.Addr)
	}
	return f
}

// repository gives one that is empty, always under the same name: requests of one build can be found again in another.
func (f *faulty) repository() string {
	f.faults.Reset()
	if err := f.reg.Forget("app"); err != nil {
		f.t.Fatal(err)
	}
	return f.reg.Ref("app")
}

// build builds on an empty machine. A failure has to be a registry's, said so that a person can do something about it; an image
// has to be the right one.
func (f *faulty) build(dir, repo string) (*machine, error) {
	f.t.Helper()
	m := newMachine(f.t, f.reg.Addr)
	defer m.close()
	got, _, err := m.build(request(dir, repo+":main"))
	switch {
	case err != nil:
		var gone *layer.GoneError
		if fault.Of(err) != fault.Registry || !strings.Contains(err.Error(), f.reg.Addr) || errors.As(err, &gone) {
			f.t.Errorf("a failure that is not said well: %v\n%s", err, f.faults)
		}
	case got != f.want[dir]:
		f.t.Errorf("image %s, a build from nothing gives %s\n%s\n%s", got, f.want[dir], f.faults, m.text())
	}
	return m, err
}

// heals builds twice without faults: both give the right image, and the second runs nothing.
func (f *faulty) heals(dir, repo, after string) {
	f.t.Helper()
	f.faults.Reset()
	if _, err := f.build(dir, repo); err != nil {
		f.t.Errorf("the build after %s: %v", after, err)
	}
	m, err := f.build(dir, repo)
	if err != nil {
		f.t.Errorf("the second build after %s: %v", after, err)
	} else if ran := m.runner.commands(); len(ran) > 0 {
		f.t.Errorf("the second build after %s ran %q\n%s", after, ran, m.text())
	}
}

// parallel runs cases beside each other, each worker with a registry of its own: most of the time is spent waiting.
func parallel[C any](t *testing.T, cases []C, do func(f *faulty, c C)) {
	next := make(chan C)
	var workers sync.WaitGroup
	for range 8 {
		f := newFaulty(t)
		workers.Go(func() {
			for c := range next {
				if !t.Failed() {
					do(f, c)
				}
			}
		})
	}
	for _, c := range cases {
		next <- c
	}
	close(next)
	workers.Wait()
}

// TestEachRequestFailsOnce is "must show" 5 of issue 3: each request of a first build, and of one with an edit on a machine that
// has only the registry, fails once, in each way.
func TestEachRequestFailsOnce(t *testing.T) {
	f := newFaulty(t)
	type oneCase struct {
		edit bool
		call testregistry.Call
		kind testregistry.Kind
	}
	var cases []oneCase
	repo := f.repository()
	for _, edit := range []bool{false, true} {
		f.faults.Reset()
		if _, err := f.build(f.at(edit), repo); err != nil {
			t.Fatal(err)
		}
		for _, c := range f.faults.Calls() {
			for _, kind := range testregistry.Kinds() {
				if c.Can(kind) {
					cases = append(cases, oneCase{edit, c, kind})
				}
			}
		}
	}
	var failed, fired atomic.Int64
	parallel(t, cases, func(f *faulty, c oneCase) {
		repo := f.repository()
		if c.edit {
			if _, err := f.build(f.dir, repo); err != nil {
				t.Error(err)
				return
			}
			f.faults.Reset()
		}
		f.faults.FailCall(c.call, c.kind)
		// That a base image's tag is not there yet is an answer, and nothing to be borne.
		expected := c.kind == testregistry.Stale && strings.Contains(c.call.Signature, "/base/manifests/")
		if _, err := f.build(f.at(c.edit), repo); err != nil && !expected {
			failed.Add(1)
			t.Logf("%s: %v", f.faults, err)
		}
		fired.Add(int64(len(f.faults.Fired())))
		f.heals(f.at(c.edit), repo, f.faults.String())
	})
	t.Logf("%d cases, %d of them came about, %d builds failed", len(cases), fired.Load(), failed.Load())
	if int(fired.Load()) < len(cases)*9/10 {
		t.Errorf("only %d of %d requests failed as they were to: the builds differ too much", fired.Load(), len(cases))
	}
	if failed.Load() > 0 {
		t.Errorf("%d builds failed: one failure of one request is to be borne", failed.Load())
	}
}

// at is the project, or the one with an edit.
func (f *faulty) at(edit bool) string {
	if edit {
		return f.edited
	}
	return f.dir
}

// TestSoakManyRequestsFail runs builds of which each request fails with some probability, in bursts: 50 runs, 5,000 in a soak.
func TestSoakManyRequestsFail(t *testing.T) {
	runs := 50
	if os.Getenv("LARDER_SOAK") != "" {
		runs = 5000
	}
	manyFail(t, runs)
}

func manyFail(t *testing.T, runs int) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	seeds := make([]uint64, runs)
	for i := range seeds {
		seeds[i] = seed + uint64(i)
	}
	var failed, builds atomic.Int64
	parallel(t, seeds, func(f *faulty, seed uint64) {
		rnd := rand.New(rand.NewPCG(seed, 5))
		repo := f.repository()
		for range 1 + rnd.IntN(3) {
			f.faults.Random(rnd.Uint64(), []float64{0.02, 0.1, 0.3, 0.6}[rnd.IntN(4)])
			builds.Add(1)
			if _, err := f.build(f.at(rnd.IntN(2) == 0), repo); err != nil {
				failed.Add(1)
			}
		}
		f.heals(f.dir, repo, fmt.Sprintf("seed %d: %s", seed, f.faults))
	})
	t.Logf("%d of %d builds failed, each with a registry's error", failed.Load(), builds.Load())
}

// TestARegistryThatIsDown: the cache does not answer at all; the image goes elsewhere, with one warning.
func TestARegistryThatIsDown(t *testing.T) {
	for _, status := range []int{0, 503} {
		var faults testregistry.Faults
		down := newRegistry(t, testregistry.Options{Wrap: faults.Wrap})
		reg := newRegistry(t, testregistry.Options{})
		dir := project(t, stages(reg.Ref("base")))
		faults.Down(status)
		m := newMachine(t, reg.Addr, down.Addr)
		req := request(dir, reg.Ref("app:main"))
		req.Cache = Cache{}
		got, _ := m.must(req.cached(down.Ref("cache")))
		if want := reference(t, dir, reg.Ref("app:main"), reg.Addr); got != want {
			t.Errorf("image %s, want %s", got, want)
		}
		if n := strings.Count(m.text(), "WARNING"); n != 1 || !strings.Contains(m.text(), down.Addr) {
			t.Errorf("%d warnings, want one that names the registry:\n%s", n, m.text())
		}
		req = request(dir, reg.Ref("app:main"))
		req.Cache = Cache{Strict: true}
		if _, _, err := newMachine(t, reg.Addr, down.Addr).build(req.cached(down.Ref("cache"))); fault.Of(err) != fault.Registry {
			t.Errorf("--cache-strict: %v", err)
		}
	}
}

// TestBlobsVanish is "must show" 6: blobs are deleted from the registry between builds, a few or half of them.
func TestBlobsVanish(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 6))
	f := newFaulty(t)
	for _, share := range []float64{0.01, 0.05, 0.2, 0.5} {
		for range 5 {
			repo := f.repository()
			if _, err := f.build(f.dir, repo); err != nil {
				t.Fatal(err)
			}
			gone, err := f.reg.DeleteBlobs(rnd.Uint64(), share, f.bases())
			if err != nil {
				t.Fatal(err)
			}
			if _, err := f.build(f.edited, repo); err != nil {
				t.Fatalf("%d blobs are gone: %v", len(gone), err)
			}
			f.heals(f.dir, repo, fmt.Sprintf("%d deleted blobs", len(gone)))
			f.heals(f.edited, repo, fmt.Sprintf("%d deleted blobs", len(gone)))
		}
	}
}

// bases tells the blobs of base images, which nobody can build again.
func (f *faulty) bases() func(digest.Digest) bool {
	m := newMachine(f.t, f.reg.Addr)
	defer m.close()
	var keep []digest.Digest
	ref, err := registry.ParseRef(f.reg.Ref("base"))
	if err != nil {
		f.t.Fatal(err)
	}
	desc, doc, err := m.engine.registry.Fetch(f.t.Context(), ref)
	if err != nil {
		f.t.Fatal(err)
	}
	keep = append(keep, desc.Digest)
	blobs, err := remote.Blobs(doc)
	if err != nil {
		f.t.Fatal(err)
	}
	for _, b := range blobs {
		keep = append(keep, b.Digest)
	}
	return func(d digest.Digest) bool { return slices.Contains(keep, d) }
}

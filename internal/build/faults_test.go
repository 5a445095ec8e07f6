package build

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
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
	n      int
}

func newFaulty(t testing.TB) *faulty {
	f := &faulty{t: t, faults: &testregistry.Faults{}, want: map[string]string{}}
	f.reg = newRegistry(t, testregistry.Options{Wrap: f.faults.Wrap})
	files := stages(f.reg.Ref("busybox"))
	f.dir = project(t, files)
	files["left/a.c"] = "int edited;"
	f.edited = project(t, files)
	for _, dir := range []string{f.dir, f.edited} {
		f.want[dir] = reference(t, dir, f.reg.Ref("x:y"), f.reg.Addr)
	}
	return f
}

// repository is a name that no build has used.
func (f *faulty) repository() string {
	f.n++
	return f.reg.Ref(fmt.Sprintf("app%d", f.n))
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

// TestEachRequestFailsOnce is "must show" 5 of issue 3: each request of a first build, and of one with an edit on a machine that
// has only the registry, fails once, in each way.
func TestEachRequestFailsOnce(t *testing.T) {
	f := newFaulty(t)
	stock := f.repository()
	calls := map[string][]testregistry.Call{}
	f.faults.Reset()
	if _, err := f.build(f.dir, stock); err != nil {
		t.Fatal(err)
	}
	calls[f.dir] = f.faults.Calls()
	f.faults.Reset()
	if _, err := f.build(f.edited, stock); err != nil {
		t.Fatal(err)
	}
	calls[f.edited] = f.faults.Calls()
	failed, cases := 0, 0
	for i, dir := range []string{f.dir, f.edited} {
		for number, c := range calls[dir] {
			for _, kind := range testregistry.Kinds() {
				if !c.Can(kind) {
					continue
				}
				cases++
				repo := f.repository()
				f.faults.Reset()
				if i == 1 {
					if _, err := f.build(f.dir, repo); err != nil {
						t.Fatal(err)
					}
					f.faults.Reset()
				}
				f.faults.FailOnce(number, kind)
				if _, err := f.build(dir, repo); err != nil {
					failed++
					t.Logf("%s: %v", f.faults, err)
				}
				f.heals(dir, repo, f.faults.String())
			}
		}
	}
	t.Logf("%d cases, %d builds failed", cases, failed)
	if failed > cases/20 {
		t.Errorf("%d of %d builds failed: one failure of one request is to be borne", failed, cases)
	}
}

// TestManyRequestsFail runs builds of which each request fails with some probability, in bursts.
func TestManyRequestsFail(t *testing.T) { manyFail(t, 50) }

// TestSoakManyRequestsFail is the long run of the same.
func TestSoakManyRequestsFail(t *testing.T) {
	if os.Getenv("LARDER_SOAK") == "" {
		t.Skip("LARDER_SOAK is not set")
	}
	manyFail(t, 5000)
}

func manyFail(t *testing.T, runs int) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	f := newFaulty(t)
	rnd := rand.New(rand.NewPCG(seed, 5))
	failed := 0
	for range runs {
		repo := f.repository()
		for range 1 + rnd.IntN(3) {
			dir := f.dir
			if rnd.IntN(2) == 0 {
				dir = f.edited
			}
			f.faults.Random(rnd.Uint64(), []float64{0.02, 0.1, 0.3, 0.6}[rnd.IntN(4)])
			if _, err := f.build(dir, repo); err != nil {
				failed++
			}
		}
		f.heals(f.dir, repo, f.faults.String())
		if t.Failed() {
			return
		}
	}
	t.Logf("%d builds of %d runs failed", failed, runs)
}

// TestARegistryThatIsDown: the cache does not answer at all; the image goes elsewhere, with one warning.
func TestARegistryThatIsDown(t *testing.T) {
	for _, status := range []int{0, 503} {
		var faults testregistry.Faults
		down := newRegistry(t, testregistry.Options{Wrap: faults.Wrap})
		reg := newRegistry(t, testregistry.Options{})
		dir := project(t, stages(reg.Ref("busybox")))
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
	ref, err := registry.ParseRef(f.reg.Ref("busybox"))
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

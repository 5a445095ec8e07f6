package build

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"larder/internal/cacheref"
	"larder/internal/testregistry"
)

// blobReads counts the requests for blobs, and the bytes of all answers.
func blobReads(r *testregistry.Registry) (n int, bytes int64) {
	for _, q := range r.Requests() {
		if q.Method == "GET" && strings.Contains(q.Path, "/blobs/") {
			n++
		}
	}
	return n, r.Counts().Down
}

// TestAnEmptyMachineNeedsAFewRequests builds what another machine has built: nothing runs, no layer is fetched, the tag is
// found to be right, and the catalog comes with one request.
func TestAnEmptyMachineNeedsAFewRequests(t *testing.T) {
	reg := newRegistry(t, testregistry.Options{})
	dir := project(t, stages(reg.Ref("base")))
	image := reg.Ref("app:main")
	first, res := newMachine(t, reg.Addr).must(request(dir, image))
	if res.Ran != 4 {
		t.Errorf("the first build ran %d steps, want 4", res.Ran)
	}
	if want := reference(t, dir, image, reg.Addr); first != want {
		t.Errorf("image %s, a build from nothing gives %s", first, want)
	}
	reg.ResetCounts()
	m := newMachine(t, reg.Addr)
	second, res := m.must(request(dir, image))
	if second != first || res.Ran != 0 || res.Cached != 4 {
		t.Errorf("image %s, %d run, %d cached; want %s, 0, 4\n%s", second, res.Ran, res.Cached, first, m.text())
	}
	counts := reg.Counts()
	blobs, _ := blobReads(reg)
	t.Logf("%d requests, %d bytes down, %d up", counts.Requests, counts.Down, counts.Up)
	// The base's manifest and config, the catalog, the tag.
	if counts.Requests > 6 || counts.Up > 0 || blobs > 1 || counts.Down > 40<<10 {
		t.Errorf("%d requests, %d of them for blobs, %d bytes down, %d up:\n%v", counts.Requests, blobs, counts.Down, counts.Up, reg.Requests())
	}
}

// TestAChangeInOneStageRunsThatStage is "must show" 3 of issue 3, on empty machines.
func TestAChangeInOneStageRunsThatStage(t *testing.T) {
	reg := newRegistry(t, testregistry.Options{})
	dir := project(t, stages(reg.Ref("base")))
	image := reg.Ref("app:main")
	newMachine(t, reg.Addr).must(request(dir, image))
	for _, c := range []struct {
		file string
		ran  []string
	}{
		{"left/a.c", []string{"compile left", "finish all"}},
		{"right/b.c", []string{"compile right", "finish all", "link right2"}},
		{"conf/app.conf", []string{"finish all"}},
		{"README", nil},
		{"right/new.c", []string{"compile right", "finish all", "link right2"}},
	} {
		write(t, dir, map[string]string{c.file: "changed for " + c.file})
		m := newMachine(t, reg.Addr)
		got, _ := m.must(request(dir, image))
		if ran := m.runner.commands(); !slices.Equal(ran, c.ran) {
			t.Errorf("%s changed: ran %q, want %q", c.file, ran, c.ran)
		}
		if want := reference(t, dir, image, reg.Addr); got != want {
			t.Errorf("%s changed: image %s, a build from nothing gives %s", c.file, got, want)
		}
	}
}

// TestACopyNeedsNoBaseImage: a file of the last COPY changes, and a line is added that nobody has seen: neither fetches a layer.
func TestACopyNeedsNoBaseImage(t *testing.T) {
	reg := newRegistry(t, testregistry.Options{})
	files := stages(reg.Ref("base"))
	dir := project(t, files)
	image := reg.Ref("app:main")
	newMachine(t, reg.Addr).must(request(dir, image))

	write(t, dir, map[string]string{"README": "other", "Dockerfile": files["Dockerfile"] + "COPY left/a.c /usr/new/\n"})
	reg.ResetCounts()
	m := newMachine(t, reg.Addr)
	got, res := m.must(request(dir, image))
	if res.Ran != 0 {
		t.Errorf("ran %q", m.runner.commands())
	}
	for _, q := range reg.Requests() {
		if q.Method == "GET" && strings.Contains(q.Path, "/blobs/") && q.Down > 60<<10 {
			t.Errorf("fetched a layer: %+v", q)
		}
	}
	if want := reference(t, dir, image, reg.Addr); got != want {
		t.Errorf("image %s, a build from nothing gives %s", got, want)
	}
}

// TestAFailedBuildIsNotLost: what was made before a step failed is found by the next machine.
func TestAFailedBuildIsNotLost(t *testing.T) {
	reg := newRegistry(t, testregistry.Options{})
	files := stages(reg.Ref("base"))
	good := files["Dockerfile"]
	files["Dockerfile"] = strings.Replace(good, "RUN finish all", "RUN fail all", 1)
	dir := project(t, files)
	image := reg.Ref("app:main")
	if _, _, err := newMachine(t, reg.Addr).build(request(dir, image)); err == nil {
		t.Fatal("the build succeeded")
	}
	write(t, dir, map[string]string{"Dockerfile": good})
	m := newMachine(t, reg.Addr)
	m.must(request(dir, image))
	if ran := m.runner.commands(); !slices.Equal(ran, []string{"finish all"}) {
		t.Errorf("ran %q", ran)
	}
}

// TestScopes: a branch reads its own scope, its base's and the default one, and writes its own only.
func TestScopes(t *testing.T) {
	reg := newRegistry(t, testregistry.Options{})
	dir := project(t, stages(reg.Ref("base")))
	image := reg.Ref("app:main")
	scoped := func(scope string, from ...string) *Request {
		r := request(dir, image)
		r.Cache.Scope, r.Cache.ReadScopes = scope, from
		return r
	}
	newMachine(t, reg.Addr).must(request(dir, image))

	write(t, dir, map[string]string{"left/a.c": "int feature;"})
	m := newMachine(t, reg.Addr)
	m.must(scoped("feature"))
	if ran := m.runner.commands(); !slices.Equal(ran, []string{"compile left", "finish all"}) {
		t.Errorf("a branch ran %q: it has the default scope to read", ran)
	}
	m = newMachine(t, reg.Addr)
	m.must(scoped("feature/two", "feature"))
	if ran := m.runner.commands(); len(ran) > 0 {
		t.Errorf("a branch of the branch ran %q", ran)
	}
	for _, scope := range []string{"", "other"} {
		m = newMachine(t, reg.Addr)
		m.must(func() *Request { r := scoped(scope); r.Cache.To = nil; return r }())
		if ran := m.runner.commands(); !slices.Equal(ran, []string{"compile left", "finish all"}) {
			t.Errorf("scope %q ran %q: it must not see what the branch wrote", scope, ran)
		}
	}
}

// TestReadOnlyWritesNothing counts what a build with a cache that it may only read sends.
func TestReadOnlyWritesNothing(t *testing.T) {
	reg := newRegistry(t, testregistry.Options{})
	dir := project(t, stages(reg.Ref("base")))
	req := request(dir, reg.Ref("app:main"))
	req.Outputs = []map[string]string{{"type": "image", "store": "false"}}
	req.Cache.To = nil
	reg.ResetCounts()
	newMachine(t, reg.Addr).must(req)
	for _, q := range reg.Requests() {
		if q.Method != "GET" && q.Method != "HEAD" {
			t.Errorf("%+v", q)
		}
	}
}

// TestInline: the image carries the records; --cache-from of it spares the next machine the steps, in several stages.
func TestInline(t *testing.T) {
	reg := newRegistry(t, testregistry.Options{})
	dir := project(t, stages(reg.Ref("base")))
	image := reg.Ref("app:latest")
	inlined := func(from bool) *Request {
		r := request(dir, image)
		r.Cache = Cache{}
		r.Args["BUILDKIT_INLINE_CACHE"] = "1"
		if from {
			refs, err := cacheref.ParseFrom([]string{image})
			if err != nil {
				t.Fatal(err)
			}
			r.Cache.From = refs
		}
		return r
	}
	first, _ := newMachine(t, reg.Addr).must(inlined(false))
	m := newMachine(t, reg.Addr)
	second, res := m.must(inlined(true))
	if res.Ran != 0 || second != first {
		t.Errorf("ran %q, image %s, was %s\n%s", m.runner.commands(), second, first, m.text())
	}
	// One stage changes. The other one's result is not in the image as a layer, but what was copied from it is.
	write(t, dir, map[string]string{"left/a.c": "int changed;"})
	m = newMachine(t, reg.Addr)
	changed, _ := m.must(inlined(true))
	ran := m.runner.commands()
	if !slices.Contains(ran, "compile left") || !slices.Contains(ran, "finish all") {
		t.Errorf("ran %q", ran)
	}
	m = newMachine(t, reg.Addr)
	if again, res := m.must(inlined(true)); again != changed || res.Ran != 0 {
		t.Errorf("the third machine ran %q and made %s, not %s", m.runner.commands(), again, changed)
	}
}

// TestADirectoryAsCache keeps everything in a directory, which is moved to another machine.
func TestADirectoryAsCache(t *testing.T) {
	reg := newRegistry(t, testregistry.Options{})
	dir := project(t, stages(reg.Ref("base")))
	image := reg.Ref("app:main")
	where := t.TempDir()
	with := func(d string) *Request {
		r := request(dir, image)
		r.Cache = Cache{}
		return r.cached(d)
	}
	newMachine(t, reg.Addr).must(with(where))
	moved := filepath.Join(t.TempDir(), "moved")
	if err := os.Rename(where, moved); err != nil {
		t.Fatal(err)
	}
	m := newMachine(t, reg.Addr)
	m.must(with(moved))
	if ran := m.runner.commands(); len(ran) > 0 {
		t.Errorf("ran %q\n%s", ran, m.text())
	}
}

// TestAnotherRegistryAsCache keeps the cache apart from the image, and BuildKit's own syntax works.
func TestAnotherRegistryAsCache(t *testing.T) {
	reg, other := newRegistry(t, testregistry.Options{}), newRegistry(t, testregistry.Options{})
	dir := project(t, stages(reg.Ref("base")))
	for _, mode := range []string{"max", "min"} {
		image := reg.Ref("app-" + mode + ":main")
		with := func(to bool) *Request {
			r := request(dir, image)
			r.Cache = Cache{}
			ref := "type=registry,ref=" + other.Ref("cache-"+mode+":buildcache")
			var err error
			if r.Cache.From, err = cacheref.ParseFrom([]string{ref}); err != nil {
				t.Fatal(err)
			}
			if to {
				if r.Cache.To, err = cacheref.ParseTo([]string{ref + ",mode=" + mode}); err != nil {
					t.Fatal(err)
				}
			}
			return r
		}
		first, _ := newMachine(t, reg.Addr, other.Addr).must(with(true))
		if err := reg.Forget("app-" + mode); err != nil {
			t.Fatal(err)
		}
		m := newMachine(t, reg.Addr, other.Addr)
		second, _ := m.must(with(false))
		if ran := m.runner.commands(); len(ran) > 0 || second != first {
			t.Errorf("mode %s: ran %q, image %s, was %s\n%s", mode, ran, second, first, m.text())
		}
		write(t, dir, map[string]string{"left/a.c": "changed for " + mode})
		m = newMachine(t, reg.Addr, other.Addr)
		got, _ := m.must(with(true))
		want := []string{"compile left", "finish all"}
		if ran := m.runner.commands(); mode == "max" && !slices.Equal(ran, want) {
			t.Errorf("mode %s: ran %q, want %q", mode, ran, want)
		}
		if want := reference(t, dir, image, reg.Addr, other.Addr); got != want {
			t.Errorf("mode %s: image %s, a build from nothing gives %s", mode, got, want)
		}
	}
}

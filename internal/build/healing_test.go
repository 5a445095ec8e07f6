package build

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"larder/internal/cacheref"
	"larder/internal/catalog"
	"larder/internal/key"
	"larder/internal/registry"
	"larder/internal/remote"
	"larder/internal/testregistry"
)

// names lists what ran, each once: a step that misses a layer below it has begun when it goes back.
func (m *machine) names() []string { return slices.Compact(m.runner.commands()) }

// twoRuns is a Dockerfile with a file between two steps: a change of it needs the first one's layer.
func twoRuns(base string) map[string]string {
	return map[string]string{"Dockerfile": "FROM " + base + "\nRUN one a\nCOPY f /\nRUN two b\n", "f": "0"}
}

// bigBlobs walks over the blobs of a directory that are layers of RUN steps, and gives how many there are.
func bigBlobs(t *testing.T, dir string, do func(path string) error) int {
	t.Helper()
	n := 0
	err := filepath.WalkDir(filepath.Join(dir, "blobs"), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err != nil || info.Size() < 40<<10 {
			return err
		}
		n++
		return do(path)
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// TestDamageInADirectoryIsHealed: layers whose bytes are wrong are written again, though files of their size are there.
func TestDamageInADirectoryIsHealed(t *testing.T) {
	reg := newRegistry(t, testregistry.Options{})
	dir := project(t, twoRuns(reg.Ref("base")))
	where := t.TempDir()
	build := func(edit string) []string {
		t.Helper()
		write(t, dir, map[string]string{"f": edit})
		req := request(dir, reg.Ref("app:main"))
		req.Cache = Cache{}
		m := newMachine(t, reg.Addr)
		m.must(req.cached(where))
		return m.names()
	}
	build("0")
	n := bigBlobs(t, where, func(path string) error {
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		b[len(b)/2] ^= 1
		return os.WriteFile(path, b, 0o644)
	})
	if n != 2 {
		t.Fatalf("%d layers damaged, want 2", n)
	}
	if ran := build("1"); !slices.Equal(ran, []string{"one a", "two b"}) {
		t.Errorf("over a damaged layer ran %q", ran)
	}
	if ran := build("2"); !slices.Equal(ran, []string{"two b"}) {
		t.Errorf("after that ran %q: the layer is not healed", ran)
	}
}

// otherCopies has a catalog name other blobs as the copies of its layers, under the same keys: those of a machine on which the files got
// other times, say.
func (s *site) otherCopies(repo, scope string) {
	s.t.Helper()
	c := s.load(repo, scope)
	change := catalog.Change{Layers: map[key.Digest][]catalog.Blob{}}
	for _, e := range c.Entries(s.t.Context()) {
		for _, o := range e.Record.Outputs {
			for _, l := range o.Layers {
				if _, have := change.Layers[l.Identity]; have {
					continue
				}
				for _, b := range c.Layer(s.t.Context(), l.Identity) {
					change.Gone = append(change.Gone, b.Desc.Digest)
					text := []byte("another copy of " + l.Identity.String())
					b.Desc.Digest, b.Desc.Size = digest.FromBytes(text), int64(len(text))
					open := func(context.Context) (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(text)), nil }
					if _, err := s.store(repo).Put(s.t.Context(), remote.Upload{Desc: b.Desc, New: true, Open: open}); err != nil {
						s.t.Fatal(err)
					}
					change.Layers[l.Identity] = append(change.Layers[l.Identity], b)
				}
			}
		}
	}
	s.save(repo, scope, change)
}

// TestABranchHealsWhatTheDefaultScopeLost: it may not write there, but what it made again is found in its own scope.
func TestABranchHealsWhatTheDefaultScopeLost(t *testing.T) {
	for _, other := range []bool{false, true} {
		s := newSite(t)
		dir := project(t, twoRuns(s.reg.Ref("base")))
		newMachine(t, s.reg.Addr).must(request(dir, s.reg.Ref("app:main")))
		if other {
			s.otherCopies("app", DefaultScope)
		}
		s.loseBlobs()
		build := func(scope, edit string) []string {
			t.Helper()
			write(t, dir, map[string]string{"f": edit})
			req := request(dir, s.reg.Ref("app:"+edit))
			req.Cache.Scope = scope
			m := newMachine(t, s.reg.Addr)
			m.must(req)
			return m.names()
		}
		for i, want := range [][]string{{"one a", "two b"}, {"two b"}, {"two b"}} {
			if ran := build("feature", fmt.Sprintf("feature%d", i)); !slices.Equal(ran, want) {
				t.Errorf("other copies %t: build %d of the branch ran %q, want %q", other, i, ran, want)
			}
		}
		build("", "main0")
		if ran := build("", "main1"); !slices.Equal(ran, []string{"two b"}) {
			t.Errorf("other copies %t: the second build of the default branch ran %q", other, ran)
		}
	}
}

// TestRefreshInABranchRunsOnce: the default scope's results are too old; the branch's own are not.
func TestRefreshInABranchRunsOnce(t *testing.T) {
	s := newSite(t)
	dir := project(t, stages(s.reg.Ref("base")))
	image := s.reg.Ref("app:main")
	newMachine(t, s.reg.Addr).must(request(dir, image))
	s.aged("app", DefaultScope, 48*time.Hour)
	for i, want := range []int{4, 0, 0} {
		req := request(dir, image)
		req.Cache.Scope = "feature"
		var err error
		if req.Cache.Refresh, err = ParseRefresh([]string{"1d"}); err != nil {
			t.Fatal(err)
		}
		m := newMachine(t, s.reg.Addr)
		if _, res := m.must(req); res.Ran != want {
			t.Errorf("build %d ran %q, want %d steps", i, m.runner.commands(), want)
		}
	}
}

// baseLayers lists the paths under which layers of the base image are fetched.
func baseLayers(t *testing.T, m *machine, reg *testregistry.Registry) []string {
	t.Helper()
	ref, err := registry.ParseRef(reg.Ref("base"))
	if err != nil {
		t.Fatal(err)
	}
	_, doc, err := m.engine.registry.Fetch(t.Context(), ref)
	if err != nil {
		t.Fatal(err)
	}
	blobs, err := remote.Blobs(doc)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, b := range blobs {
		if b.MediaType == ocispecs.MediaTypeImageLayerGzip {
			out = append(out, "/v2/base/blobs/"+b.Digest.String())
		}
	}
	return out
}

// TestTreesThatAreGoneAreSentAgain: trees of the base image and of file operations are deleted; the next build that has them stores
// them, so that the one after it neither asks in vain nor fetches the base image.
func TestTreesThatAreGoneAreSentAgain(t *testing.T) {
	s := newSite(t)
	image := s.reg.Ref("app:main")
	layers := baseLayers(t, newMachine(t, s.reg.Addr), s.reg)
	text := "FROM " + s.reg.Ref("base") + "\nCOPY f /\n"
	dir := project(t, map[string]string{"Dockerfile": text, "f": "0"})
	// Each build has a COPY to somewhere else: it needs to know what is in the base image, and in the layers of the others.
	build := func(to string) (base, missing int) {
		t.Helper()
		text += "COPY f " + to + "\n"
		write(t, dir, map[string]string{"Dockerfile": text})
		want := reference(t, dir, image, s.reg.Addr)
		s.reg.ResetCounts()
		if got, _ := newMachine(t, s.reg.Addr).must(request(dir, image)); got != want {
			t.Errorf("%s: image %s, a build from nothing gives %s", to, got, want)
		}
		for _, q := range s.reg.Requests() {
			switch {
			case q.Method != http.MethodGet:
			case slices.Contains(layers, q.Path):
				base++
			case strings.Contains(q.Path, "/app/blobs/") && q.Status == http.StatusNotFound:
				missing++
			}
		}
		return base, missing
	}
	newMachine(t, s.reg.Addr).must(request(dir, image))
	if base, missing := build("/usr/whole/"); base+missing > 0 {
		t.Fatalf("with all trees there: the base image's layer is fetched %d times, %d blobs are not found", base, missing)
	}
	s.loseBlobs()
	if base, missing := build("/usr/gone/"); base == 0 || missing == 0 {
		t.Fatalf("without trees: the base image's layer is fetched %d times, %d blobs are not found", base, missing)
	}
	for _, to := range []string{"/usr/healed/", "/usr/still/"} {
		if base, missing := build(to); base+missing > 0 {
			t.Errorf("%s: the base image's layer is fetched %d times, %d blobs are not found", to, base, missing)
		}
	}
	problems, err := catalog.Check(t.Context(), s.store("app"), s.load("app", DefaultScope), true)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("still missing: %s %v %q", p.Blob.MediaType, p.Err, p.Records)
	}
}

// TestCompressionOfACacheKeepsAllLayers: what --cache-to says of compression changes the form of intermediate layers, and keeps
// them all.
func TestCompressionOfACacheKeepsAllLayers(t *testing.T) {
	for _, list := range [][]string{
		{",compression-level=0"}, {",compression=uncompressed"}, {",compression=zstd,compression-level=22", ",compression=gzip"},
	} {
		reg := newRegistry(t, testregistry.Options{})
		dir := project(t, stages(reg.Ref("base")))
		build := func() *machine {
			t.Helper()
			req := request(dir, reg.Ref("app:main"))
			req.Cache = Cache{}
			var to []string
			for i, options := range list {
				to = append(to, fmt.Sprintf("type=registry,mode=max,ref=%s%d%s", reg.Ref("cache:c"), i, options))
			}
			var err error
			if req.Cache.To, err = cacheref.ParseTo(to); err != nil {
				t.Fatal(err)
			}
			if req.Cache.From, err = cacheref.ParseFrom([]string{"type=registry,ref=" + reg.Ref("cache:c0")}); err != nil {
				t.Fatal(err)
			}
			m := newMachine(t, reg.Addr)
			m.must(req)
			if strings.Contains(m.text(), "WARNING") {
				t.Errorf("%q: %s", list, m.text())
			}
			return m
		}
		build()
		write(t, dir, map[string]string{"right/b.c": "changed"})
		if ran := build().runner.commands(); !slices.Equal(ran, []string{"compile right", "finish all", "link right2"}) {
			t.Errorf("%q: an edit of one stage ran %q", list, ran)
		}
	}
}

// spoilings are what happens to a layer's blob in a directory.
var spoilings = map[string]func(path string) error{
	"gone":    os.Remove,
	"damaged": func(path string) error { return os.WriteFile(path, make([]byte, 41<<10), 0o644) },
}

// TestOneOfTwoCopiesIsEnough: two caches have the layers, each in a form of its own, and one of them loses its copies, or has other bytes.
func TestOneOfTwoCopiesIsEnough(t *testing.T) {
	reg := newRegistry(t, testregistry.Options{})
	dir := project(t, twoRuns(reg.Ref("base")))
	for name, spoil := range spoilings {
		for loser := range 2 {
			write(t, dir, map[string]string{"f": "0"})
			caches := []string{t.TempDir(), t.TempDir()}
			request := func(form string, caches ...string) *Request {
				r := request(dir, reg.Ref("app:main"))
				r.Outputs[0]["compression"] = form
				r.Cache = Cache{}
				for _, c := range caches {
					r.cached(c)
				}
				return r
			}
			newMachine(t, reg.Addr).must(request("gzip", caches[0]))
			newMachine(t, reg.Addr).must(request("zstd", caches[1]))
			if n := bigBlobs(t, caches[loser], spoil); n != 2 {
				t.Fatalf("%d layers spoilt, want 2", n)
			}
			write(t, dir, map[string]string{"f": "1"})
			m := newMachine(t, reg.Addr)
			m.must(request("gzip", caches...))
			if ran := m.names(); !slices.Equal(ran, []string{"two b"}) {
				t.Errorf("%s in cache %d: ran %q\n%s", name, loser, ran, m.text())
			}
		}
	}
}

package build

import (
	"bytes"
	"context"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"larder/internal/cacheref"
	"larder/internal/catalog"
	"larder/internal/fileop"
	"larder/internal/key"
	"larder/internal/record"
	"larder/internal/remote"
	"larder/internal/tree"
)

// alter writes records of a catalog anew as edit changes them; edit tells whether it changed one.
func (s *site) alter(repo, scope string, edit func(r *record.Record) bool) {
	s.t.Helper()
	var change catalog.Change
	for _, e := range s.load(repo, scope).Entries(s.t.Context()) {
		r := *e.Record
		r.Outputs = slices.Clone(r.Outputs)
		for i := range r.Outputs {
			r.Outputs[i].Layers = slices.Clone(r.Outputs[i].Layers)
		}
		if edit(&r) {
			change.Put = append(change.Put, catalog.Put{Record: &r, Replaces: e.Record.Digest()})
		}
	}
	if len(change.Put) == 0 {
		s.t.Fatal("no record is as expected")
	}
	s.save(repo, scope, change)
}

// ownedByRoot makes a destination resolution say that every owner is root.
func ownedByRoot(r *record.Record) bool {
	var res fileop.Resolution
	if len(r.Data) == 0 || res.UnmarshalBinary(r.Data) != nil || len(res.Owners) == 0 {
		return false
	}
	for i := range res.Owners {
		res.Owners[i].UID, res.Owners[i].GID = 0, 0
	}
	var err error
	r.Data, err = res.MarshalBinary()
	return err == nil
}

// putTree stores a tree for a catalog to name.
func (s *site) putTree(repo string, root *tree.Node) (key.Digest, ocispecs.Descriptor) {
	s.t.Helper()
	var plain bytes.Buffer
	if err := tree.Encode(&plain, root); err != nil {
		s.t.Fatal(err)
	}
	packed, err := catalog.PackTree(plain.Bytes())
	if err != nil {
		s.t.Fatal(err)
	}
	desc := ocispecs.Descriptor{MediaType: catalog.MediaTypeTree, Digest: digest.FromBytes(packed), Size: int64(len(packed))}
	open := func(context.Context) (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(packed)), nil }
	if _, err := s.store(repo).Put(s.t.Context(), remote.Upload{Desc: desc, New: true, Open: open}); err != nil {
		s.t.Fatal(err)
	}
	return key.Bytes(plain.Bytes()), desc
}

// TestALayerThatIsSaidToBeAnotherIsMade: a fork's scope says of the layer that a file operation makes that it is another one, with
// a /bin of its own. Neither the fork's job goes wrong by that, nor those that share its machine, nor those that read what they save.
func TestALayerThatIsSaidToBeAnotherIsMade(t *testing.T) {
	for _, op := range []string{"WORKDIR /x", "COPY f /"} {
		s := newSite(t)
		dir := project(t, map[string]string{"Dockerfile": "FROM " + s.reg.Ref("base") + "\n" + op + "\nRUN finish all\n", "f": "0"})
		want := reference(t, dir, s.reg.Ref("app:main"), s.reg.Addr)
		fork := request(dir, s.reg.Ref("app:fork"))
		fork.Cache.Scope = "fork"
		newMachine(t, s.reg.Addr).must(fork)

		// Only what says under which name the layer is kept stays, and names another one.
		small := func(r *record.Record) bool {
			return len(r.Outputs) == 1 && r.Name == "" && !r.Outputs[0].Layers[0].Pinned
		}
		if _, err := catalog.Prune(t.Context(), s.store("app"), catalog.NameOf("fork"), catalog.Keep{Record: func(e catalog.Entry) bool { return small(e.Record) }}, catalog.Options{}); err != nil {
			t.Fatal(err)
		}
		evil, err := tree.NewDir(tree.Meta{Mode: 0o755}, false, []tree.Entry{{Name: "bin", Node: &tree.Node{Kind: tree.Symlink, Link: "/evil"}}})
		if err != nil {
			t.Fatal(err)
		}
		id, err := evil.Identity()
		if err != nil {
			t.Fatal(err)
		}
		d, desc := s.putTree("app", evil)
		old := s.find(s.load("app", "fork"), small)
		lie := *old
		lie.Outputs = []record.Output{{Base: -1, Layers: []record.Layer{{Identity: id, Tree: d}}}}
		s.save("app", "fork", catalog.Change{
			Put:   []catalog.Put{{Record: &lie, Replaces: old.Digest()}},
			Trees: map[key.Digest]ocispecs.Descriptor{d: desc},
		})

		shared := newMachine(t, s.reg.Addr)
		for _, c := range []struct {
			who string
			m   *machine
			req *Request
		}{
			{"the fork's job", shared, fork},
			{"the default branch on the same machine", shared, request(dir, s.reg.Ref("app:main"))},
			{"the default branch on an empty machine", newMachine(t, s.reg.Addr), request(dir, s.reg.Ref("app:main"))},
			{"the fork's next job", newMachine(t, s.reg.Addr), fork},
		} {
			if got, _, err := c.m.build(c.req); err != nil || got != want {
				t.Errorf("%s: %s made image %s, %v; a build from nothing gives %s", op, c.who, got, err, want)
			}
		}
	}
}

// TestRecordsOfOtherOutputsAreMisses: a record has fewer outputs than its step, or puts its layers on something else.
func TestRecordsOfOtherOutputsAreMisses(t *testing.T) {
	for _, step := range []string{"RUN one", "COPY f"} {
		for name, spoil := range map[string]func(r *record.Record){
			"no outputs":         func(r *record.Record) { r.Outputs = nil },
			"too many outputs":   func(r *record.Record) { r.Outputs = append(r.Outputs, r.Outputs[0]) },
			"a Base far below":   func(r *record.Record) { r.Outputs = []record.Output{{Base: -7}} },
			"no Base":            func(r *record.Record) { r.Outputs[0].Base = -1 },
			"a Base that is not": func(r *record.Record) { r.Outputs[0].Base = 5 },
		} {
			s := newSite(t)
			dir := project(t, map[string]string{"Dockerfile": "FROM " + s.reg.Ref("base") + "\nRUN one a\nCOPY f /\nRUN two b\n", "f": "0"})
			image := s.reg.Ref("app:main")
			want, _ := newMachine(t, s.reg.Addr).must(request(dir, image))
			s.alter("app", DefaultScope, func(r *record.Record) bool {
				if !strings.Contains(r.Name, step) {
					return false
				}
				spoil(r)
				return true
			})
			ran := []string{"one a"}
			if step == "COPY f" {
				ran = nil
			}
			for range 2 {
				m := newMachine(t, s.reg.Addr)
				got, _, err := m.build(request(dir, image))
				if err != nil || got != want {
					t.Fatalf("%s with %s: image %s, %v; want %s", step, name, got, err, want)
				}
				if !slices.Equal(m.runner.commands(), ran) {
					t.Errorf("%s with %s: ran %q, want %q", step, name, m.runner.commands(), ran)
				}
				ran = nil // the first build has put it right
			}
		}
	}
}

// TestNoCacheBelievesNothing: the catalog says of a base image that its user "app" is root.
func TestNoCacheBelievesNothing(t *testing.T) {
	s := newSite(t)
	dir := project(t, map[string]string{"Dockerfile": "FROM " + s.reg.Ref("base") + "\nCOPY --chown=app f /\nRUN one a\n", "f": "0"})
	image := s.reg.Ref("app:main")
	want, _ := newMachine(t, s.reg.Addr).must(request(dir, image))
	s.alter("app", DefaultScope, ownedByRoot)
	anew := request(dir, image)
	anew.NoCache = true
	if got, _ := newMachine(t, s.reg.Addr).must(anew); got != want {
		t.Errorf("--no-cache: image %s, want %s", got, want)
	}
	if got, _ := newMachine(t, s.reg.Addr).must(request(dir, image)); got != want {
		t.Errorf("the build after --no-cache: image %s, want %s", got, want)
	}
}

// TestNoCacheReplacesInAllTargets: two caches have different results of a step; --no-cache writes its own to both.
func TestNoCacheReplacesInAllTargets(t *testing.T) {
	reg := newSite(t).reg
	dir := project(t, map[string]string{"Dockerfile": "FROM " + reg.Ref("base") + "\nRUN one a\n"})
	a, b := t.TempDir(), t.TempDir()
	build := func(salt string, noCache bool, caches ...string) (string, *Result) {
		t.Helper()
		req := request(dir, reg.Ref("app:main"))
		req.Cache, req.NoCache = Cache{}, noCache
		for _, c := range caches {
			req.cached(c)
		}
		m := newMachine(t, reg.Addr)
		m.runner.salt = salt
		return m.must(req)
	}
	inA, _ := build("x", false, a)
	inB, _ := build("y", false, b)
	want, _ := build("z", true, a, b)
	if inA == inB || want == inA || want == inB {
		t.Fatalf("the machines make the same: %s, %s, %s", inA, inB, want)
	}
	for name, c := range map[string]string{"first": a, "second": b} {
		if got, res := build("unused", false, c); got != want || res.Ran > 0 {
			t.Errorf("the %s cache gives image %s after %d runs, want %s", name, got, res.Ran, want)
		}
	}
}

// TestAnOutputToAPipeIsWrittenOnce: the last layer turns out to be gone when the ones below it have been exported.
func TestAnOutputToAPipeIsWrittenOnce(t *testing.T) {
	for _, kind := range []string{"tar", "oci", "docker"} {
		s := newSite(t)
		dir := project(t, map[string]string{"Dockerfile": "FROM " + s.reg.Ref("base") + "\nRUN one a\nRUN two b\nRUN three c\n"})
		image := s.reg.Ref("app:main")
		newMachine(t, s.reg.Addr).must(request(dir, image))
		output := func() ([]byte, *machine, *Result) {
			t.Helper()
			var out bytes.Buffer
			req := request(dir, image)
			req.Cache.To, req.Stdout = nil, &out
			req.Outputs = []map[string]string{{"type": kind, "dest": "-"}}
			m := newMachine(t, s.reg.Addr)
			_, res := m.must(req)
			return out.Bytes(), m, res
		}
		want, _, _ := output()
		c := s.load("app", DefaultScope)
		last := c.Layer(t.Context(), s.find(c, named("RUN three")).Outputs[0].Layers[0].Identity)
		gone, err := s.reg.DeleteBlobs(1, 1, func(d digest.Digest) bool {
			return !slices.ContainsFunc(last, func(b catalog.Blob) bool { return b.Desc.Digest == d })
		})
		if err != nil || len(gone) == 0 {
			t.Fatal(gone, err)
		}
		got, m, _ := output()
		if ran := m.runner.commands(); !slices.Equal(ran, []string{"three c"}) {
			t.Errorf("type=%s: ran %q", kind, ran)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("type=%s: %d bytes after going back, %d where nothing is gone, and not the same", kind, len(got), len(want))
		}
	}
}

// TestVerifyOfWhatCannotBeHad: an image with inline records promises layers of stages that it does not have.
func TestVerifyOfWhatCannotBeHad(t *testing.T) {
	reg := newSite(t).reg
	dir := project(t, stages(reg.Ref("base")))
	image := reg.Ref("app:latest")
	inlined := func() *Request {
		req := request(dir, image)
		req.Cache = Cache{}
		req.Args["BUILDKIT_INLINE_CACHE"] = "1"
		return req
	}
	newMachine(t, reg.Addr).must(inlined())
	// A machine that makes the same has something to compare with, once the step has run.
	for salt, note := range map[string]string{"": "verified: run again, it makes the same", "other": "cannot be compared"} {
		m := newMachine(t, reg.Addr)
		m.runner.salt = salt
		req := inlined()
		req.Outputs = []map[string]string{{"type": "image", "store": "false"}}
		var err error
		if req.Cache.From, err = cacheref.ParseFrom([]string{image}); err != nil {
			t.Fatal(err)
		}
		req.Cache.Verify = true
		_, res, err := m.build(req)
		if err != nil {
			t.Fatalf("salt %q: %v\n%s", salt, err, m.text())
		}
		if !strings.Contains(m.text(), note) || strings.Contains(m.text(), "WARNING") {
			t.Errorf("salt %q: want %q and no warning\n%s", salt, note, m.text())
		}
		if salt == "" && len(res.Differences) > 0 {
			t.Errorf("differences %v on a machine that makes the same", res.Differences)
		}
	}
}

// TestAStepThatGoesBackHasNotFailed counts what ran and what was spared, and reads the display.
func TestAStepThatGoesBackHasNotFailed(t *testing.T) {
	s := newSite(t)
	dir := project(t, map[string]string{"Dockerfile": "FROM " + s.reg.Ref("base") + "\nRUN one a\nCOPY f /\nRUN two b\n", "f": "0"})
	image := s.reg.Ref("app:main")
	newMachine(t, s.reg.Addr).must(request(dir, image))
	s.loseBlobs()
	write(t, dir, map[string]string{"f": "1"})
	m := newMachine(t, s.reg.Addr)
	_, res := m.must(request(dir, image))
	if res.Ran != 2 || res.Cached != 0 {
		t.Errorf("%d run, %d cached; want 2, 0", res.Ran, res.Cached)
	}
	if !strings.Contains(m.text(), "what the cache promised cannot be had") {
		t.Errorf("nothing was gone\n%s", m.text())
	}
	for line := range strings.Lines(m.text()) {
		line = strings.TrimSpace(line)
		if strings.Contains(line, "] RUN") && !strings.HasSuffix(line, " false") && !strings.HasSuffix(line, " true") {
			t.Errorf("the display shows an error: %s", line)
		}
	}
}

// loseBlobs deletes everything from the registry but base images, manifests, and what stands in them.
func (s *site) loseBlobs() {
	s.t.Helper()
	f := &faulty{t: s.t, reg: s.reg}
	gone, err := s.reg.DeleteBlobs(1, 1, f.bases())
	if err != nil || len(gone) == 0 {
		s.t.Fatalf("%d blobs deleted, %v", len(gone), err)
	}
}

// aged makes all records of a catalog older.
func (s *site) aged(repo, scope string, by time.Duration) {
	s.t.Helper()
	s.alter(repo, scope, func(r *record.Record) bool {
		if r.Created.IsZero() {
			return false
		}
		r.Created = r.Created.Add(-by)
		return true
	})
}

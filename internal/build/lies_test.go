package build

import (
	"bytes"
	"context"
	"io"
	"strings"
	"testing"

	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"larder/internal/cacheref"
	"larder/internal/catalog"
	"larder/internal/fileop"
	"larder/internal/key"
	"larder/internal/record"
	"larder/internal/remote"
	"larder/internal/testregistry"
)

// site is a registry with the catalogs that somebody writes there by hand.
type site struct {
	t    *testing.T
	reg  *testregistry.Registry
	open *Remotes
}

func newSite(t *testing.T) *site {
	reg := newRegistry(t, testregistry.Options{})
	remotes := newMachine(t, reg.Addr).engine.Remotes()
	t.Cleanup(func() { remotes.Close() })
	return &site{t, reg, remotes}
}

func (s *site) store(repo string) remote.Store {
	s.t.Helper()
	ref, err := cacheref.ParseCache(s.reg.Ref(repo))
	if err != nil {
		s.t.Fatal(err)
	}
	store, err := s.open.Open(ref)
	if err != nil {
		s.t.Fatal(err)
	}
	return store
}

func (s *site) load(repo, scope string) *catalog.Catalog {
	s.t.Helper()
	c, err := catalog.Load(s.t.Context(), s.store(repo), catalog.NameOf(scope), catalog.Options{})
	if err != nil {
		s.t.Fatal(err)
	}
	return c
}

func (s *site) save(repo, scope string, change catalog.Change) {
	s.t.Helper()
	if _, err := catalog.Save(s.t.Context(), s.store(repo), catalog.NameOf(scope), change, catalog.Options{}); err != nil {
		s.t.Fatal(err)
	}
}

// find gives the first record of a catalog that fits.
func (s *site) find(c *catalog.Catalog, fits func(*record.Record) bool) *record.Record {
	s.t.Helper()
	for _, e := range c.Entries(s.t.Context()) {
		if fits(e.Record) {
			return e.Record
		}
	}
	s.t.Fatal("there is no such record")
	return nil
}

func named(part string) func(*record.Record) bool {
	return func(r *record.Record) bool { return strings.Contains(r.Name, part) }
}

// TestLiesStayWithTheForkThatTellsThem: a fork's scope holds claims that nobody can check. Its job runs on a machine that the default branch's
// jobs use too: they, and whoever reads what they save, get what a build from nothing gives.
func TestLiesStayWithTheForkThatTellsThem(t *testing.T) {
	bind := "AS base\nFROM base AS deps\nCOPY x /x/\nRUN compile dep\nFROM base\nRUN --mount=type=bind,from=deps,source=/out,target=/m finish all\n"
	for name, c := range map[string]struct {
		files map[string]string
		edit  string // of the fork
		lie   func(s *site, honest, fork *catalog.Catalog) catalog.Change
	}{
		"who an owner is": {
			files: map[string]string{"Dockerfile": "\nCOPY --chown=app conf /etc/\nRUN finish all\n", "conf": "x=1"},
			lie: func(s *site, honest, _ *catalog.Catalog) catalog.Change {
				lie := *s.find(honest, func(r *record.Record) bool { return bytes.Contains(r.Data, []byte("app")) })
				res := new(fileop.Resolution)
				if err := res.UnmarshalBinary(lie.Data); err != nil {
					t.Fatal(err)
				}
				for i := range res.Owners {
					res.Owners[i].UID, res.Owners[i].GID = 0, 0
				}
				var err error
				if lie.Data, err = res.MarshalBinary(); err != nil {
					t.Fatal(err)
				}
				return catalog.Change{Put: []catalog.Put{{Record: &lie}}}
			},
		},
		"what a mount shows": {
			files: map[string]string{"Dockerfile": bind, "x/a": "good"}, edit: "x/a",
			lie: func(s *site, honest, fork *catalog.Catalog) catalog.Change {
				digest := func(r *record.Record) bool { return len(r.Data) == key.Size }
				old := s.find(fork, digest)
				lie := *old
				lie.Data = s.find(honest, digest).Data
				return catalog.Change{Put: []catalog.Put{{Record: &lie, Replaces: old.Digest()}}}
			},
		},
		"what a COPY makes": {
			files: map[string]string{"Dockerfile": "\nCOPY x /x/\nRUN finish all\n", "x/a": "good"}, edit: "x/a",
			lie: func(s *site, honest, fork *catalog.Catalog) catalog.Change {
				good, evil := s.find(honest, named("COPY x")), s.find(fork, named("COPY x"))
				layer := evil.Outputs[0].Layers[0]
				desc, ok := fork.Tree(t.Context(), layer.Tree)
				if !ok {
					t.Fatal("the fork's tree is not there")
				}
				from := s.store("attacker")
				up := remote.Upload{Desc: desc, Open: func(ctx context.Context) (io.ReadCloser, error) { return from.Open(ctx, desc) }}
				if _, err := s.store("app").Put(t.Context(), up); err != nil {
					t.Fatal(err)
				}
				lie := *evil
				lie.Outputs = []record.Output{{Base: evil.Outputs[0].Base, Layers: []record.Layer{{Identity: good.Outputs[0].Layers[0].Identity, Tree: layer.Tree}}}}
				return catalog.Change{Put: []catalog.Put{{Record: &lie}}, Trees: map[key.Digest]ocispecs.Descriptor{layer.Tree: desc}}
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t)
			c.files["Dockerfile"] = "FROM " + s.reg.Ref("base") + " " + strings.TrimPrefix(c.files["Dockerfile"], " ")
			main, fork := project(t, c.files), project(t, c.files)
			if c.edit != "" {
				write(t, fork, map[string]string{c.edit: "evil"})
			}
			image := s.reg.Ref("app:main")
			want := reference(t, main, image, s.reg.Addr)
			as := func(dir, image, scope string) *Request {
				r := request(dir, s.reg.Ref(image))
				r.Cache.Scope = scope
				return r
			}
			// At home the attacker finds out what the records look like.
			newMachine(t, s.reg.Addr).must(as(main, "attacker:x", "honest"))
			newMachine(t, s.reg.Addr).must(as(fork, "attacker:x", "fork"))
			s.save("app", "fork", c.lie(s, s.load("attacker", "honest"), s.load("attacker", "fork")))

			shared := newMachine(t, s.reg.Addr)
			shared.must(as(fork, "app:fork", "fork"))
			if got, _ := shared.must(as(main, "app:main", "main")); got != want {
				t.Errorf("on the machine of both: image %s, a build from nothing gives %s", got, want)
			}
			if got, _ := newMachine(t, s.reg.Addr).must(as(main, "app:main", "main")); got != want {
				t.Errorf("from what that saved: image %s, a build from nothing gives %s", got, want)
			}
		})
	}
}

// TestACacheThatIsOnlyWrittenDecidesNothing: the catalog says of a layer that another one's blob is its copy. Neither a job that
// writes there, nor one that verifies, ships that blob.
func TestACacheThatIsOnlyWrittenDecidesNothing(t *testing.T) {
	s := newSite(t)
	dir, other := project(t, stages(s.reg.Ref("base"))), project(t, stages(s.reg.Ref("base")))
	write(t, other, map[string]string{"left/a.c": "int evil;"})
	want := reference(t, dir, s.reg.Ref("app:main"), s.reg.Addr)
	to := func(dir, tag string) *Request {
		r := request(dir, s.reg.Ref("app:main"))
		var err error
		r.Cache = Cache{}
		if r.Cache.To, err = cacheref.ParseTo([]string{"type=registry,mode=max,ref=" + s.reg.Ref("app:"+tag)}); err != nil {
			t.Fatal(err)
		}
		return r
	}
	m := newMachine(t, s.reg.Addr)
	m.must(to(dir, "good"))
	m.must(to(other, "evil"))
	good, evil := s.load("app", "tag:good"), s.load("app", "tag:evil")
	rec := s.find(good, named("RUN finish"))
	id := rec.Outputs[0].Layers[0].Identity
	lie := evil.Layer(t.Context(), s.find(evil, named("RUN finish")).Outputs[0].Layers[0].Identity)[0]
	lie.Key = good.Layer(t.Context(), id)[0].Key
	s.save("app", "tag:cache", catalog.Change{Put: []catalog.Put{{Record: rec}}, Layers: map[key.Digest][]catalog.Blob{id: {lie}}})

	write := to(dir, "cache")
	if got, _ := newMachine(t, s.reg.Addr).must(write); got != want {
		t.Errorf("a job that only writes the cache: image %s, want %s", got, want)
	}
	verify := to(dir, "cache")
	verify.Cache.Verify = true
	var err error
	if verify.Cache.From, err = cacheref.ParseFrom([]string{s.reg.Ref("app:cache")}); err != nil {
		t.Fatal(err)
	}
	if got, _ := newMachine(t, s.reg.Addr).must(verify); got != want {
		t.Errorf("--cache-verify: image %s, want %s", got, want)
	}
}

// TestACatalogThatIsRemovedIsForgotten: what a machine copied from it counts no longer.
func TestACatalogThatIsRemovedIsForgotten(t *testing.T) {
	s := newSite(t)
	dir := project(t, stages(s.reg.Ref("base")))
	image := s.reg.Ref("app:main")
	newMachine(t, s.reg.Addr).must(request(dir, image))
	m := newMachine(t, s.reg.Addr)
	m.must(request(dir, image))
	if err := catalog.Remove(t.Context(), s.store("app"), catalog.NameOf(DefaultScope)); err != nil {
		t.Fatal(err)
	}
	if _, res := m.must(request(dir, image)); res.Cached > 0 {
		t.Errorf("%d steps were taken from a catalog that is gone", res.Cached)
	}
}

// TestStoresAreNotTakenForOneAnother: one bucket's name at two servers.
func TestStoresAreNotTakenForOneAnother(t *testing.T) {
	s := newSite(t)
	refs, err := cacheref.ParseFrom([]string{
		"type=s3,bucket=cache,region=r,endpoint_url=http://127.0.0.1:9001,access_key_id=reader,secret_access_key=xxxxxxxx",
		"type=s3,bucket=cache,region=r,endpoint_url=http://127.0.0.1:9002,access_key_id=writer,secret_access_key=yyyyyyyy",
	})
	if err != nil {
		t.Fatal(err)
	}
	a, err := s.open.Open(refs[0])
	if err != nil {
		t.Fatal(err)
	}
	b, err := s.open.Open(refs[1])
	if err != nil {
		t.Fatal(err)
	}
	if a == b || a.Name() == b.Name() {
		t.Errorf("%s and %s", a.Name(), b.Name())
	}
}

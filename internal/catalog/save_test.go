package catalog

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"larder/internal/fault"
	"larder/internal/key"
	"larder/internal/remote"
)

var mainScope = Name{"main", ScopeTag("main")}

func mustSave(t *testing.T, m *memory, name Name, c Change, opt Options) Saved {
	t.Helper()
	saved, err := Save(t.Context(), m, name, c, opt)
	if err != nil {
		t.Fatal(err)
	}
	return saved
}

func mustLoad(t *testing.T, m *memory, name Name, opt Options) *Catalog {
	t.Helper()
	c, err := Load(t.Context(), m, name, opt)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// bubble runs a test on a clock of its own, so that waiting takes no time.
func bubble(t *testing.T, f func(t *testing.T)) {
	t.Helper()
	synctest.Test(t, f)
}

func TestSaveAndLoad(t *testing.T) {
	bubble(t, func(t *testing.T) {
		m := newMemory("registry.example/app")
		m.stocked("s", "x", 3)
		if _, err := Load(t.Context(), m, mainScope, Options{}); !errors.Is(err, ErrAbsent) || !errors.Is(err, remote.ErrNotFound) {
			t.Fatalf("no catalog yet: %v", err)
		}
		change := steps("s", "x", 3)
		change.Put[0].Record.From = "elsewhere"
		saved := mustSave(t, m, mainScope, change, Options{})
		if saved.Records != 3 || saved.Attempts != 1 || saved.Bytes == 0 {
			t.Errorf("%+v", saved)
		}
		m.count()
		c := mustLoad(t, m, mainScope, Options{})
		for _, p := range change.Put {
			e, ok := c.Record(t.Context(), p.Record.Key)
			if !ok || e.Record.Digest() != p.Record.Digest() || e.Record.From != "" || !e.Used.Equal(time.Now().Truncate(time.Second)) {
				t.Errorf("%q: %+v", p.Record.Name, e)
			}
			l := p.Record.Outputs[0].Layers[0]
			if d, ok := c.Tree(t.Context(), l.Tree); !ok || !sameDesc(d, change.Trees[l.Tree]) {
				t.Errorf("%q: tree %+v", p.Record.Name, d)
			}
			if copies := c.Layer(t.Context(), l.Identity); len(copies) != 1 || copies[0].Desc.Digest != change.Layers[l.Identity][0].Desc.Digest ||
				copies[0].DiffID != change.Layers[l.Identity][0].DiffID || copies[0].Key != keyOf("gzip") {
				t.Errorf("%q: copies %+v", p.Record.Name, copies)
			}
		}
		if _, ok := c.Record(t.Context(), keyOf("other")); ok {
			t.Error("found what was never saved")
		}
		if n := m.count(); n["Manifest"] != 1 || len(n) != 1 {
			t.Errorf("loading and looking up took %v", n)
		}
		if len(c.Entries(t.Context())) != 3 || len(c.Blobs(t.Context())) != 6 || c.SignedBy() != "" || c.Sequence() == 0 || c.Pages() != 0 || c.Read() == 0 || c.Name() != mainScope {
			t.Errorf("%d entries, %d blobs, sequence %d", len(c.Entries(t.Context())), len(c.Blobs(t.Context())), c.Sequence())
		}
	})
}

// TestNothingToSave: what is there already, used within a quarter of its age, is not written.
func TestNothingToSave(t *testing.T) {
	bubble(t, func(t *testing.T) {
		m := newMemory("registry.example/app")
		m.stocked("s", "x", 3)
		change := steps("s", "x", 3)
		mustSave(t, m, mainScope, change, Options{})
		used := Change{Used: []key.Digest{change.Put[0].Record.Key, keyOf("unknown")}}
		c := mustLoad(t, m, mainScope, Options{})
		time.Sleep(7 * 24 * time.Hour)
		for _, again := range []Change{change, used, {}} {
			if !c.Covers(again) {
				t.Error("it does not know that it says that already")
			}
			m.count()
			if saved := mustSave(t, m, mainScope, again, Options{}); saved.Attempts != 0 || saved.Records != 0 {
				t.Errorf("%+v", saved)
			}
			if n := m.count(); n["Manifest"] != 1 || len(n) != 1 {
				t.Errorf("it took %v", n)
			}
		}
		time.Sleep(24 * time.Hour)
		if c.Covers(used) || c.Covers(step("new", "x")) {
			t.Error("it says that it knows what it does not")
		}
		m.count()
		if saved := mustSave(t, m, mainScope, used, Options{}); saved.Attempts != 1 || saved.Records != 0 {
			t.Errorf("used again after eight days: %+v", saved)
		}
		if n := m.count(); n["Manifest"] != 2 || n["Head"] != 1 || n["PutManifest"] != 1 || n["Post"] != 1 || n["Put"] != 1 || len(n) != 5 {
			t.Errorf("a calm save took %v", n)
		}
	})
}

func TestMissingBlobsAreLeftOut(t *testing.T) {
	for _, mute := range []bool{false, true} {
		bubble(t, func(t *testing.T) {
			m := newMemory("registry.example/app")
			m.mute = mute
			m.stocked("s", "x", 3)
			change := steps("s", "x", 4) // the blobs of the last one are not there
			old := steps("s", "x", 1)
			mustSave(t, m, mainScope, old, Options{})
			lost := copyOf("s 0x", "gzip").Desc.Digest
			delete(m.blobs, lost) // deleted since it was named
			saved := mustSave(t, m, mainScope, change, Options{})
			if len(saved.Missing) != 3 || saved.Records != 2 || !slices.Contains(saved.Missing, lost) {
				t.Errorf("mute %v: %+v", mute, saved)
			}
			c := mustLoad(t, m, mainScope, Options{})
			for i, want := range []bool{false, true, true, false} {
				if _, ok := c.Record(t.Context(), keyOf(fmt.Sprint("s ", i))); ok != want {
					t.Errorf("mute %v: record %d: %v", mute, i, ok)
				}
			}
		})
	}
}

// TestRemakingALostLayer is a rewind: a build that found a blob gone makes the step again.
func TestRemakingALostLayer(t *testing.T) {
	bubble(t, func(t *testing.T) {
		m := newMemory("registry.example/app")
		m.stocked("s", "x", 2)
		m.stocked("s", "y", 2)
		old := steps("s", "x", 2)
		mustSave(t, m, mainScope, old, Options{})
		lost := copyOf("s 0x", "gzip").Desc.Digest
		delete(m.blobs, lost)
		again := steps("s", "y", 1)
		again.Put[0].Replaces = old.Put[0].Record.Digest()
		again.Gone = []digest.Digest{lost}
		if saved := mustSave(t, m, mainScope, again, Options{}); saved.Records != 1 || len(saved.Missing) != 0 {
			t.Errorf("%+v", saved)
		}
		c := mustLoad(t, m, mainScope, Options{})
		if e, _ := c.Record(t.Context(), keyOf("s 0")); e.Record == nil || e.Record.Name != "RUN s 0 # y" {
			t.Errorf("%+v", e)
		}
		if len(c.Entries(t.Context())) != 2 || len(c.Blobs(t.Context())) != 4 {
			t.Errorf("%d records, %d blobs", len(c.Entries(t.Context())), len(c.Blobs(t.Context())))
		}
		if bytes.Contains(m.docs[mainScope.Tag], []byte(lost)) {
			t.Error("the document names the lost blob")
		}
	})
}

// TestDocument looks at what registries look at.
func TestDocument(t *testing.T) {
	bubble(t, func(t *testing.T) {
		m := newMemory("registry.example/app")
		m.stocked("s", "x", 2)
		mustSave(t, m, mainScope, steps("s", "x", 2), Options{})
		doc := string(m.docs[mainScope.Tag])
		for _, want := range []string{
			`"schemaVersion":2`, `"mediaType":"application/vnd.oci.image.manifest.v1+json"`, `"artifactType":"application/vnd.larder.catalog.v1+json"`,
			`"config":{"mediaType":"application/vnd.larder.catalog.v1+zstd"`, `"data":"`,
			string(copyOf("s 0x", "gzip").Desc.Digest), string(copyOf("s 1x", "gzip").Desc.Digest), string(descOf("tree blob s 1x", "").Digest),
		} {
			if !strings.Contains(doc, want) {
				t.Errorf("the document lacks %s", want)
			}
		}
		// A record without blobs, as mode=min keeps them.
		bare := step("bare", "x")
		bare.Layers, bare.Trees = nil, nil
		other := Name{"other", ScopeTag("other")}
		mustSave(t, m, other, bare, Options{})
		if doc := string(m.docs[other.Tag]); !strings.Contains(doc, `"layers":[{`) {
			t.Errorf("some registries take no manifest without layers: %s", doc)
		}
		if _, ok := mustLoad(t, m, other, Options{}).Record(t.Context(), keyOf("bare")); !ok {
			t.Error("a record without blobs is lost")
		}
	})
}

// TestDroppedData is a registry that drops the data field: the page is fetched.
func TestDroppedData(t *testing.T) {
	bubble(t, func(t *testing.T) {
		m := newMemory("registry.example/app")
		m.stocked("s", "x", 2)
		mustSave(t, m, mainScope, steps("s", "x", 2), Options{Limits: Limits{Inline: 1}})
		m.count()
		c := mustLoad(t, m, mainScope, Options{})
		if n := m.count(); n["Manifest"] != 1 || n["Open"] != 1 {
			t.Errorf("it took %v", n)
		}
		if len(c.Entries(t.Context())) != 2 {
			t.Error("records are lost")
		}
	})
}

// TestDamageIsAbsence cuts the document, and flips bytes of it and of its page: the catalog counts as absent, and the next save heals it.
func TestDamageIsAbsence(t *testing.T) {
	bubble(t, func(t *testing.T) {
		for _, inline := range []int{0, 1} {
			opt := Options{Limits: Limits{Inline: inline}}
			m := newMemory("registry.example/app")
			m.stocked("s", "x", 2)
			mustSave(t, m, mainScope, steps("s", "x", 2), opt)
			good := m.docs[mainScope.Tag]
			var page digest.Digest
			for d := range m.blobs {
				if bytes.Contains(good, []byte(`"config":{"mediaType":"`+pageMediaType+`","digest":"`+string(d))) {
					page = d
				}
			}
			damage := func(b []byte, i int) []byte {
				b = slices.Clone(b)
				b[i] ^= 1
				return b
			}
			type wrong struct{ doc, page []byte }
			var list []wrong
			for i := 0; i < len(good); i += 7 {
				list = append(list, wrong{damage(good, i), m.blobs[page]}, wrong{good[:i], m.blobs[page]})
			}
			if inline == 1 {
				for i := range m.blobs[page] {
					list = append(list, wrong{good, damage(m.blobs[page], i)}, wrong{good, m.blobs[page][:i]})
				}
				list = append(list, wrong{good, nil})
			}
			for i, w := range list {
				m.docs[mainScope.Tag] = w.doc
				keep := m.blobs[page]
				m.blobs[page] = w.page
				c, err := Load(t.Context(), m, mainScope, opt)
				m.blobs[page] = keep
				if err != nil && !errors.Is(err, ErrAbsent) {
					t.Fatalf("damage %d: %v", i, err)
				}
				if err == nil {
					for _, e := range c.Entries(t.Context()) {
						if e.Record.Digest() != steps("s", "x", 2).Put[0].Record.Digest() && e.Record.Digest() != steps("s", "x", 2).Put[1].Record.Digest() {
							t.Fatalf("damage %d: read %+v", i, e.Record)
						}
					}
				}
			}
			m.docs[mainScope.Tag] = good[:len(good)/2]
			if _, err := Load(t.Context(), m, mainScope, opt); !errors.Is(err, ErrAbsent) || errors.Is(err, remote.ErrNotFound) {
				t.Errorf("damage is not emptiness: %v", err)
			}
			mustSave(t, m, mainScope, steps("s", "x", 1), opt)
			if c := mustLoad(t, m, mainScope, opt); len(c.Entries(t.Context())) != 1 {
				t.Error("it was not healed")
			}
		}
	})
}

// TestPassingDamage: what is damaged on its way once is not written over.
func TestPassingDamage(t *testing.T) {
	bubble(t, func(t *testing.T) {
		m := newMemory("registry.example/app")
		m.stocked("s", "x", 3)
		mustSave(t, m, mainScope, steps("s", "x", 2), Options{Limits: Limits{Inline: 1}})
		for _, op := range []string{"Manifest", "Open"} {
			failed := false
			m.fault = func(o, _ string) error {
				if o == op && !failed {
					failed = true
					return remote.ErrDamaged
				}
				return nil
			}
			mustSave(t, m, mainScope, join(steps("s", "x", 3), step(op, "x")).withoutBlobs(), Options{Limits: Limits{Inline: 1}})
			if c := mustLoad(t, m, mainScope, Options{}); len(c.Blobs(t.Context())) < 4 {
				t.Errorf("%s: the catalog was written over", op)
			}
		}
	})
}

func (c Change) withoutBlobs() Change {
	c.Layers, c.Trees = map[key.Digest][]Blob{}, map[key.Digest]ocispecs.Descriptor{}
	return c
}

func TestSaveErrors(t *testing.T) {
	change := steps("s", "x", 1)
	for name, c := range map[string]struct {
		op   string
		err  error
		kind fault.Kind
	}{
		"no answer":       {"Manifest", errors.New("connection refused"), fault.Registry},
		"read only":       {"PutManifest", remote.ErrDenied, fault.Registry},
		"immutable tags":  {"PutManifest", remote.ErrImmutable, fault.Registry},
		"no room":         {"Put", errors.New("507"), fault.Registry},
		"always conflict": {"PutManifest", remote.ErrConflict, fault.Registry},
		"always missing":  {"PutManifest", &remote.MissingError{}, fault.Registry},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				m := newMemory("registry.example/app")
				m.stocked("s", "x", 1)
				m.fault = func(op, _ string) error {
					if op == c.op {
						return c.err
					}
					return nil
				}
				saved, err := Save(t.Context(), m, mainScope, change, Options{})
				if err == nil || fault.Of(err) != c.kind || !strings.Contains(err.Error(), `"main"`) || !strings.Contains(err.Error(), m.name) {
					t.Fatalf("%v", err)
				}
				if c.err != remote.ErrConflict && !errors.Is(err, c.err) && !errors.As(err, new(*remote.MissingError)) {
					t.Errorf("%v", err)
				}
				if c.err == remote.ErrConflict && (saved.Attempts < minAttempts || saved.Elapsed > time.Minute || !strings.Contains(err.Error(), "1 records were not kept")) {
					t.Errorf("%+v %v", saved, err)
				}
			})
		})
	}
}

// TestAnotherFormat: a newer larder's catalog is absent for this one, and is left alone.
func TestAnotherFormat(t *testing.T) {
	bubble(t, func(t *testing.T) {
		m := newMemory("registry.example/app")
		put(t, m, mainScope.Tag, &page{Version: version + 1, Repository: m.name, Scope: "main"}, nil)
		before := m.docs[mainScope.Tag]
		if _, err := Load(t.Context(), m, mainScope, Options{}); !errors.Is(err, ErrAbsent) || !strings.Contains(err.Error(), "format 2") {
			t.Errorf("%v", err)
		}
		if _, err := Save(t.Context(), m, mainScope, steps("s", "x", 1).withoutBlobs(), Options{}); fault.Of(err) != fault.Usage {
			t.Errorf("%v", err)
		}
		if !bytes.Equal(before, m.docs[mainScope.Tag]) {
			t.Error("it was written over")
		}
	})
}

// put stores a page under a tag as somebody with the store's push token could.
func put(t *testing.T, m *memory, tag string, p *page, keys *Keys) {
	t.Helper()
	blob, err := p.encode()
	if err != nil {
		t.Fatal(err)
	}
	doc, config, err := makeDocument(blob, p.state().blobs(), 1<<20, keys)
	if err != nil {
		t.Fatal(err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.blobs[config.Digest], m.docs[tag] = blob, doc
}

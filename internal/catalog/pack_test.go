package catalog

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"larder/internal/key"
)

func (m *memory) stockedAll(c Change) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, d := range c.Trees {
		m.blobs[d.Digest] = make([]byte, d.Size)
	}
	for _, copies := range c.Layers {
		for _, b := range copies {
			m.blobs[b.Desc.Digest] = make([]byte, b.Desc.Size)
		}
	}
}

// noise makes bytes that do not compress, others for each seed.
func noise(seed, n int) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8)}).Read(b)
	return b
}

// TestManyBuilds lets a scope grow by hundreds of builds: the first page stays small, further pages stay few, the records that a build
// used are read with one request, older ones are found with one more round trip, and tags that nobody needs go.
func TestManyBuilds(t *testing.T) {
	bubble(t, func(t *testing.T) {
		const builds, each = 60, 12
		m := newMemory("registry.example/app")
		largest, most := 0, 0
		for i := range builds {
			c := steps(fmt.Sprint("b", i), "x", each)
			if i%10 == 0 {
				c.Put[0].Record.Data = noise(i, 1500)
			}
			if i > 0 {
				c.Used = []key.Digest{keyOf(fmt.Sprintf("b%d 0", i-1))}
			}
			m.stockedAll(c)
			if saved := mustSave(t, m, mainScope, c, Options{}); saved.Attempts != 1 {
				t.Fatalf("build %d: %+v", i, saved)
			}
			largest = max(largest, len(m.docs[mainScope.Tag]))
			m.count()
			cat := mustLoad(t, m, mainScope, Options{})
			for _, p := range c.Put {
				if _, ok := cat.Record(t.Context(), p.Record.Key); !ok {
					t.Fatalf("build %d: %q is lost", i, p.Record.Name)
				}
			}
			if n := m.count(); n["Manifest"] != 1 || len(n) != 1 {
				t.Fatalf("build %d: its own records took %v", i, n)
			}
			most = max(most, cat.Pages())
			time.Sleep(40 * time.Minute)
		}
		if largest > 60_000 || most > 8 {
			t.Errorf("the document took %d bytes, there were %d further pages", largest, most)
		}
		cat := mustLoad(t, m, mainScope, Options{})
		found := 0
		for i := range builds {
			for j := range each {
				if _, ok := cat.Record(t.Context(), keyOf(fmt.Sprintf("b%d %d", i, j))); ok {
					found++
				}
			}
		}
		if n := m.count(); found != builds*each || n["Open"] != cat.Pages() || n["Manifest"] != 1 {
			t.Errorf("found %d of %d records by %v", found, builds*each, n)
		}
		live, stale := 0, 0
		for tag := range m.docs {
			switch {
			case tag == mainScope.Tag:
			case slices.ContainsFunc(cat.doc.page.Pages, func(p pageRef) bool { return p.Tag == tag }):
				live++
			default:
				stale++
			}
		}
		t.Logf("document at most %d bytes; %d further pages; %d pages wait to be removed", largest, most, stale)
		if live != cat.Pages() || stale > 3 {
			t.Errorf("%d pages, %d tags of them, %d stale", cat.Pages(), live, stale)
		}
		// A record from a further page that is used after a week comes back into the first.
		time.Sleep(8 * 24 * time.Hour)
		first := keyOf("b0 1")
		if _, ok := cat.doc.state.records[first]; ok {
			t.Fatal("the oldest record is in the first page")
		}
		mustSave(t, m, mainScope, Change{Used: []key.Digest{first}}, Options{})
		m.count()
		cat = mustLoad(t, m, mainScope, Options{})
		if _, ok := cat.Record(t.Context(), first); !ok || m.count()["Open"] != 0 {
			t.Error("what was used is not in the first page")
		}
		// What nobody uses for a month goes.
		time.Sleep(31 * 24 * time.Hour)
		mustSave(t, m, mainScope, steps("b0", "x", 1), Options{})
		cat = mustLoad(t, m, mainScope, Options{})
		if n := len(cat.Entries(t.Context())); n != 1 || cat.Pages() != 0 {
			t.Errorf("%d records and %d pages are left", n, cat.Pages())
		}
		time.Sleep(2 * time.Hour)
		mustSave(t, m, mainScope, step("last", "").withoutBlobs(), Options{})
		if left := slices.Sorted(maps.Keys(m.docs)); len(left) != 1 {
			t.Errorf("tags are left: %s", strings.Join(left, " "))
		}
	})
}

// TestGoneInFurtherPages: what is lost does not come back from a page that was written before.
func TestGoneInFurtherPages(t *testing.T) {
	bubble(t, func(t *testing.T) {
		m := newMemory("registry.example/app")
		c := steps("s", "x", 200)
		m.stockedAll(c)
		mustSave(t, m, mainScope, c, Options{})
		time.Sleep(time.Minute)
		mustSave(t, m, mainScope, step("t", "x").withoutBlobs(), Options{})
		cat := mustLoad(t, m, mainScope, Options{})
		if cat.Pages() == 0 {
			t.Fatal("it fits into one page")
		}
		var lost Change
		for i := range 200 {
			name := fmt.Sprintf("s %d", i)
			if _, first := cat.doc.state.records[keyOf(name)]; !first {
				d := copyOf(name+"x", "gzip").Desc.Digest
				lost.Gone = append(lost.Gone, d)
				delete(m.blobs, d)
				if len(lost.Gone) == 5 {
					break
				}
			}
		}
		mustSave(t, m, mainScope, lost, Options{})
		if n := len(mustLoad(t, m, mainScope, Options{}).Entries(t.Context())); n != 196 {
			t.Errorf("%d records are left of 201, of which 5 lost their layers", n)
		}
		for tag, doc := range m.docs {
			if cat := mustLoad(t, m, mainScope, Options{}); tag != mainScope.Tag && !slices.ContainsFunc(cat.doc.page.Pages, func(p pageRef) bool { return p.Tag == tag }) {
				continue
			}
			for _, d := range lost.Gone {
				if strings.Contains(string(doc), string(d)) {
					t.Errorf("%s names a lost blob", tag)
				}
			}
		}
	})
}

// TestLayKeepsEverything divides states at random among pages, again and again: nothing is lost or made up, each page has what its
// records need, and the first page keeps within its limits.
func TestLayKeepsEverything(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		limits := Limits{Page: rapid.IntRange(400, 8000).Draw(t, "page"), Blobs: rapid.IntRange(3, 40).Draw(t, "blobs")}.withDefaults()
		all := newState()
		var pages []oldPage
		now := epoch
		for i := range rapid.IntRange(1, 6).Draw(t, "builds") {
			now = now.Add(rapid.SampledFrom([]time.Duration{0, time.Minute}).Draw(t, "passes"))
			c := steps(fmt.Sprint(i), "x", rapid.IntRange(0, 10).Draw(t, "steps"))
			for j, p := range c.Put {
				p.Record.Data = noise(100*i+j, rapid.SampledFrom([]int{0, 0, 0, 500, 5000}).Draw(t, "data"))
			}
			for range rapid.IntRange(0, 3).Draw(t, "hints") {
				name := fmt.Sprint(rapid.IntRange(0, 4).Draw(t, "hint"))
				h := hint(name, rapid.IntRange(0, 2).Draw(t, "version"), rapid.SampledFrom([]int{100, 2000}).Draw(t, "size"))
				if old, have := all.records[h.Put[0].Record.Key]; have {
					h.Put[0].Replaces = old.Record.Digest()
				}
				c.Put = append(append(c.Put, h.Put...), adds(name, fmt.Sprint(i)).Put...)
			}
			for _, e := range all.sorted() {
				if rapid.IntRange(0, 9).Draw(t, "used") == 0 {
					c.Used = append(c.Used, e.Record.Key)
				}
				if rapid.IntRange(0, 19).Draw(t, "gone") == 0 {
					for l := range layersOf(e.Record) {
						for _, b := range all.layers[l.Identity] {
							c.Gone = append(c.Gone, b.Desc.Digest)
						}
					}
				}
			}
			for j := range rapid.IntRange(0, 3).Draw(t, "mounts") {
				m := bigMount(fmt.Sprint(rapid.IntRange(0, 3).Draw(t, "mount")), rapid.IntRange(1, 3).Draw(t, "segments"), rapid.IntRange(0, 5).Draw(t, "packs"), now)
				m.Segments[0].Blob = descOf(fmt.Sprint("segment of build ", i, j), "")
				c.Mounts = append(c.Mounts, MountPut{Mount: m})
			}
			for _, m := range all.sortedMounts() {
				if rapid.IntRange(0, 19).Draw(t, "gone") == 0 {
					c.Gone = append(c.Gone, m.Segments[0].Blob.Digest)
				}
			}
			all = merge(all, c, nil, now)
			calm := rapid.Bool().Draw(t, "calm")
			l := lay(all, pages, limits, calm, now)
			if calm && (packed(l.first) > limits.Page || len(l.first.blobs()) > limits.Blobs) {
				t.Fatalf("the first page has %d bytes and %d blobs", packed(l.first), len(l.first.blobs()))
			}
			var next []oldPage
			states := []state{}
			for j, s := range l.fresh {
				next = append(next, oldPage{pageRef{Tag: fmt.Sprint(i, " ", j)}, s})
				if len(s.blobs()) > pageBlobs {
					t.Fatalf("a page names %d blobs", len(s.blobs()))
				}
			}
			for _, k := range l.kept {
				at := slices.IndexFunc(pages, func(p oldPage) bool { return p.ref == k.ref })
				if at < 0 {
					t.Fatalf("kept a page that is not there: %s", k.ref.Tag)
				}
				next = append(next, pages[at])
			}
			pages = next
			for _, p := range pages {
				states = append(states, p.state)
			}
			back := united(l.first, states)
			if back.differs(all, limits.worth()) || len(back.records) != len(all.records) || len(back.mounts) != len(all.mounts) {
				t.Fatalf("%d records became %d, %d cache mounts became %d", len(all.records), len(back.records), len(all.mounts), len(back.mounts))
			}
			for k, e := range back.records {
				it := item{itemID: itemID{key: k}, entry: e}
				if late := all.records[k].Used.Sub(e.Used); late < 0 || late >= limits.worth() || late > 0 && !it.far() {
					t.Fatalf("%s was used at %s, not %s", e.Record.Name, all.records[k].Used, e.Used)
				}
			}
			for _, s := range append(states, l.first) {
				for _, e := range s.records {
					for ly := range layersOf(e.Record) {
						if have, ok := all.layers[ly.Identity]; ok && len(s.layers[ly.Identity]) < len(have) {
							t.Fatalf("%s is in a page without its layer", e.Record.Name)
						}
					}
				}
			}
			all = back
		}
	})
}

// TestLimitsOfRecords: one out of bounds is refused, large ones go into further pages.
func TestLimitsOfRecords(t *testing.T) {
	bubble(t, func(t *testing.T) {
		m := newMemory("registry.example/app")
		c := steps("s", "x", 4).withoutBlobs()
		c.Put[0].Record.Data = noise(0, maxData+1)
		c.Put[1].Record.Name = strings.Repeat("n", maxName+1)
		c.Put[2].Record.Data = noise(0, maxData)
		saved := mustSave(t, m, mainScope, c, Options{})
		if saved.Refused != 2 || saved.Records != 2 {
			t.Errorf("%+v", saved)
		}
		time.Sleep(time.Minute)
		mustSave(t, m, mainScope, step("t", "x").withoutBlobs(), Options{})
		cat := mustLoad(t, m, mainScope, Options{})
		if _, ok := cat.Record(t.Context(), c.Put[2].Record.Key); !ok || cat.Pages() != 1 || len(cat.doc.state.records) != 2 {
			t.Errorf("%v; %d pages; %d records in the first", ok, cat.Pages(), len(cat.doc.state.records))
		}
	})
}

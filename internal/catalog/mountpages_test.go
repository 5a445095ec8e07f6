package catalog

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"larder/internal/key"
	"larder/internal/remote"
)

// stockedMounts puts the blobs of mounts into the store.
func (m *memory) stockedMounts(list ...Mount) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, mount := range list {
		for d := range mount.Blobs() {
			m.blobs[d.Digest] = make([]byte, d.Size)
		}
	}
}

// TestManyMounts: twenty large cache mounts and the records of a project. The first page stays small and has the records; mounts are found with one round
// trip more; a build that changes one writes little.
func TestManyMounts(t *testing.T) {
	bubble(t, func(t *testing.T) {
		m := newMemory("registry.example/app")
		c := steps("s", "x", 30)
		m.stockedAll(c)
		var want []Mount
		for i := range 20 {
			mount := bigMount(fmt.Sprint(i), 8, 10, epoch)
			m.stockedMounts(mount)
			c.Mounts = append(c.Mounts, MountPut{Mount: mount})
			want = append(want, mount)
		}
		mustSave(t, m, mainScope, c, Options{})
		time.Sleep(time.Minute)
		largest := 0
		for i := range 12 {
			mount := want[i%8]
			p := MountPut{Mount: mount, Base: basesOf(mount)}
			p.Mount.Segments = slices.Concat(mount.Segments, []Segment{{Blob: descOf(fmt.Sprint("delta ", i), "")}})
			m.stockedMounts(p.Mount)
			want[i%8] = p.Mount
			saved := mustSave(t, m, mainScope, Change{Mounts: []MountPut{p}}, Options{})
			if largest = max(largest, int(saved.Bytes)); saved.Attempts != 1 {
				t.Errorf("%+v", saved)
			}
			cat := mustLoad(t, m, mainScope, Options{})
			if first := cat.doc.state; len(first.records) != 30 || packed(first) > 26<<10 || len(first.blobs()) > 140 || cat.Read() > 60_000 {
				t.Fatalf("build %d: the first page has %d records, %d blobs, %d bytes", i, len(first.records), len(first.blobs()), packed(first))
			}
			m.count()
			for _, w := range want {
				if got, ok := cat.Mount(t.Context(), w.Key); !ok || !sameRow(got.Segments, w.Segments) {
					t.Fatalf("build %d: %s has %d segments, want %d", i, w.ID, len(got.Segments), len(w.Segments))
				}
			}
			if n := m.count(); n["Open"] != cat.Pages() || cat.Pages() > 8 || len(n) > 1 {
				t.Errorf("build %d: %v, %d pages", i, n, cat.Pages())
			}
			time.Sleep(10 * time.Minute)
		}
		cat := mustLoad(t, m, mainScope, Options{})
		t.Logf("20 cache mounts of 88 blobs and more: %d bytes read, %d further pages; a save sends at most %d bytes", cat.Read(), cat.Pages(), largest)
		if list := cat.Mounts(t.Context()); len(list) != 20 || list[0].Key != want[3].Key || list[0].Used.Before(list[19].Used) {
			t.Errorf("%d cache mounts, the last used first: %s", len(list), list[0].ID)
		}
		if _, ok := cat.Mount(t.Context(), keyOf("none")); ok {
			t.Error("found what was never saved")
		}
		// What nobody uses for a month goes.
		time.Sleep(31 * 24 * time.Hour)
		mustSave(t, m, mainScope, Change{Mounts: []MountPut{{Mount: want[3], Base: basesOf(want[3])}}}, Options{})
		if list := mustLoad(t, m, mainScope, Options{}).Mounts(t.Context()); len(list) != 1 || list[0].Key != want[3].Key {
			t.Errorf("%d cache mounts are left", len(list))
		}
	})
}

func basesOf(m Mount) []key.Digest {
	var list []key.Digest
	for _, s := range m.Segments {
		d, err := key.FromOCI(s.Blob.Digest)
		if err != nil {
			panic(err)
		}
		list = append(list, d)
	}
	return list
}

// TestSmallMounts: those of a small project lie in the first page, with no further request.
func TestSmallMounts(t *testing.T) {
	bubble(t, func(t *testing.T) {
		m := newMemory("registry.example/app")
		c := steps("s", "x", 20)
		m.stockedAll(c)
		for _, name := range []string{"mod", "build"} {
			mount := bigMount(name, 4, 2, epoch)
			m.stockedMounts(mount)
			c.Mounts = append(c.Mounts, MountPut{Mount: mount})
		}
		if saved := mustSave(t, m, mainScope, c, Options{}); saved.Attempts != 1 {
			t.Errorf("%+v", saved)
		}
		m.count()
		cat := mustLoad(t, m, mainScope, Options{})
		got, ok := cat.Mount(t.Context(), keyOf("mount mod"))
		want := c.Mounts[0].Mount
		want.Used = got.Used
		if a, b := mustJSON(t, jsonOf(got)), mustJSON(t, jsonOf(want)); !ok || !bytes.Equal(a, b) || got.Used.IsZero() {
			t.Errorf("%s\n%s", a, b)
		}
		if n := m.count(); n["Manifest"] != 1 || len(n) != 1 {
			t.Errorf("it took %v", n)
		}
		for d := range got.Blobs() {
			if !strings.Contains(string(m.docs[mainScope.Tag]), string(d.Digest)) {
				t.Errorf("the document lacks %s", d.Digest)
			}
		}
		// What is there already is not written, until its use is a week old.
		again := Change{Mounts: []MountPut{{Mount: c.Mounts[0].Mount, Base: basesOf(got)}, c.Mounts[1]}}
		time.Sleep(7 * 24 * time.Hour)
		if saved := mustSave(t, m, mainScope, again, Options{}); saved.Attempts != 0 || !cat.Covers(again) {
			t.Errorf("%+v", saved)
		}
		time.Sleep(24 * time.Hour)
		if cat.Covers(again) || cat.Covers(Change{Mounts: []MountPut{{Mount: bigMount("new", 1, 1, epoch)}}}) {
			t.Error("it says that it knows what it does not")
		}
		if saved := mustSave(t, m, mainScope, again, Options{}); saved.Attempts != 1 {
			t.Errorf("%+v", saved)
		}
	})
}

func mustJSON(t *testing.T, v any) []byte {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestMountsGo: a mount goes whole when one of its blobs is not there, when it is pruned, and with the catalog; Check names it.
func TestMountsGo(t *testing.T) {
	for _, mute := range []bool{false, true} {
		bubble(t, func(t *testing.T) {
			m := newMemory("registry.example/app")
			m.mute = mute
			x := texts{}
			stock := func(list ...Mount) {
				for _, mount := range list {
					if err := x.stock(t.Context(), m, MountPut{Mount: mount}); err != nil {
						t.Fatal(err)
					}
				}
			}
			save := func(list ...Mount) Saved {
				var c Change
				for _, mount := range list {
					c.Mounts = append(c.Mounts, MountPut{Mount: mount})
				}
				return mustSave(t, m, mainScope, c, Options{})
			}
			left := func(want ...string) {
				t.Helper()
				var got []string
				for _, mount := range mustLoad(t, m, mainScope, Options{}).Mounts(t.Context()) {
					got = append(got, mount.ID)
				}
				if slices.Sort(got); !slices.Equal(got, want) {
					t.Errorf("left: %v, want %v", got, want)
				}
			}
			check := func() []Problem {
				t.Helper()
				p, err := Check(t.Context(), m, mustLoad(t, m, mainScope, Options{}), true)
				if err != nil {
					t.Fatal(err)
				}
				return p
			}
			single := func(name string) Mount { return x.build(name, false, nil, appends, "in-"+name).Mount }
			a := x.build("a", false, single("a").Segments, appends, "more").Mount
			b, c, d := single("b"), single("c"), single("d")
			stock(a, b)
			if saved := save(a, b, c); len(saved.Missing) != 2 {
				t.Errorf("%+v", saved)
			}
			left("/a", "/b")
			if p := check(); len(p) != 0 {
				t.Errorf("%+v", p)
			}
			pack := a.Segments[1].Packs[0].Digest
			m.blobs[pack] = append(m.blobs[pack][1:], 0)
			if p := check(); len(p) != 1 || p[0].Blob.Digest != pack || !errors.Is(p[0].Err, remote.ErrDamaged) || !slices.Equal(p[0].Records, []string{"cache mount /a"}) {
				t.Errorf("%+v", p)
			}
			mustSave(t, m, mainScope, Change{Gone: []digest.Digest{pack}}, Options{})
			left("/b")
			stock(a, c)
			save(a, c)
			left("/a", "/b", "/c")
			delete(m.blobs, pack)
			stock(d)
			save(d)
			left("/b", "/c", "/d")
			pruned, err := Prune(t.Context(), m, mainScope, Keep{Mount: func(m Mount) bool { return m.Key != b.Key }}, Options{})
			if err != nil || pruned.Mounts != 1 || pruned.Records != 0 || len(pruned.Blobs) != 2 ||
				!slices.ContainsFunc(pruned.Blobs, func(d ocispecs.Descriptor) bool { return d.Digest == b.Segments[0].Blob.Digest }) {
				t.Errorf("%+v, %v", pruned, err)
			}
			left("/c", "/d")
		})
	}
}

package catalog

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"pgregory.net/rapid"

	"larder/internal/key"
	"larder/internal/record"
)

// drawChange makes what a build may say: steps by various writers, some of which share a layer, some without copies, some that replace
// another writer's; uses; losses. A build has one record for a key.
func drawChange(t *rapid.T, label string) Change {
	var list []Change
	for _, name := range rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"a", "b", "c", "d"}), 0, 4, rapid.ID).Draw(t, label+" steps") {
		by := rapid.SampledFrom([]string{"", "x", "y", "bare"}).Draw(t, "by")
		c := step(name, by)
		if by != "bare" && rapid.IntRange(0, 3).Draw(t, "shared") == 0 {
			shared := step("shared", "")
			c.Put[0].Record.Outputs = append(c.Put[0].Record.Outputs, shared.Put[0].Record.Outputs...)
			c = join(c, Change{Trees: shared.Trees, Layers: shared.Layers})
		}
		if by == "bare" {
			c.Layers = nil
		}
		switch rapid.IntRange(0, 4).Draw(t, "how") {
		case 0:
			c.Put[0].Record.Outputs[0].Layers[0].Pinned = false
		case 1:
			c.Put[0].Replaces = step(name, rapid.SampledFrom([]string{"", "x", "y"}).Draw(t, "replaced")).Put[0].Record.Digest()
		}
		list = append(list, c)
	}
	c := join(list...)
	for range rapid.IntRange(0, 2).Draw(t, "gone") {
		name := rapid.SampledFrom([]string{"a", "bx", "cy", "shared"}).Draw(t, "lost")
		c.Gone = append(c.Gone, copyOf(name, "gzip").Desc.Digest, step(name, "").Trees[keyOf("tree "+name)].Digest)
	}
	for range rapid.IntRange(0, 2).Draw(t, "used") {
		c.Used = append(c.Used, keyOf(rapid.SampledFrom([]string{"a", "b", "zzz"}).Draw(t, "key")))
	}
	return c
}

func same(a, b state) bool { return !a.differs(b, time.Second) && !b.differs(a, time.Second) }

// checkSound fails where a state says what nobody said: a record that was never put, a copy that was never stored, anything that no
// record needs; or where it lacks what was stored and is not gone.
func checkSound(t *rapid.T, s state, said []Change) {
	for k, e := range s.records {
		put := slices.ContainsFunc(said, func(c Change) bool {
			return slices.ContainsFunc(c.Put, func(p Put) bool { return p.Record.Key == k && p.Record.Digest() == e.Record.Digest() })
		})
		if !put {
			t.Fatalf("nobody put %q", e.Record.Name)
		}
		for l := range layersOf(e.Record) {
			stored, gone := false, false
			for _, c := range said {
				puts := slices.ContainsFunc(c.Put, func(p Put) bool { return p.Record.Key == k && p.Record.Digest() == e.Record.Digest() })
				stored = stored || puts && len(c.Layers[l.Identity]) > 0
				for _, b := range c.Layers[l.Identity] {
					gone = gone || slices.ContainsFunc(said, func(o Change) bool { return slices.Contains(o.Gone, b.Desc.Digest) })
				}
			}
			if stored && !gone && len(s.layers[l.Identity]) == 0 {
				t.Fatalf("%q is there without its layer", e.Record.Name)
			}
		}
	}
	for id, copies := range s.layers {
		for _, b := range copies {
			if !slices.ContainsFunc(said, func(c Change) bool {
				return slices.ContainsFunc(c.Layers[id], func(o Blob) bool { return o.Desc.Digest == b.Desc.Digest && o.Key == b.Key })
			}) {
				t.Fatalf("nobody stored %s for %s", b.Desc.Digest, id)
			}
		}
	}
	swept := s.clone()
	swept.sweep()
	if !swept.sameBlobs(s) {
		t.Fatal("it names blobs that no record needs")
	}
}

func TestMergeIsSound(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := newState()
		var said []Change
		for i := range rapid.IntRange(1, 6).Draw(t, "changes") {
			c := drawChange(t, fmt.Sprint(i))
			said = append(said, c)
			before := s.clone()
			s2 := merge(s, c, nil, epoch)
			if !same(s, before) {
				t.Fatal("merge changed its argument")
			}
			checkSound(t, s2, said)
			for k, e := range s.records {
				now, have := s2.records[k]
				if !have {
					lost := false
					for l := range layersOf(e.Record) {
						lost = lost || l.Pinned && len(s.layers[l.Identity]) > 0
					}
					if !lost || len(c.Gone) == 0 {
						t.Fatalf("%q went without a reason", e.Record.Name)
					}
				} else if !sameRecord(now.Record, e.Record) && len(c.Gone) == 0 &&
					!slices.ContainsFunc(c.Put, func(p Put) bool { return p.Replaces == e.Record.Digest() }) {
					t.Fatalf("%q was overwritten", e.Record.Name)
				}
			}
			if again := merge(s2, withoutGone(c), nil, epoch); len(c.Gone) == 0 && !same(again, s2) {
				t.Fatal("merging twice is not merging once")
			}
			s = s2
		}
	})
}

func withoutGone(c Change) Change {
	c.Gone = nil
	return c
}

// TestMergeInAnyOrder merges changes of different keys in two orders.
func TestMergeInAnyOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(2, 5).Draw(t, "n")
		var list []Change
		for i := range n {
			list = append(list, steps(fmt.Sprint(i), "x", rapid.IntRange(0, 3).Draw(t, "steps")))
		}
		order := rapid.Permutation(list).Draw(t, "order")
		a, b := newState(), newState()
		for i := range n {
			a, b = merge(a, list[i], nil, epoch), merge(b, order[i], nil, epoch)
		}
		if !same(a, b) {
			t.Fatal("the order of changes that have nothing in common tells")
		}
	})
}

// TestMergeAnyInterleaving lets writers read a state, and write merged states over each other as a store without conditional writes lets
// them, then save again what they lost: nothing is ever there that nobody put, and all is there in the end.
func TestMergeAnyInterleaving(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(2, 5).Draw(t, "writers")
		var said []Change
		for i := range n {
			said = append(said, withoutGone(drawChange(t, fmt.Sprint(i))))
		}
		stored := newState()
		seen := make([]state, n)
		for i := range seen {
			seen[i] = newState()
		}
		for range rapid.IntRange(0, 20).Draw(t, "moves") {
			i := rapid.IntRange(0, n-1).Draw(t, "who")
			if rapid.Bool().Draw(t, "reads") {
				seen[i] = stored
			} else {
				stored = merge(seen[i], said[i], nil, epoch)
			}
			checkSound(t, stored, said)
		}
		for i := range n {
			stored = merge(stored, said[i], nil, epoch)
		}
		for _, c := range said {
			for _, p := range c.Put {
				if _, ok := stored.records[p.Record.Key]; !ok {
					t.Fatalf("%q is lost", p.Record.Name)
				}
			}
		}
		checkSound(t, stored, said)
	})
}

func TestMergeRules(t *testing.T) {
	first, second := step("s", "one"), step("s", "two")
	base := merge(newState(), first, nil, epoch)
	identity := keyOf("layer sone")
	name := func(s state) string {
		if e, ok := s.records[keyOf("s")]; ok {
			return e.Record.Name
		}
		return "none"
	}
	replacing := func(c Change, r *record.Record) Change {
		c.Put = []Put{{Record: c.Put[0].Record, Replaces: r.Digest()}}
		return c
	}
	one, two := "RUN s # one", "RUN s # two"
	zstdToo := Change{Layers: map[key.Digest][]Blob{identity: {copyOf("sone", "zstd")}}}
	otherBlob := Change{Layers: map[key.Digest][]Blob{identity: {{Key: keyOf("gzip"), Desc: descOf("other", ""), DiffID: digest.FromString("o")}}}}
	gone := Change{Gone: []digest.Digest{copyOf("sone", "gzip").Desc.Digest}}
	treeGone := Change{Gone: []digest.Digest{first.Trees[keyOf("tree sone")].Digest}}
	bare := step("s", "one")
	bare.Layers = nil
	healed := join(replacing(second, first.Put[0].Record), gone)
	sameBack := join(first, gone)
	for name2, c := range map[string]struct {
		start  state
		change Change
		want   string
		copies int
		trees  int
	}{
		"the first record stays":                     {base, second, one, 1, 1},
		"one that replaces another stays out":        {base, replacing(second, second.Put[0].Record), one, 1, 1},
		"one that replaces this one comes in":        {base, replacing(second, first.Put[0].Record), two, 0, 1},
		"a copy for another purpose comes in":        {base, zstdToo, one, 2, 1},
		"the first copy for a purpose stays":         {base, otherBlob, one, 1, 1},
		"a lost layer takes its record along":        {base, gone, "none", 0, 0},
		"a lost copy of two does not":                {merge(base, zstdToo, nil, epoch), gone, one, 1, 1},
		"a lost tree goes alone":                     {base, treeGone, one, 1, 0},
		"who never had a copy stays":                 {merge(newState(), bare, nil, epoch), gone, one, 0, 1},
		"a lost layer that was made anew":            {base, healed, two, 0, 1},
		"a lost layer whose blob was stored again":   {base, sameBack, one, 1, 1},
		"a tree that no record names does not count": {base, Change{Trees: step("t", "").Trees}, one, 1, 1},
	} {
		s := merge(c.start, c.change, nil, epoch)
		if got := name(s); got != c.want || len(s.layers[identity]) != c.copies || len(s.trees) != c.trees {
			t.Errorf("%s: %s with %d copies, %d trees", name2, got, len(s.layers[identity]), len(s.trees))
		}
	}
	missing := map[digest.Digest]bool{copyOf("sone", "gzip").Desc.Digest: true}
	if got := name(merge(newState(), first, missing, epoch)); got != "none" {
		t.Errorf("a record whose blob is not in the store: %s", got)
	}
	used := merge(base, Change{Used: []key.Digest{keyOf("s")}}, nil, epoch.Add(time.Hour+time.Nanosecond))
	if got := used.records[keyOf("s")].Used; !got.Equal(epoch.Add(time.Hour)) {
		t.Errorf("used at %s", got)
	}
	if back := merge(used, Change{Used: []key.Digest{keyOf("s")}}, nil, epoch); !back.records[keyOf("s")].Used.Equal(epoch.Add(time.Hour)) {
		t.Error("a slow clock set the time of use back")
	}
}

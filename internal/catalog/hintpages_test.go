package catalog

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"larder/internal/key"
)

// observedStep makes the change of a build that ran a step which was observed: its record, the one that it is found by through what it looked
// at, the path set of n bytes, and the list that names the set. what says what it was given.
func observedStep(name, what string, n int) Change {
	c := step(name+" "+what, "x")
	seen := *c.Put[0].Record
	seen.Key = keyOf("seen " + name + what)
	set := hint("set of "+name, len(name)*31+int(name[len(name)-1]), n)
	list := adds(name, name)
	c.Put[0].Record.With = []key.Digest{seen.Key}
	seen.With = []key.Digest{set.Put[0].Record.Key, list.Put[0].Record.Key}
	return join(c, Change{Put: []Put{{Record: &seen}}}, set, list)
}

// explained adds what a build leaves for the next one's explanation, in place of what was there.
func explained(t *testing.T, m *memory, c Change, seed int) Change {
	t.Helper()
	e := hint("explanation", seed, 12<<10)
	if cat, err := Load(t.Context(), m, mainScope, Options{}); err == nil {
		if old, ok := cat.Record(t.Context(), e.Put[0].Record.Key); ok {
			e.Put[0].Replaces = old.Record.Digest()
		}
	}
	return join(c, e)
}

// TestHintsLeaveTheFirstPageSmall: what a build without changes reads is the records of its steps, and it needs nothing else to know that
// all is saved. A build that misses one gets every hint with one more round trip.
func TestHintsLeaveTheFirstPageSmall(t *testing.T) {
	bubble(t, func(t *testing.T) {
		const all, set = 25, 5 << 10
		m := newMemory("registry.example/app")
		given := make([]string, all)
		build := func(n int) Saved {
			var list []Change
			for i := range all {
				list = append(list, observedStep(fmt.Sprint("s", i), given[i], set))
			}
			c := explained(t, m, join(list...), n)
			m.stockedAll(c)
			return mustSave(t, m, mainScope, c, Options{})
		}
		build(0)
		used := func() (c Change) {
			for i := range all {
				c.Used = append(c.Used, keyOf(fmt.Sprint("s", i, " ", given[i])))
			}
			return c
		}
		largest, sent := 0, int64(0)
		for n := range 15 {
			time.Sleep(time.Hour)
			given[n%all] = fmt.Sprint("edit ", n)
			if saved := build(n + 1); saved.Attempts != 1 {
				t.Fatalf("build %d: %+v", n, saved)
			} else {
				sent = max(sent, saved.Bytes)
			}
			doc := len(m.docs[mainScope.Tag])
			largest = max(largest, doc)
			m.count()
			cat := mustLoad(t, m, mainScope, Options{})
			if !cat.Covers(used()) {
				t.Fatalf("build %d: it does not know that all is saved", n)
			}
			for i := range all {
				for _, k := range []key.Digest{keyOf(fmt.Sprint("s", i, " ", given[i])), keyOf(fmt.Sprint("list of s", i))} {
					if _, ok := cat.Record(t.Context(), k); !ok {
						t.Fatalf("build %d: a record of step %d is lost", n, i)
					}
				}
			}
			if ops := m.count(); ops["Manifest"] != 1 || len(ops) != 1 {
				t.Fatalf("build %d: what a build without changes needs took %v", n, ops)
			}
			for _, k := range []string{"hint explanation", "hint set of s0", "hint set of s24"} {
				if _, ok := cat.Record(t.Context(), keyOf(k)); !ok {
					t.Fatalf("build %d: %s is lost", n, k)
				}
			}
			if ops := m.count(); ops["Open"] != cat.Pages() || cat.Pages() == 0 || cat.Pages() > 3 || len(ops) != 1 {
				t.Fatalf("build %d: %d further pages; hints took %v", n, cat.Pages(), ops)
			}
			if e, _ := cat.Record(t.Context(), keyOf("hint explanation")); !slices.Equal(e.Record.Hint, noise(n+1, 12<<10)) {
				t.Fatalf("build %d: an old explanation", n)
			}
		}
		t.Logf("document at most %d bytes; a build with one change sent at most %d bytes", largest, sent)
		if largest > 60_000 {
			t.Errorf("the document took %d bytes", largest)
		}
		// For all that is only used and kept by others nothing is written; after a week once.
		time.Sleep(6 * 24 * time.Hour)
		if saved := mustSave(t, m, mainScope, used(), Options{}); saved.Attempts != 0 {
			t.Errorf("%+v", saved)
		}
		for range 8 {
			time.Sleep(7 * 24 * time.Hour)
			mustSave(t, m, mainScope, used(), Options{})
		}
		cat := mustLoad(t, m, mainScope, Options{})
		for i := range all {
			if _, ok := cat.Record(t.Context(), keyOf(fmt.Sprint("hint set of s", i))); !ok {
				t.Fatalf("the path set of step %d, which is used all the time, is gone", i)
			}
		}
		if _, ok := cat.Record(t.Context(), keyOf("hint explanation")); ok {
			t.Error("an explanation that nobody uses stays")
		}
	})
}

// TestUsedHintsStayInTheirPage: that a build used large hints is no reason to write them anew.
func TestUsedHintsStayInTheirPage(t *testing.T) {
	bubble(t, func(t *testing.T) {
		m := newMemory("registry.example/app")
		var sets Change
		for i := range 20 {
			sets = join(sets, hint(fmt.Sprint(i), i, 5<<10))
		}
		mustSave(t, m, mainScope, sets, Options{})
		before := mustLoad(t, m, mainScope, Options{}).doc.page.Pages
		save := func(name string) []pageRef {
			c := step(name, "x").withoutBlobs()
			for _, p := range sets.Put {
				c.Used = append(c.Used, p.Record.Key)
			}
			saved := mustSave(t, m, mainScope, c, Options{})
			if saved.Records != 1 || saved.Attempts != 1 {
				t.Errorf("%+v", saved)
			}
			return mustLoad(t, m, mainScope, Options{}).doc.page.Pages
		}
		time.Sleep(7 * 24 * time.Hour)
		if after := save("s"); len(before) != 1 || !slices.Equal(before, after) {
			t.Errorf("%d further pages became %d others", len(before), len(after))
		}
		time.Sleep(24 * time.Hour)
		after := save("t")
		if len(after) != 1 || slices.Equal(before, after) {
			t.Errorf("%d further pages became %d; that the hints are in use is not noted", len(before), len(after))
		}
	})
}

// TestAHintThatIsAsItOnceWas: of the versions of a hint in several pages the last one counts, though the same stands in an older page too.
func TestAHintThatIsAsItOnceWas(t *testing.T) {
	all := newState()
	full := func(tag string, seed int) oldPage {
		c := hint("h", seed, 5<<10)
		for i := range 45 {
			c = join(c, hint(fmt.Sprint(tag, i), i, 5<<10))
		}
		p := merge(newState(), c, nil, epoch)
		all = united(p, []state{all})
		return oldPage{pageRef{Tag: tag}, p}
	}
	older, newer := full("older", 1), full("newer", 2)
	all = united(merge(newState(), hint("h", 1, 5<<10), nil, epoch.Add(time.Minute)), []state{all})
	l := lay(all, []oldPage{newer, older}, Limits{Page: 1000}.withDefaults(), true, epoch.Add(time.Minute))
	if len(l.kept) != 2 || len(l.fresh) != 1 || len(l.first.records) > 0 {
		t.Errorf("%d pages are kept, %d are fresh, %d records in the first", len(l.kept), len(l.fresh), len(l.first.records))
	}
	if back := united(l.first, append(l.fresh, newer.state, older.state)); !same(back, all) {
		t.Error("not the last version")
	}
}

// TestHintsGiveWay: where there are too many pages, those of hints go first.
func TestHintsGiveWay(t *testing.T) {
	page := func(c Change) state { return merge(newState(), c, nil, epoch) }
	hints, records := page(hint("h", 1, 5<<10)), page(step("s", "x"))
	both := page(join(hint("h", 1, 5<<10), step("s", "x")))
	old := func(tag string, s state) oldPage { return oldPage{pageRef{Tag: tag}, s} }
	l := layout{fresh: []state{hints, records}, kept: []oldPage{old("1", hints), old("2", both), old("3", hints), old("4", records)}}
	for most, want := range map[int]string{6: "2 [1 2 3 4]", 5: "2 [1 2 4]", 4: "2 [2 4]", 3: "1 [2 4]", 2: "1 [2]", 1: "1 []"} {
		l := layout{fresh: slices.Clone(l.fresh), kept: slices.Clone(l.kept)}
		l.bound(Limits{Pages: most})
		var tags []string
		for _, k := range l.kept {
			tags = append(tags, k.ref.Tag)
		}
		if got := fmt.Sprint(len(l.fresh), " ", tags); got != want {
			t.Errorf("%d pages: %s, want %s", most, got, want)
		}
		if most < 4 && hinting(l.fresh[0]) {
			t.Errorf("%d pages: the hints stay", most)
		}
	}
}

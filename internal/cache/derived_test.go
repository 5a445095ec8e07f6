package cache

import (
	"testing"

	"larder/internal/catalog"
	"larder/internal/key"
	"larder/internal/record"
)

// observed does what a solver does with a RUN step whose inputs are observed: it finds the step by its exact key, else by what it looks at,
// and keeps a copy under the exact key then; else it runs it. It gives what the step made.
func (w *shared) observed(s *Session, runs string) key.Digest {
	w.t.Helper()
	ctx := w.t.Context()
	result := func(r *record.Record) key.Digest {
		s.Used(r, nil, false)
		l, _ := r.OnlyLayer()
		return l.Identity
	}
	if r, ok := s.Get(ctx, keyOf("exact")); ok {
		return result(r)
	}
	for _, list := range s.All(ctx, keyOf("list")) {
		if !catalog.ListsAll(list.Hint, listOf("set")) {
			continue
		}
		if _, ok := s.Get(ctx, keyOf("set")); !ok {
			continue
		}
		if found, ok := s.Get(ctx, keyOf("seen")); ok {
			c := *found
			c.Key, c.With = keyOf("exact"), []key.Digest{found.Key}
			r, err := s.Put(ctx, &c)
			if err != nil {
				w.t.Fatal(err)
			}
			result(found)
			return result(r)
		}
	}
	w.put(s, hintOf("list", listOf("set")), true)
	w.put(s, hintOf("set", []byte("looks")), false)
	for _, k := range []string{"seen", "exact"} {
		r, err := s.Put(ctx, made(k, runs))
		if err != nil {
			w.t.Fatal(err)
		}
		result(r)
	}
	return keyOf(runs)
}

// poisoned has, in a fork's scope, a result that its step would not make, and all that leads there.
func poisoned(t *testing.T) *shared {
	w := newShared(t)
	w.write("fork", hintOf("list", listOf("set")), hintOf("set", []byte("looks")), made("seen", "evil"))
	w.write("main", made("something else", "a"))
	return w
}

// TestAForksObservedRecordStaysWithIt: a fork's build on a machine finds, by what a step looks at, what its scope says of it. Builds on that
// machine which do not read the scope do not get it, nor does what they save.
func TestAForksObservedRecordStaysWithIt(t *testing.T) {
	for name, taint := range map[string]bool{"as it is": false, "after a claim": true} {
		w := poisoned(t)
		w.write("fork", &record.Record{Key: keyOf("claim"), Data: []byte("x")})
		fork := func() *Session {
			s := w.begin("fork", "fork", "main")
			if taint {
				s.Get(t.Context(), keyOf("claim"))
			}
			return s
		}
		s := fork()
		if got := w.observed(s, "good"); got != keyOf("evil") {
			t.Fatalf("%s: the fork's own record is not found", name)
		}
		// It is not saved yet: main's builds come first.
		for _, reads := range [][]string{nil, {"main"}} {
			m := w.begin("main", reads...)
			if _, ok := m.Get(t.Context(), keyOf("exact")); ok {
				t.Errorf("%s, reading %v: the copy is believed", name, reads)
			}
			if all := m.All(t.Context(), keyOf("exact")); len(all) > 0 {
				t.Errorf("%s, reading %v: the copy is listed: %s", name, reads, hints(all))
			}
		}
		m := w.begin("main", "main")
		if got := w.observed(m, "good"); got != keyOf("good") {
			t.Fatalf("%s: main's build has the fork's result", name)
		}
		m.Save(t.Context())
		for _, k := range []string{"seen", "exact"} {
			if l, ok := w.saved("main", k).OnlyLayer(); !ok || l.Identity != keyOf("good") {
				t.Errorf("%s: main's catalog says %s of %s", name, l.Identity, k)
			}
		}
		s.Save(t.Context())
		if l, _ := w.saved("fork", "exact").OnlyLayer(); l.Identity != keyOf("evil") {
			t.Errorf("%s: the fork has not saved what it found", name)
		}
		if got := w.observed(w.begin("", "main"), "other"); got != keyOf("good") {
			t.Errorf("%s: another of main's builds has %s", name, got)
		}
		for _, s := range []*Session{s, m} {
			if err := s.Err(); err != nil {
				t.Error(err)
			}
		}
	}
}

// TestACopyGoesWithWhatItIsOf: what a scope says of a step today counts, whatever copy of what it said is on the machine.
func TestACopyGoesWithWhatItIsOf(t *testing.T) {
	w := poisoned(t)
	w.write("main", hintOf("list", listOf("set")), hintOf("set", []byte("looks")), made("seen", "wrong"))
	read := func() key.Digest { return w.observed(w.begin("", "main"), "good") }
	if got := read(); got != keyOf("wrong") {
		t.Fatal("main's record is not found")
	}
	if got := read(); got != keyOf("wrong") {
		t.Error("a second build does not find it")
	}
	w.write("main", made("seen", "healed"))
	if got := read(); got != keyOf("healed") {
		t.Error("the machine has kept what the scope does not say any more")
	}
	w.mute["main"] = true
	if got := read(); got != keyOf("healed") {
		t.Error("the copy is not there while the store does not answer")
	}
}

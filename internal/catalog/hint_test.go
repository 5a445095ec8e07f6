package catalog

import (
	"bytes"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"larder/internal/key"
	"larder/internal/observation"
	"larder/internal/record"
)

// listOf makes a list of digests.
func listOf(names ...string) []byte {
	var out []byte
	for _, n := range names {
		d := keyOf("set " + n)
		out = append(out, d[:]...)
	}
	return out
}

// adds makes the change of a build that adds to the list of a step.
func adds(step string, names ...string) Change {
	return Change{Put: []Put{{Record: &record.Record{Key: keyOf("list of " + step), Hint: listOf(names...)}, Unite: true}}}
}

// hint makes the change of a build that has something of n bytes to hint at.
func hint(name string, seed, n int) Change {
	return Change{Put: []Put{{Record: &record.Record{Key: keyOf("hint " + name), Hint: noise(seed, n)}}}}
}

func numbers(n int) []string {
	var out []string
	for i := range n {
		out = append(out, fmt.Sprint(i))
	}
	return out
}

func TestUniteHints(t *testing.T) {
	odd := append(listOf("a"), 1)
	for i, c := range []struct{ near, far, want []byte }{
		{nil, nil, nil},
		{listOf("a"), nil, listOf("a")},
		{nil, listOf("a", "b"), listOf("a", "b")},
		{listOf("a", "b"), listOf("c"), listOf("a", "b", "c")},
		{listOf("b"), listOf("a", "b", "c"), listOf("b", "a", "c")},
		{listOf("x"), listOf(numbers(observation.MaxSets)...), listOf(append([]string{"x"}, numbers(observation.MaxSets-1)...)...)},
		{listOf(numbers(observation.MaxSets + 3)...), nil, nil},
		{odd, listOf("b"), listOf("b")},
		{listOf("b"), odd, listOf("b")},
	} {
		got := UniteHints(c.near, c.far)
		if !bytes.Equal(got, c.want) {
			t.Errorf("case %d: %x", i, got)
		}
		if again := UniteHints(c.near, got); !bytes.Equal(again, got) {
			t.Errorf("case %d: once more makes %x", i, again)
		}
	}
}

func TestMergeHints(t *testing.T) {
	k := keyOf("list of s")
	list := func(s state) []byte { return s.records[k].Record.Hint }
	s := merge(newState(), adds("s", "a"), nil, epoch)
	first := s.records[k].Record
	first.Name = "RUN s"
	s = merge(s, adds("s", "b"), nil, epoch)
	if !bytes.Equal(list(s), listOf("b", "a")) || s.records[k].Record.Name != "RUN s" || !bytes.Equal(first.Hint, listOf("a")) {
		t.Errorf("%+v", s.records[k].Record)
	}
	if moved := merge(s, adds("s", "a"), nil, epoch); !bytes.Equal(list(moved), listOf("a", "b")) {
		t.Errorf("what was of use now is not in front: %x", list(moved))
	}
	verify := adds("s", "a")
	verify.writes = 1
	if stays := merge(s, verify, nil, epoch); !same(s, stays) {
		t.Error("a writer that looks after its digest changes others' order")
	}
	full := merge(newState(), adds("s", numbers(observation.MaxSets)...), nil, epoch)
	verify = adds("s", "late")
	for verify.writes = range maxUnite + 1 {
		in := bytes.HasPrefix(list(merge(full, verify, nil, epoch)), listOf("late"))
		if in != (verify.writes < maxUnite) {
			t.Errorf("after %d writes it pushes another one out: %v", verify.writes, in)
		}
	}

	// What an older larder wrote anew has lost its hint. It is no reason to keep what it has left.
	for _, c := range []Change{adds("s", "a"), hint("s", 1, 100)} {
		r := *c.Put[0].Record
		r.Hint = nil
		c2 := Change{Put: []Put{{Record: &r}}}
		bare := merge(newState(), c2, nil, epoch)
		if got := merge(bare, c, nil, epoch); !bytes.Equal(got.records[r.Key].Record.Hint, c.Put[0].Record.Hint) {
			t.Error("a record without its hint stays")
		}
		if got := merge(bare, c2, nil, epoch); !same(got, bare) {
			t.Error("nothing replaces nothing")
		}
	}
	if got := merge(merge(newState(), hint("s", 1, 100), nil, epoch), hint("s", 2, 100), nil, epoch); !bytes.Equal(got.records[keyOf("hint s")].Record.Hint, noise(1, 100)) {
		t.Error("a hint that is no list was replaced by nobody's wish")
	}

	put, refused := admit(join(hint("s", 1, maxHint), hint("t", 1, maxHint+1), adds("s", "a"), Change{Put: []Put{{Record: &record.Record{Key: k, Hint: []byte("x")}, Unite: true}}}))
	if len(put.Put) != 2 || refused != 0 {
		t.Errorf("%d are admitted, %d refused", len(put.Put), refused)
	}
	mixed := step("s", "x")
	mixed.Put[0].Record.Hint = noise(1, maxHint+1)
	if put, refused := admit(mixed); len(put.Put) != 1 || refused != 0 || put.Put[0].Record.Hint != nil || mixed.Put[0].Record.Hint == nil {
		t.Errorf("%d are admitted, %d refused", len(put.Put), refused)
	}
}

// TestListsAnyInterleaving lets writers read a catalog and write merged ones over each other, each with digests of its own for one list,
// then look after them until nobody has anything to write. Nothing is lost as long as there is room, nothing is made up, and they
// come to an end.
func TestListsAnyInterleaving(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(2, 24).Draw(t, "writers")
		each := rapid.IntRange(1, 3).Draw(t, "each")
		said := make([]Change, n)
		var all []byte
		distinct := map[string]bool{}
		for i := range n {
			var mine []string
			for j := range each {
				mine = append(mine, fmt.Sprint(i, " ", j))
			}
			if rapid.Bool().Draw(t, "one more") {
				mine = append(mine, "everybody's")
			}
			said[i] = adds("s", mine...)
			for _, name := range mine {
				distinct[name] = true
			}
			all = append(all, listOf(mine...)...)
		}
		stored := newState()
		seen := make([]state, n)
		for i := range seen {
			seen[i] = newState()
		}
		write := func(i int, from state) {
			stored = merge(from, said[i], nil, epoch)
			said[i].writes++
			list := stored.records[keyOf("list of s")].Record.Hint
			if len(list) > observation.MaxSets*key.Size || !ListsAll(all, list) || !bytes.Equal(UniteHints(list, nil), list) {
				t.Fatalf("a list of %d bytes", len(list))
			}
		}
		for range rapid.IntRange(0, 60).Draw(t, "moves") {
			if i := rapid.IntRange(0, n-1).Draw(t, "who"); rapid.Bool().Draw(t, "reads") {
				seen[i] = stored
			} else {
				write(i, seen[i])
			}
		}
		writes := 0
		for calm := 0; calm < n; writes++ {
			i := rapid.IntRange(0, n-1).Draw(t, "who looks")
			for calm = 0; calm < n && !stored.differs(merge(stored, said[i], nil, epoch), time.Hour); calm++ {
				i = (i + 1) % n
			}
			if calm < n {
				write(i, stored)
			}
			if writes > n*(maxUnite+each+1) {
				t.Fatal("they write for ever")
			}
		}
		list := stored.records[keyOf("list of s")].Record.Hint
		for i, c := range said {
			if len(distinct) <= observation.MaxSets && !ListsAll(list, c.Put[0].Record.Hint) {
				t.Fatalf("what writer %d added is lost", i)
			}
		}
	})
}

// TestListsOfManyWriters does that over a store, with saves.
func TestListsOfManyWriters(t *testing.T) {
	for _, conditional := range []bool{false, true} {
		for _, writers := range []int{2, observation.MaxSets, 2 * observation.MaxSets} {
			synctest.Test(t, func(t *testing.T) {
				m := newMemory("registry.example/app")
				m.conditional = conditional
				m.trip = jitter(1, 25*time.Millisecond, 0)
				done := make(chan error)
				for i := range writers {
					go func() {
						_, err := Save(t.Context(), m, mainScope, adds("s", fmt.Sprint(i)), Options{})
						done <- err
					}()
				}
				for range writers {
					if err := <-done; err != nil {
						t.Error(err)
					}
				}
				e, ok := mustLoad(t, m, mainScope, Options{}).Record(t.Context(), keyOf("list of s"))
				if !ok {
					t.Fatal("there is no list")
				}
				if got := len(e.Record.Hint) / key.Size; got != min(writers, observation.MaxSets) || !ListsAll(listOf(numbers(writers)...), e.Record.Hint) {
					t.Errorf("%d writers, conditional=%v: %d digests are in the list", writers, conditional, got)
				}
			})
		}
	}
}

// TestUsesOfWhatARecordKeeps: what a record names is as recently used as it is, whoever says so.
func TestUsesOfWhatARecordKeeps(t *testing.T) {
	c := join(step("s", "x"), hint("s", 1, 10), hint("t", 1, 10), step("seen", "x"))
	c.Put[0].Record.With = []key.Digest{keyOf("seen"), keyOf("nowhere")}
	c.Put[3].Record.With = []key.Digest{keyOf("hint s"), keyOf("s")}
	s := merge(newState(), c, nil, epoch)
	after := epoch.Add(time.Hour)
	s = merge(s, Change{Used: []key.Digest{keyOf("s")}}, nil, after)
	var used []string
	for _, e := range s.sorted() {
		if e.Used.Equal(after) {
			used = append(used, e.Record.Key.String())
		}
	}
	want := []string{keyOf("s").String(), keyOf("hint s").String(), keyOf("seen").String()}
	slices.Sort(used)
	slices.Sort(want)
	if !slices.Equal(used, want) || len(s.records) != 4 {
		t.Errorf("used: %q, want %q", used, want)
	}
}

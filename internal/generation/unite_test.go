package generation

import (
	"errors"
	"testing"

	"pgregory.net/rapid"

	"larder/internal/tree"
)

// worked gives what a build left of a mount in which tools add, touch and remove files: a mount that can be united.
func worked(rt *rapid.T, a *Generation, label string) *Generation {
	var list []touch
	used := map[string]bool{}
	at := 0
	err := pair(a.Tree, nil, func(path []byte, n, _ *tree.Node) error {
		if rapid.IntRange(0, 2).Draw(rt, "used") == 0 {
			used[string(path)] = true
			if n.Group == 0 {
				list = append(list, touch{at, rapid.Int64Range(0, 1<<40).Draw(rt, "mtime")})
			}
		}
		at++
		return nil
	})
	if err != nil {
		rt.Fatal(err)
	}
	root, err := retimed(a.Tree, list)
	if err != nil {
		rt.Fatal(err)
	}
	root = reworked(rt, root)
	b := &Generation{Tree: root, Pieces: a.Pieces}
	addPieces(rt, b)
	b.Idle = counted(rt, a, root, used)
	if rapid.Bool().Draw(rt, "ledger") {
		b.Ledger = tree.Empty().WithMeta(tree.Meta{Mode: 0o755, MTime: int64(len(label))})
	}
	return b
}

// reworked removes a few files of a tree and adds a few.
func reworked(rt *rapid.T, n *tree.Node) *tree.Node {
	list, err := n.Entries()
	if err != nil {
		rt.Fatal(err)
	}
	var out []tree.Entry
	for _, e := range list {
		if e.Node.Kind == tree.Dir {
			e.Node = reworked(rt, e.Node)
		} else if e.Name == "new" || rapid.IntRange(0, 5).Draw(rt, "remove") == 0 {
			continue
		}
		out = append(out, e)
	}
	if rapid.IntRange(0, 3).Draw(rt, "add") == 0 {
		c := drawContent(rt)
		out = append(out, tree.Entry{Name: "new", Node: &tree.Node{Kind: tree.File, Size: c.size, Content: c.digest,
			Meta: tree.Meta{Mode: 0o644, MTime: rapid.Int64Range(0, 9).Draw(rt, "mtime")}}})
	}
	d, err := tree.NewDir(n.Meta, false, out)
	if err != nil {
		rt.Fatal(err)
	}
	return d
}

// byPath lists what is no directory.
func byPath(t rapid.TB, g *Generation) map[string]*tree.Node {
	out := map[string]*tree.Node{}
	err := pair(g.Tree, nil, func(path []byte, n, _ *tree.Node) error {
		out[string(path)] = n
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func sameFile(a, b *tree.Node) bool {
	return a != nil && b != nil && a.MTime == b.MTime && a.Self() == b.Self()
}

// checkUnion compares got with what there should be of two writers' versions of a, of which the second one's stands behind.
func checkUnion(rt *rapid.T, a, first, second, got *Generation) {
	was, one, two, is := byPath(rt, a), byPath(rt, first), byPath(rt, second), byPath(rt, got)
	for p, n := range is {
		want := one[p]
		if two[p] != nil && (want == nil || !sameFile(was[p], two[p])) {
			want = two[p]
		}
		if !sameFile(n, want) {
			rt.Fatalf("%q is %+v, want %+v", p, n, want)
		}
		idle := first.Idle[p]
		if one[p] == nil || two[p] != nil && second.Idle[p] < idle {
			idle = second.Idle[p]
		}
		if got.Idle[p] != idle {
			rt.Fatalf("%q: idle %d, want %d", p, got.Idle[p], idle)
		}
	}
	for p := range one {
		if is[p] == nil {
			rt.Fatalf("%q of the first is missing", p)
		}
	}
	for p := range two {
		if is[p] == nil {
			rt.Fatalf("%q of the second is missing", p)
		}
	}
}

func TestUnion(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		w := &world{t: rt}
		a := w.generation(nil)
		first, second := worked(rt, a, "first"), worked(rt, a, "second")
		row := [][]byte{full(t, a), delta(t, a, first), delta(t, a, second)}
		got := readAll(t, row...)
		_, err := ReadOne(row)
		if stateOf(rt, first) == stateOf(rt, a) { // it changed nothing but counts
			if dump(t, got) != dump(t, second) || err != nil {
				rt.Fatalf("a row of one writer is united, %v", err)
			}
			return
		}
		if !errors.Is(err, tree.ErrDamaged) {
			rt.Fatalf("two writers are read as one: %v", err)
		}
		checkUnion(rt, a, first, second, got)
		switch {
		case second.Ledger != nil:
			if dump(t, &Generation{Tree: got.Ledger}) != dump(t, &Generation{Tree: second.Ledger}) {
				rt.Fatal("it is not the second one's ledger")
			}
		case first.Ledger != nil && got.Ledger == nil:
			rt.Fatal("no ledger")
		}
		// The next build begins with the union, and a further step of the second one does not.
		next := worked(rt, got, "next")
		if again := readAll(t, append(row[:3:3], delta(t, got, next))...); dump(t, again) != dump(t, next) {
			rt.Fatalf("a delta of the union makes\n%s\nwant\n%s", dump(t, again), dump(t, next))
		}
		further := worked(rt, second, "further")
		if again := readAll(t, full(t, a), delta(t, a, second), delta(t, second, further)); dump(t, again) != dump(t, further) {
			rt.Fatal("a row of one writer is united")
		}
		checkHas(rt, further, readAll(t, append(row[:3:3], delta(t, second, further))...))
	})
}

func stateOf(rt *rapid.T, g *Generation) state {
	v, err := viewOf(g)
	if err != nil {
		rt.Fatal(err)
	}
	return v.state
}

func checkHas(rt *rapid.T, want, got *Generation) {
	is := byPath(rt, got)
	for p := range byPath(rt, want) {
		if is[p] == nil {
			rt.Fatalf("%q is missing", p)
		}
	}
}

// TestUnionOfFullOnes: two builds that both began with nothing.
func TestUnionOfFullOnes(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		w := &world{t: rt}
		a := w.generation(nil)
		first, second := worked(rt, a, "first"), worked(rt, a, "second")
		got := readAll(t, full(t, first), full(t, second))
		checkUnion(rt, &Generation{Tree: tree.Empty()}, first, second, got)
	})
}

// TestWhatItWasMadeOfIsGone: the row was written anew while somebody was at work. What he added is there.
func TestWhatItWasMadeOfIsGone(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		w := &world{t: rt}
		a := w.generation(nil)
		other, his := worked(rt, a, "other"), worked(rt, a, "his")
		if stateOf(rt, other) == stateOf(rt, a) {
			return
		}
		got := readAll(t, full(t, other), delta(t, a, his))
		checkHas(rt, other, got)
		is, was := byPath(rt, got), byPath(rt, a)
		for p, n := range byPath(rt, his) {
			if was[p] == nil && !sameFile(is[p], n) {
				rt.Fatalf("%q is %+v, want %+v", p, is[p], n)
			}
		}
	})
}

// TestWhoUsedItLast: of two builds at once one used a file. Whichever is saved last, the file counts as used.
func TestWhoUsedItLast(t *testing.T) {
	a := mount(t, map[string]int{"f": 1, "g": 1})
	version := func(mode uint32, idle map[string]int) *Generation {
		g := *a
		g.Tree, g.Idle = a.Tree.WithMeta(tree.Meta{Mode: mode}), idle
		return &g
	}
	first, second := version(0o700, map[string]int{"f": 2, "g": 0}), version(0o750, map[string]int{"f": 0, "g": 2})
	for _, row := range [][][]byte{
		{full(t, a), delta(t, a, first), delta(t, a, second)},
		{full(t, a), delta(t, a, second), delta(t, a, first)},
	} {
		if got := readAll(t, row...); len(got.Idle) != 0 {
			t.Errorf("%v", got.Idle)
		}
	}
	// A build alone counts for itself, also from counts that were not saved.
	unsaved := version(0o700, map[string]int{"f": 7, "g": 7})
	next := version(0o711, map[string]int{"f": 8, "g": 0})
	got, err := ReadOne([][]byte{full(t, a), delta(t, a, first), delta(t, unsaved, next)})
	if err != nil || dump(t, got) != dump(t, next) {
		t.Errorf("%v, %v", got, err)
	}
}

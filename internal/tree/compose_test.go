package tree

import (
	"flag"
	"testing"

	"pgregory.net/rapid"
)

// checks has rapid try a property so many times in this test; it prints the seed of what fails.
func checks(t *testing.T, n string) {
	t.Helper()
	v := flag.Lookup("rapid.checks").Value
	old := v.String()
	if err := v.Set(n); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := v.Set(old); err != nil {
			t.Error(err)
		}
	})
}

// drawLayer makes a layer tree, some directories of which are Implied.
func drawLayer(t *rapid.T, label string) *Node {
	return mapDirs(t, drawTree(t, label, true), func(n *Node) { n.Implied = rapid.IntRange(0, 2).Draw(t, label+"-implied") == 0 })
}

// mapDirs copies a tree and has change edit its directories.
func mapDirs(t rapid.TB, n *Node, change func(*Node)) *Node {
	if n.Kind != Dir {
		return n
	}
	entries, err := n.Entries()
	if err != nil {
		t.Fatal(err)
	}
	out := make([]Entry, 0, len(entries))
	for _, e := range entries {
		out = append(out, Entry{e.Name, mapDirs(t, e.Node, change)})
	}
	d := newSorted(n, out)
	d.Opaque, d.Implied = n.Opaque, n.Implied
	change(d)
	return d
}

// sameMerged compares merged trees in full. Apply leaves Implied on some directories below which nothing was: it says nothing there.
func sameMerged(t *rapid.T, got, want *Node) {
	t.Helper()
	plain := func(n *Node) { n.Implied = false }
	got, want = mapDirs(t, got, plain), mapDirs(t, want, plain)
	if a, b := dump(t, got), dump(t, want); a != b {
		t.Fatalf("got\n%s\nwant\n%s", a, b)
	}
	if identity(t, got) != identity(t, want) {
		t.Fatal("another identity")
	}
	if got.IsLayer() {
		t.Fatal("a merged tree with marks")
	}
}

func apply(t *rapid.T, base *Node, layers ...*Node) *Node {
	t.Helper()
	for _, l := range layers {
		var err error
		if base, err = Apply(base, l); err != nil {
			t.Fatal(err)
		}
	}
	return base
}

func compose(t *rapid.T, layers ...*Node) *Node {
	t.Helper()
	one := layers[0]
	for _, l := range layers[1:] {
		var err error
		if one, err = Compose(one, l); err != nil {
			t.Fatal(err)
		}
	}
	return one
}

// drawBase gives what layers are laid over: nothing, something, or something that has to do with them.
func drawBase(t *rapid.T, layers ...*Node) *Node {
	switch rapid.IntRange(0, 3).Draw(t, "base") {
	case 0:
		return nil
	case 1:
		return apply(t, drawTree(t, "base", false), rapid.SampledFrom(layers).Draw(t, "related"))
	}
	return drawTree(t, "base", false)
}

func TestComposeIsApplyTwice(t *testing.T) {
	checks(t, "2500")
	rapid.Check(t, func(rt *rapid.T) {
		lower, upper := drawLayer(rt, "lower"), drawLayer(rt, "upper")
		if rapid.IntRange(0, 3).Draw(rt, "alike") == 0 { // shares directories with it
			upper = compose(rt, lower, upper)
		}
		base := drawBase(rt, lower, upper)
		before := dump(rt, lower) + dump(rt, upper)
		both := compose(rt, lower, upper)
		sameMerged(rt, apply(rt, base, both), apply(rt, base, lower, upper))
		if dump(rt, lower)+dump(rt, upper) != before {
			rt.Fatal("what is composed was written to")
		}
	})
}

func TestComposeAssociates(t *testing.T) {
	checks(t, "2000")
	rapid.Check(t, func(rt *rapid.T) {
		layers := []*Node{drawLayer(rt, "first"), drawLayer(rt, "second"), drawLayer(rt, "third")}
		base := drawBase(rt, layers...)
		want := apply(rt, base, layers...)
		sameMerged(rt, apply(rt, base, compose(rt, layers...)), want)
		sameMerged(rt, apply(rt, base, compose(rt, layers[0], compose(rt, layers[1:]...))), want)
	})
}

// TestComposeSplit: of files that one layer brings or two, the same tree comes, and so the same keys.
func TestComposeSplit(t *testing.T) {
	checks(t, "2000")
	rapid.Check(t, func(rt *rapid.T) {
		whole := drawTree(rt, "whole", false)
		lower, upper := split(rt, whole)
		both := compose(rt, lower, upper)
		if a, b := dump(rt, both), dump(rt, whole); a != b {
			rt.Fatalf("got\n%s\nwant\n%s", a, b)
		}
		if identity(rt, both) != identity(rt, whole) {
			rt.Fatal("another identity")
		}
	})
}

// split deals what is in a directory out to two layers. Some of what the upper has the lower has in another version.
func split(t *rapid.T, n *Node) (lower, upper *Node) {
	entries, err := n.Entries()
	if err != nil {
		t.Fatal(err)
	}
	var low, up []Entry
	for _, e := range entries {
		if e.Node.Kind == Dir {
			l, u := split(t, e.Node)
			low, up = append(low, Entry{e.Name, l}), append(up, Entry{e.Name, u})
			continue
		}
		switch rapid.IntRange(0, 2).Draw(t, "to") {
		case 0:
			low = append(low, e)
		case 1:
			up = append(up, e)
		default:
			low, up = append(low, Entry{e.Name, &Node{Kind: File, Meta: Meta{Mode: 0o600}}}), append(up, e)
		}
	}
	return newSorted(n, low), newSorted(n, up)
}

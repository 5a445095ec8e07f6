package tree

import (
	"testing"

	"pgregory.net/rapid"
)

func retime(t rapid.TB, root, times *Node) *Node {
	t.Helper()
	got, err := Retime(root, times)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// TestRetimeSays compares Retime with the same rule on flat lists of paths.
func TestRetimeSays(t *testing.T) {
	checks(t, "2000")
	rapid.Check(t, func(rt *rapid.T) {
		root := drawLayer(rt, "root")
		times := drawTree(rt, "times", false)
		if rapid.Bool().Draw(rt, "related") {
			times = apply(rt, root, times)
		}
		before := dump(rt, root)
		id := identity(rt, root)
		got := retime(rt, root, times)
		if dump(rt, root) != before {
			rt.Fatal("the tree was written to")
		}
		want, linked := map[string]int64{}, map[uint64]int64{}
		said := flat(t, times)
		for path, n := range flat(t, root) {
			want[path] = n.MTime
			s := said[path]
			if s == nil || s.Kind != n.Kind || s.MTime == n.MTime {
				continue
			}
			want[path] = s.MTime
			if last, ok := linked[n.Group]; n.Group != 0 && (!ok || last < s.MTime) {
				linked[n.Group] = s.MTime
			}
		}
		changed := false
		for path, n := range flat(t, root) {
			if at, ok := linked[n.Group]; ok {
				want[path] = at
			}
			changed = changed || want[path] != n.MTime
		}
		have := flat(t, got)
		for path, at := range want {
			if n := have[path]; n == nil || n.MTime != at {
				rt.Fatalf("%q: got %+v, want @%d", path, n, at)
			}
		}
		fresh := mapDirs(rt, got, func(*Node) {}) // remembers no digest
		if len(have) != len(want) || identity(rt, got) != id || identity(rt, fresh) != id {
			rt.Fatal("more than times changed")
		}
		if !changed && got != root {
			rt.Fatal("nothing changed, and it is another node")
		}
		// What got no other time, and has nothing below it that did, is the same node.
		for path, n := range flat(t, root) {
			if changedBelow(rt, n, have[path]) != (n != have[path]) {
				rt.Fatalf("%q: shared %v", path, n == have[path])
			}
		}
	})
}

func changedBelow(t rapid.TB, a, b *Node) bool {
	if a.MTime != b.MTime {
		return true
	}
	as, err := a.Entries()
	if err != nil {
		t.Fatal(err)
	}
	bs, err := b.Entries()
	if err != nil {
		t.Fatal(err)
	}
	for i := range as {
		if changedBelow(t, as[i].Node, bs[i].Node) {
			return true
		}
	}
	return false
}

func TestRetimeKeepsDigests(t *testing.T) {
	root := sketch(t, ofLower, "d!{x -y} e{z}")
	identity(t, root)
	n, err := root.Lookup("d")
	if err != nil {
		t.Fatal(err)
	}
	in, err := NewDir(Meta{}, false, []Entry{{"x", &Node{Kind: File, Meta: Meta{MTime: 7}}}, {"y", &Node{Kind: File, Meta: Meta{MTime: 8}}}})
	if err != nil {
		t.Fatal(err)
	}
	times, err := NewDir(Meta{MTime: 9}, false, []Entry{{"d", in}})
	if err != nil {
		t.Fatal(err)
	}
	got := retime(t, root, times)
	d, err := got.Lookup("d")
	if err != nil {
		t.Fatal(err)
	}
	if got.dir.digest.Load() == nil || d.dir == n.dir || d.dir.digest.Load() == nil {
		t.Error("a digest that was known is not known any more")
	}
	if x, _ := d.Lookup("x"); got.MTime != 9 || d.MTime != 0 || x.MTime != 7 || !d.Opaque || !d.IsLayer() {
		t.Errorf("got %+v, %+v, %+v", got, d, x)
	}
	if y, _ := d.Lookup("y"); y.Kind != Whiteout {
		t.Errorf("a whiteout became %+v", y)
	}
}

// TestRetimeLinks: a name that times does not have, or has with another time, goes with the others of its file.
func TestRetimeLinks(t *testing.T) {
	linked := &Node{Kind: File, Meta: Meta{MTime: 1}, Group: NewGroup()}
	root, err := NewDir(Meta{}, false, []Entry{{"a", linked}, {"b", linked}, {"d", newSorted(&Node{}, []Entry{{"c", linked}})}, {"e", &Node{Kind: File}}})
	if err != nil {
		t.Fatal(err)
	}
	at := func(mtime int64) *Node { return &Node{Kind: File, Meta: Meta{MTime: mtime}} }
	for _, times := range [][]Entry{{{"b", at(5)}}, {{"a", at(3)}, {"b", at(5)}}, {{"a", at(1)}, {"b", at(5)}}} {
		dir, err := NewDir(Meta{}, false, times)
		if err != nil {
			t.Fatal(err)
		}
		for path, n := range flat(t, retime(t, root, dir)) {
			if n.Kind == File && (n.MTime == 5) != (path != "e") {
				t.Errorf("%s: @%d", path, n.MTime)
			}
		}
	}
}

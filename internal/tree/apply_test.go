package tree

import (
	"testing"

	"pgregory.net/rapid"
)

// TestApply compares Apply with the same rules on a flat list of paths.
func TestApply(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		lower, upper := drawTree(rt, "lower", false), drawTree(rt, "upper", true)
		got, err := Apply(lower, upper)
		if err != nil {
			rt.Fatal(err)
		}
		if got.IsLayer() {
			rt.Fatal("a merged tree with whiteouts")
		}
		want := flat(t, lower)
		err = Walk(upper, func(path string, n *Node) error {
			old := want[path]
			if n.Kind == Whiteout || n.Kind != Dir || n.Opaque || old != nil && old.Kind != Dir {
				for p := range want {
					if path == "" || p == path || len(p) > len(path) && p[:len(path)+1] == path+"/" {
						delete(want, p)
					}
				}
			}
			if n.Kind != Whiteout {
				want[path] = n
			}
			return nil
		})
		if err != nil {
			rt.Fatal(err)
		}
		have := flat(t, got)
		for p, n := range want {
			if have[p] == nil || have[p].Self() != n.WithOpaque(false).Self() || have[p].MTime != n.MTime {
				rt.Fatalf("%q: want %+v, have %+v", p, n, have[p])
			}
		}
		if len(have) != len(want) {
			rt.Fatalf("%d paths, want %d", len(have), len(want))
		}
	})
}

func flat(t testing.TB, root *Node) map[string]*Node {
	out := map[string]*Node{}
	if err := Walk(root, func(path string, n *Node) error { out[path] = n; return nil }); err != nil {
		t.Fatal(err)
	}
	return out
}

func TestApplyShares(t *testing.T) {
	lib, _ := NewDir(Meta{}, false, []Entry{{"x", &Node{Kind: File}}})
	lower, _ := NewDir(Meta{}, false, []Entry{{"lib", lib}})
	upper, _ := NewDir(Meta{Mode: 0o700}, false, []Entry{{"new", &Node{Kind: File}}})
	got, err := Apply(lower, upper)
	if err != nil {
		t.Fatal(err)
	}
	if n, _ := got.Lookup("lib"); n != lib {
		t.Error("an untouched directory was copied")
	}
	if got.Mode != 0o700 {
		t.Errorf("root has mode %o, not upper's", got.Mode)
	}
}

func TestIdentity(t *testing.T) {
	dir := func(entries ...Entry) *Node {
		n, err := NewDir(Meta{Mode: 0o755}, false, entries)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	g, h := NewGroup(), NewGroup()
	linked := func(group uint64) *Node { return &Node{Kind: File, Group: group} }
	single := &Node{Kind: File}
	plain := dir(Entry{"a", single}, Entry{"b", single})
	for _, c := range []struct {
		name string
		n    *Node
		same bool
	}{
		{"mtime", dir(Entry{"a", single.WithMeta(Meta{MTime: 5})}, Entry{"b", single}), true},
		{"a group of one", dir(Entry{"a", linked(g)}, Entry{"b", single}), true},
		{"two groups of one", dir(Entry{"a", linked(g)}, Entry{"b", linked(h)}), true},
		{"hard links", dir(Entry{"a", linked(g)}, Entry{"b", linked(g)}), false},
		{"mode", dir(Entry{"a", single.WithMeta(Meta{Mode: 1})}, Entry{"b", single}), false},
		{"name", dir(Entry{"a", single}, Entry{"c", single}), false},
		{"xattr", dir(Entry{"a", single.WithMeta(Meta{Xattrs: []Xattr{{"user.a", nil}}})}, Entry{"b", single}), false},
		{"opaque", plain.WithOpaque(true), false},
	} {
		if got := identity(t, c.n) == identity(t, plain); got != c.same {
			t.Errorf("%s: same identity is %v, want %v", c.name, got, c.same)
		}
	}
	if identity(t, dir(Entry{"a", linked(g)}, Entry{"b", linked(g)})) != identity(t, dir(Entry{"a", linked(h)}, Entry{"b", linked(h)})) {
		t.Error("the number of a group enters the identity")
	}
}

func TestNewDirRefusesNames(t *testing.T) {
	for _, name := range []string{"", ".", "..", "a/b", "a\x00"} {
		if _, err := NewDir(Meta{}, false, []Entry{{name, &Node{Kind: File}}}); err == nil {
			t.Errorf("%q was taken", name)
		}
	}
	if _, err := NewDir(Meta{}, false, []Entry{{"a", &Node{Kind: File}}, {"a", &Node{Kind: File}}}); err == nil {
		t.Error("a name twice was taken")
	}
}

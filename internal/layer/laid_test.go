package layer

import (
	"context"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"larder/internal/tree"
)

// drawOver gives some of a merged tree with other times, as MountOptions.Over holds it; nil for nothing.
func drawOver(t *rapid.T, merged *tree.Node) *tree.Node {
	linked := map[uint64]int64{} // the time of files with several names that are in it; 0 for those that are not
	var node func(n *tree.Node) *tree.Node
	node = func(n *tree.Node) *tree.Node {
		at := func() int64 { return rapid.SampledFrom([]int64{0, 0, 0, 20, 30}).Draw(t, "time") }
		meta := n.Meta
		if n.Kind != tree.Dir {
			time, known := linked[n.Group]
			if !known || n.Group == 0 {
				time = at()
				linked[n.Group] = time
			}
			meta.MTime = time
			if time == 0 || n.Kind != tree.File && n.Kind != tree.Symlink {
				return nil
			}
			return n.WithMeta(meta)
		}
		entries, err := n.Entries()
		if err != nil {
			t.Fatal(err)
		}
		var out []tree.Entry
		for _, e := range entries {
			if c := node(e.Node); c != nil {
				out = append(out, tree.Entry{Name: e.Name, Node: c})
			}
		}
		if time := at(); time != 0 {
			meta.MTime = time
		}
		if len(out) == 0 && meta.MTime == n.MTime {
			return nil
		}
		d, err := tree.NewDir(meta, false, out)
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	return node(merged)
}

// paths lists a tree by path.
func paths(t rapid.TB, root *tree.Node) map[string]*tree.Node {
	t.Helper()
	out := map[string]*tree.Node{}
	if root == nil {
		return out
	}
	if err := tree.Walk(root, func(path string, n *tree.Node) error { out[path] = n; return nil }); err != nil {
		t.Fatal(err)
	}
	return out
}

// TestLaidShowsOver: groups with what is laid over each of them show the times of over, and nothing else changes.
func TestLaidShowsOver(t *testing.T) {
	checks(t, "2500")
	ctx := context.Background()
	rapid.Check(t, func(rt *rapid.T) {
		s := drawState(rt, false)
		merged, err := s.Merged(ctx)
		if err != nil {
			rt.Fatal(err)
		}
		over := drawOver(rt, merged)
		groups, err := s.Groups(ctx)
		if err != nil {
			rt.Fatal(err)
		}
		laid, err := s.Laid(ctx, over)
		if err != nil || len(laid) != len(groups) {
			rt.Fatalf("%d trees for %d groups, %v", len(laid), len(groups), err)
		}
		var trees []*tree.Node
		times, tops, laidOver := paths(rt, over), map[string]int{}, map[string][]int{}
		for i, g := range groups {
			for path, n := range paths(rt, composed(rt, g)) {
				if n.Kind != tree.Dir {
					tops[path] = i
				}
			}
			if g.Observed {
				checkRetimed(rt, g.Root, laid[i], over)
				trees = append(trees, laid[i])
				continue
			}
			trees = append(trees, treesOf(rt, g.Layers)...)
			if laid[i] != nil {
				trees = append(trees, laid[i])
			}
			for path, n := range paths(rt, laid[i]) {
				if o := times[path]; o == nil || o.Self() != n.Self() || o.MTime != n.MTime {
					rt.Fatalf("%q is %+v, over has %+v", path, n, o)
				}
				if n.Kind != tree.Dir {
					laidOver[path] = append(laidOver[path], i)
				}
			}
		}
		if len(groups) == 0 {
			return
		}
		got := applied(rt, trees...)
		shown := paths(rt, got)
		for path, n := range paths(rt, merged) {
			want := n.MTime
			if o := times[path]; o != nil {
				want = o.MTime
			}
			if shown[path] == nil || shown[path].MTime != want {
				rt.Fatalf("%q: shown %+v, want @%d", path, shown[path], want)
			}
		}
		for path, over := range laidOver {
			if !slices.Equal(over, []int{tops[path]}) {
				rt.Fatalf("%q is laid over groups %d, seen of %d", path, over, tops[path])
			}
		}
		if got, want := describe(t, got, false), describe(t, merged, false); got != want {
			rt.Fatalf("got\n%s\nwant\n%s", got, want)
		}
	})
}

// composed is a group as one layer tree. What is seen of a path that is no directory is seen of the topmost group with one there.
func composed(t *rapid.T, g Group) *tree.Node {
	t.Helper()
	trees := treesOf(t, g.Layers)
	root := trees[0]
	for _, n := range trees[1:] {
		var err error
		if root, err = tree.Compose(root, n); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

// checkRetimed finds nothing but times changed, and those to over's.
func checkRetimed(t *rapid.T, root, got, over *tree.Node) {
	t.Helper()
	if over == nil && got != root {
		t.Fatal("nothing is laid over it, and it is another tree")
	}
	a, err := root.Identity()
	if err != nil {
		t.Fatal(err)
	}
	b, err := got.Identity()
	if err != nil {
		t.Fatal(err)
	}
	if a != b {
		t.Fatal("more than times changed")
	}
	times, had, linked := paths(t, over), paths(t, root), map[uint64]bool{}
	for path, n := range paths(t, got) {
		if o := times[path]; n.MTime != had[path].MTime && o != nil && o.MTime == n.MTime {
			linked[n.Group] = true
		}
	}
	for path, n := range paths(t, got) {
		if n.MTime == had[path].MTime || n.Group != 0 && linked[n.Group] {
			continue
		}
		if o := times[path]; o == nil || o.MTime != n.MTime {
			t.Fatalf("%q got @%d, over has %+v", path, n.MTime, o)
		}
	}
}

func TestLaid(t *testing.T) {
	base := observedTree(t, true, "etc/passwd=p", "app/x=0")
	src := observedTree(t, false, "app/a=1", "app/b=1")
	run := observedTree(t, true, "app/b=2", "app/out/o=1")
	gone := observedTree(t, true, "app/-a")
	implied := observedTree(t, true, "app/c=1")
	entries, err := implied.root.Entries()
	if err != nil {
		t.Fatal(err)
	}
	entries[0].Node.Implied = true // nobody else has it yet
	for _, c := range []struct {
		name   string
		layers []*Layer
		over   []string // "path=content"; all get the time 7, directories too
		want   []string // of each group, what has that time
	}{
		{"one group", []*Layer{base}, []string{"app/x=0"}, []string{" app app/x"}},
		{"nothing of it", []*Layer{src, run}, []string{"app/out/o=1"}, []string{"", " app app/out app/out/o"}},
		{"the lower one", []*Layer{base, src, run}, []string{"app/a=1", "app/x=0"}, []string{" app app/x", " app app/a", " app"}},
		{"what both have", []*Layer{base, src, run}, []string{"app/b=2"}, []string{"", "", " app app/b"}},
		{"observed on top", []*Layer{base, run, src}, []string{"app/b=1"}, []string{"", " app app/b"}},
		{"a directory on top that is only implied", []*Layer{base, src, implied}, []string{"app/"}, []string{"", " app", ""}},
		{"implied, with a file", []*Layer{base, src, implied}, []string{"app/c=1"}, []string{"", " app", " app app/c"}},
		{"what is gone", []*Layer{base, src, gone}, []string{"app/a=1"}, nil},
		{"of another kind", []*Layer{base, src}, []string{"app=1"}, nil},
		{"a directory that is a file", []*Layer{base, src}, []string{"app/a/z=1"}, nil},
		{"what nobody has", []*Layer{base, src}, []string{"etc/none=1"}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			laid, err := Stack(c.layers...).Laid(t.Context(), datedAll(t, observedTree(t, false, c.over...).root))
			if err != nil {
				if c.want != nil || !strings.Contains(err.Error(), "/"+strings.Split(c.over[0], "=")[0]) && c.name != "a directory that is a file" {
					t.Fatal(err)
				}
				return
			}
			var got []string
			for _, n := range laid {
				var has []string
				for path, n := range paths(t, n) {
					if n.MTime == 7 {
						has = append(has, path)
					}
				}
				slices.Sort(has)
				got = append(got, strings.Join(has, " "))
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
	var none *State
	if laid, err := none.Laid(t.Context(), nil); len(laid) != 0 || err != nil {
		t.Error(laid, err)
	}
}

// datedAll gives everything in a tree the time 7.
func datedAll(t *testing.T, n *tree.Node) *tree.Node {
	t.Helper()
	meta := n.Meta
	meta.MTime = 7
	if n.Kind != tree.Dir {
		return n.WithMeta(meta)
	}
	entries, err := n.Entries()
	if err != nil {
		t.Fatal(err)
	}
	var out []tree.Entry
	for _, e := range entries {
		out = append(out, tree.Entry{Name: e.Name, Node: datedAll(t, e.Node)})
	}
	d, err := tree.NewDir(meta, false, out)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

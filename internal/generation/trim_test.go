package generation

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"larder/internal/key"
	"larder/internal/layout"
	"larder/internal/tree"
)

func size(t rapid.TB, g *Generation) int64 {
	total := int64(0)
	for _, n := range byPath(t, g) {
		total += n.Size
	}
	return total
}

func TestTrim(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		w := &world{t: rt}
		g := w.generation(nil)
		lim := Limits{Builds: rapid.SampledFrom([]int{0, 1, 7}).Draw(rt, "builds"), Size: rapid.SampledFrom([]int64{0, 1, 600, 1 << 21}).Draw(rt, "size")}
		next, dropped, err := Trim(g, layout.Layout{}, lim)
		if err != nil {
			rt.Fatal(err)
		}
		if len(dropped) == 0 && next != g {
			rt.Fatal("nothing was dropped and it is another")
		}
		was, is := byPath(rt, g), byPath(rt, next)
		checkDropped(rt, g, next, dropped)
		longest := 0
		for p, n := range is {
			if n != was[p] {
				rt.Fatalf("%q is another", p)
			}
			if lim.Builds > 0 && g.Idle[p] >= lim.Builds {
				rt.Fatalf("%q stayed", p)
			}
			longest = max(longest, g.Idle[p])
		}
		before, after := size(rt, g), size(rt, next)
		if lim.Size > 0 && after > lim.Size {
			rt.Fatalf("%d bytes are left of %d", after, before)
		}
		for _, p := range dropped {
			if was[p] == nil || lim.Builds > 0 && g.Idle[p] >= lim.Builds {
				continue
			}
			if lim.Size == 0 || before <= lim.Size || g.Idle[p] < longest {
				rt.Fatalf("%q went, idle %d, where others of %d stayed", p, g.Idle[p], longest)
			}
		}
		if got := readAll(t, full(t, g), delta(t, g, next)); dump(t, got) != dump(t, next) {
			rt.Fatal("what is left cannot be written")
		}
	})
}

// checkDropped holds the list to what it is for: removing one after the other leaves next.
func checkDropped(rt *rapid.T, g, next *Generation, dropped []string) {
	paths := func(root *tree.Node) map[string]bool {
		out := map[string]bool{}
		err := tree.Walk(root, func(path string, _ *tree.Node) error {
			out[path] = true
			return nil
		})
		if err != nil {
			rt.Fatal(err)
		}
		return out
	}
	left := paths(g.Tree)
	for _, p := range dropped {
		for other := range left {
			if strings.HasPrefix(other, p+"/") {
				rt.Fatalf("%q is to go before %q", p, other)
			}
		}
		if !left[p] {
			rt.Fatalf("%q is to go twice, or was not there", p)
		}
		delete(left, p)
	}
	is := paths(next.Tree)
	if len(is) != len(left) {
		rt.Fatalf("%d paths are left, want %d", len(left), len(is))
	}
	for p := range is {
		if !left[p] {
			rt.Fatalf("%q is still there", p)
		}
	}
}

// mount makes a generation of files of 10 bytes; a path that ends with a slash is an empty directory.
func mount(t testing.TB, idle map[string]int) *Generation {
	root := tree.Empty()
	g := &Generation{Idle: map[string]int{}}
	for p, count := range idle {
		n := &tree.Node{Kind: tree.File, Size: 10, Content: key.Bytes([]byte(p))}
		if strings.HasSuffix(p, "/") {
			n = tree.Empty()
		} else {
			g.Idle[p] = count
		}
		for _, name := range slices.Backward(strings.Split(strings.Trim(p, "/"), "/")) {
			d, err := tree.NewDir(tree.Meta{Mode: 0o755}, false, []tree.Entry{{Name: name, Node: n}})
			if err != nil {
				t.Fatal(err)
			}
			n = d
		}
		var err error
		if root, err = tree.Apply(root, n); err != nil {
			t.Fatal(err)
		}
	}
	g.Tree = root
	dropUnnamed(t, g)
	packed(t, g, "p")
	return g
}

func TestTrimKeepsModulesWhole(t *testing.T) {
	g := mount(t, map[string]int{
		"cache/lock":                             9,
		"cache/download/a.org/old/@v/v1.0.0.zip": 4, "cache/download/a.org/old/@v/v1.0.0.mod": 5, "a.org/old@v1.0.0/x.go": 6, "a.org/old@v1.0.0/empty/": 0,
		"cache/download/a.org/used/@v/v1.0.0.zip": 9, "a.org/used@v1.0.0/unread.go": 9, "a.org/used@v1.0.0/read.go": 0,
		"cache/download/a.org/graph/@v/v1.0.0.mod": 1,
	})
	l := layout.Detect("", "/go/pkg/mod", g.Tree)
	if !l.United() {
		t.Fatal("not recognised")
	}
	next, dropped, err := Trim(g, l, Limits{Builds: 4})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"a.org/old@v1.0.0/empty", "a.org/old@v1.0.0/x.go", "a.org/old@v1.0.0", "cache/download/a.org/old/@v/v1.0.0.mod",
		"cache/download/a.org/old/@v/v1.0.0.zip", "cache/download/a.org/old/@v", "cache/download/a.org/old"}
	if !slices.Equal(dropped, want) {
		t.Errorf("dropped %q", dropped)
	}
	// A cap that only what was used last fits under.
	if _, dropped, err = Trim(next, l, Limits{Size: 40}); err != nil || !slices.Equal(dropped, []string{"cache/download/a.org/graph/@v/v1.0.0.mod",
		"cache/download/a.org/graph/@v", "cache/download/a.org/graph"}) {
		t.Errorf("dropped %q, %v", dropped, err)
	}
	// One that it does not fit under either: what is never trimmed stays.
	if next, _, err = Trim(next, l, Limits{Size: 1}); err != nil || len(leaves(t, next.Tree)) != 1 {
		t.Errorf("left %q, %v", leaves(t, next.Tree), err)
	}
}

// TestTrimLeadersFirst: an index goes before the contents that it names, as npm fails where it finds only the first.
func TestTrimLeadersFirst(t *testing.T) {
	index, content := "_cacache/index-v5/00/11/22", "_cacache/content-v2/sha512/00/11/22"
	g := mount(t, map[string]int{index: 2, content: 2, "_cacache/content-v2/sha512/00/11/33": 1})
	l := layout.Detect("", "/root/.npm", g.Tree)
	next, _, err := Trim(g, l, Limits{Size: 20})
	if err != nil {
		t.Fatal(err)
	}
	if left := leaves(t, next.Tree); slices.Contains(left, index) || !slices.Contains(left, content) {
		t.Errorf("left %q", left)
	}
}

// TestFiftyBuilds lets a mount live through 50 builds that each use the same files, some of the others, and add some.
func TestFiftyBuilds(t *testing.T) {
	const most = 6_000_000
	r := rand.New(rand.NewPCG(5, 6))
	g := sample(t, 60)
	core := leaves(t, g.Tree)
	coreSize := size(t, g)
	row := [][]byte{full(t, g)}
	largest := int64(0)
	for build := range 50 {
		add := map[string]*tree.Node{}
		for i := range 10 {
			d := key.Bytes(fmt.Append(nil, build, i))
			add[d.Hex()[:2]+"/"+d.Hex()+"-a"] = &tree.Node{Kind: tree.File, Size: r.Int64N(100_000), Content: d}
		}
		next := added(t, g, add)
		used := map[string]bool{}
		for _, p := range core {
			used[p] = true
		}
		for p := range byPath(t, g) {
			used[p] = used[p] || r.IntN(20) == 0
		}
		next.Idle = counted(t, g, next.Tree, used)
		largest = max(largest, size(t, next))
		var err error
		if next, _, err = Trim(next, layout.Layout{}, Limits{Builds: 20, Size: most}); err != nil {
			t.Fatal(err)
		}
		row = append(row, delta(t, g, next))
		g = next
		if got := size(t, g); got > most {
			t.Fatalf("build %d leaves %d bytes", build, got)
		}
		is := byPath(t, g)
		for _, p := range core {
			if is[p] == nil {
				t.Fatalf("build %d: %s, which every build uses, is gone", build, p)
			}
		}
		for p := range add {
			if is[p] == nil {
				t.Fatalf("build %d: %s, which is new, is gone", build, p)
			}
		}
		for p, count := range g.Idle {
			if count >= 20 {
				t.Fatalf("%s is there after %d builds", p, count)
			}
		}
	}
	if largest <= most || coreSize >= most {
		t.Fatalf("nothing had to go: %d bytes at most, %d used by all", largest, coreSize)
	}
	if got := readAll(t, row...); dump(t, got) != dump(t, g) {
		t.Error("what is read is another")
	}
}

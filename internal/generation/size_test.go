package generation

import (
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"larder/internal/key"
	"larder/internal/pack"
	"larder/internal/tree"
)

// sample makes what looks like go's build cache: n files of random names in 256 directories, packed in the order of their paths. Of
// two samples the larger one has all files of the smaller.
func sample(t testing.TB, n int) *Generation {
	r := rand.New(rand.NewPCG(1, 2))
	files := map[string][]tree.Entry{}
	start := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC).UnixNano()
	for i := range n {
		d := key.Bytes(fmt.Append(nil, r.Uint64()))
		name := hex.EncodeToString(d[:]) + "-d"
		node := &tree.Node{Kind: tree.File, Meta: tree.Meta{Mode: 0o644, MTime: start + r.Int64N(20e9)}, Size: 1 + r.Int64N(100_000),
			Content: key.Bytes([]byte(name))}
		if i%7 == 0 {
			node.Size, node.Content = 0, key.Bytes(nil)
		}
		files[name[:2]] = append(files[name[:2]], tree.Entry{Name: name, Node: node})
	}
	var dirs []tree.Entry
	for name, list := range files {
		d, err := tree.NewDir(tree.Meta{Mode: 0o755, MTime: start}, false, list)
		if err != nil {
			t.Fatal(err)
		}
		dirs = append(dirs, tree.Entry{Name: name, Node: d})
	}
	root, err := tree.NewDir(tree.Meta{Mode: 0o755, MTime: start}, false, dirs)
	if err != nil {
		t.Fatal(err)
	}
	g := &Generation{Tree: root, Pieces: map[key.Digest][]pack.Piece{}, Idle: map[string]int{}}
	packed(t, g, "first")
	return g
}

// packed puts contents that have no place yet into a pack: frames of 256 KiB, in the order of Walk.
func packed(t testing.TB, g *Generation, name string) {
	list, err := contentsOf(g.Tree)
	if err != nil {
		t.Fatal(err)
	}
	var open []content
	at, raw := int64(0), int64(0)
	flush := func() {
		f := pack.Frame{Offset: at, Length: raw/3 + 17, Raw: raw}
		off := int64(0)
		for _, c := range open {
			g.Pieces[c.digest] = []pack.Piece{{Digest: c.digest, Size: c.size, Pack: key.Bytes([]byte(name)), Frame: f, Offset: off}}
			off += c.size
		}
		at, raw, open = at+f.Length, 0, nil
	}
	for _, c := range list {
		if g.Pieces[c.digest] != nil {
			continue
		}
		open = append(open, c)
		if raw += c.size; raw > 256<<10 {
			flush()
		}
	}
	if len(open) > 0 {
		flush()
	}
}

// added gives g with nodes at paths of two names.
func added(t testing.TB, g *Generation, with map[string]*tree.Node) *Generation {
	next := *g
	for path, n := range with {
		dir, name := path[:2], path[3:]
		meta := tree.Meta{Mode: 0o755}
		if d, err := g.Tree.Lookup(dir); err != nil {
			t.Fatal(err)
		} else if d != nil {
			meta = d.Meta
		}
		sub, err := tree.NewDir(meta, false, []tree.Entry{{Name: name, Node: n}})
		if err != nil {
			t.Fatal(err)
		}
		root, err := tree.NewDir(g.Tree.Meta, false, []tree.Entry{{Name: dir, Node: sub}})
		if err != nil {
			t.Fatal(err)
		}
		if next.Tree, err = tree.Apply(next.Tree, root); err != nil {
			t.Fatal(err)
		}
	}
	dropUnnamed(t, &next)
	packed(t, &next, fmt.Sprint(len(with), len(g.Idle)))
	return &next
}

// TestSizes holds segments to what they may cost: what a change of one file moves is to be of the size of that change.
func TestSizes(t *testing.T) {
	const n = 5000
	g := sample(t, n)
	paths := leaves(t, g.Tree)
	start := time.Now()
	first := full(t, g)
	t.Logf("full: %.1f bytes per file, %d in all, written in %s", float64(len(first))/n, len(first), time.Since(start).Round(time.Millisecond))
	if len(first) > 100*n {
		t.Errorf("a full segment of %d files has %d bytes", n, len(first))
	}

	one := &tree.Node{Kind: tree.File, Meta: tree.Meta{Mode: 0o644, MTime: 5}, Size: 77, Content: key.Bytes([]byte("new"))}
	r := rand.New(rand.NewPCG(3, 4))
	for _, p := range paths { // some are not used, and stay so
		if r.IntN(10) == 0 {
			g.Idle[p] = 1 + r.IntN(5)
		}
	}
	first = full(t, g)
	next := added(t, g, map[string]*tree.Node{paths[17]: one})
	next.Idle = map[string]int{}
	for p, c := range g.Idle {
		next.Idle[p] = c + 1
	}
	second := delta(t, g, next)
	t.Logf("one file changed: %d bytes", len(second))
	if len(second) > 1500 {
		t.Errorf("a change of one file takes %d bytes", len(second))
	}
	if got := readAll(t, first, second); dump(t, got) != dump(t, next) {
		t.Error("another one was read")
	}

	var list []touch
	for i := range n {
		if r.IntN(10) > 0 {
			list = append(list, touch{i, time.Date(2026, 1, 2, 7, 0, 0, 0, time.UTC).UnixNano() + r.Int64N(10e9)})
		}
	}
	touched := *g
	var err error
	if touched.Tree, err = retimed(g.Tree, list); err != nil {
		t.Fatal(err)
	}
	third := delta(t, g, &touched)
	t.Logf("touched: %.1f bytes per file of %d", float64(len(third))/float64(len(list)), len(list))
	if len(third) > 8*len(list) {
		t.Errorf("%d touched files take %d bytes", len(list), len(third))
	}
	if got := readAll(t, first, third); dump(t, got) != dump(t, &touched) {
		t.Error("another one was read")
	}
}

// TestSoakLongRow reads a long row of segments of a large mount, and says how long that takes.
func TestSoakLongRow(t *testing.T) {
	files, segments := 3000, 8
	if soak {
		files, segments = 30_000, 64
	}
	g := sample(t, files)
	paths := leaves(t, g.Tree)
	row := [][]byte{full(t, g)}
	for i := range segments {
		n := &tree.Node{Kind: tree.File, Size: 5, Content: key.Bytes(fmt.Append(nil, i))}
		next := added(t, g, map[string]*tree.Node{paths[i*31]: n})
		next.Idle = map[string]int{paths[i]: 3}
		start := time.Now()
		row = append(row, delta(t, g, next))
		if i == 0 {
			t.Logf("a delta of %d files is written in %s", files, time.Since(start))
		}
		g = next
	}
	for _, k := range []int{1, len(row)} {
		start := time.Now()
		readAll(t, row[:k]...)
		t.Logf("%d segments of %d files are read in %s", k, files, time.Since(start))
	}
	if got := readAll(t, row...); dump(t, got) != dump(t, g) {
		t.Error("another one was read")
	}
}

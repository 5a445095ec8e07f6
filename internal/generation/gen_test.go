package generation

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"larder/internal/key"
	"larder/internal/pack"
	"larder/internal/tree"
)

// world draws generations out of few names and contents, so that they have much in common.
type world struct {
	t      *rapid.T
	linked []*tree.Node
}

func (w *world) meta() tree.Meta {
	m := tree.Meta{
		Mode:  rapid.SampledFrom([]uint32{0o755, 0o644, 0o1777, 0o4555}).Draw(w.t, "mode"),
		UID:   rapid.SampledFrom([]uint32{0, 1000, 1 << 31}).Draw(w.t, "uid"),
		MTime: rapid.SampledFrom([]int64{-1, 0, 1, 1700000000123456789, 1700000000123456790, 1 << 62}).Draw(w.t, "mtime"),
	}
	if rapid.IntRange(0, 4).Draw(w.t, "xattr") == 0 {
		m.Xattrs = []tree.Xattr{{Name: "security.capability", Value: []byte{1, 2}}, {Name: "user.x", Value: []byte("y")}}
	}
	return m
}

func (w *world) file() *tree.Node {
	c := drawContent(w.t)
	return &tree.Node{Kind: tree.File, Meta: w.meta(), Size: c.size, Content: c.digest}
}

func drawContent(t *rapid.T) content {
	size := rapid.SampledFrom([]int64{0, 1, 2, 500, 1 << 20}).Draw(t, "size")
	return content{key.Bytes(fmt.Append(nil, "content", size)), size}
}

var names = []string{"a", "a.b", "b", "caché", "new\nline", "\xff\xfe", "-f", " "}

func (w *world) dir(depth int) *tree.Node {
	var entries []tree.Entry
	for _, name := range names {
		if n := w.node(depth); n != nil {
			entries = append(entries, tree.Entry{Name: name, Node: n})
		}
	}
	d, err := tree.NewDir(w.meta(), false, entries)
	if err != nil {
		w.t.Fatal(err)
	}
	return d
}

func (w *world) node(depth int) *tree.Node {
	switch rapid.IntRange(0, 9).Draw(w.t, "kind") {
	case 0, 1:
		if depth > 0 {
			return w.dir(depth - 1)
		}
	case 2, 3, 4:
		return w.file()
	case 5:
		if len(w.linked) > 0 {
			return rapid.SampledFrom(w.linked).Draw(w.t, "link")
		}
	case 6:
		return &tree.Node{Kind: tree.Symlink, Meta: tree.Meta{Mode: 0o777}, Link: rapid.SampledFrom([]string{"a", "../b"}).Draw(w.t, "target")}
	case 7:
		return &tree.Node{Kind: rapid.SampledFrom([]tree.Kind{tree.Fifo, tree.Socket, tree.Char}).Draw(w.t, "special"), Meta: w.meta()}
	}
	return nil
}

func (w *world) tree() *tree.Node {
	w.linked = nil
	for range rapid.IntRange(0, 2).Draw(w.t, "groups") {
		n := w.file()
		n.Group = tree.NewGroup()
		w.linked = append(w.linked, n)
	}
	return w.dir(rapid.IntRange(0, 2).Draw(w.t, "depth"))
}

// generation draws one, which has parts of an earlier one where there is one.
func (w *world) generation(from *Generation) *Generation {
	g := &Generation{Tree: w.tree(), Pieces: map[key.Digest][]pack.Piece{}, Idle: map[string]int{}}
	how := 0
	if from != nil {
		how = rapid.IntRange(0, 3).Draw(w.t, "how")
	}
	var err error
	switch how {
	case 1:
		g.Tree, err = tree.Apply(from.Tree, g.Tree)
	case 2:
		g.Tree = from.Tree
	case 3:
		var list []touch
		for i := range leaves(w.t, from.Tree) {
			if rapid.Bool().Draw(w.t, "touched") {
				list = append(list, touch{i, rapid.Int64().Draw(w.t, "mtime")})
			}
		}
		g.Tree, err = retimed(from.Tree, list)
	}
	if err != nil {
		w.t.Fatal(err)
	}
	if from != nil && rapid.Bool().Draw(w.t, "same packs") {
		maps.Copy(g.Pieces, from.Pieces)
	}
	addPieces(w.t, g)
	for _, p := range leaves(w.t, g.Tree) {
		g.Idle[p] = rapid.SampledFrom([]int{0, 0, 1, 7, maxIdle}).Draw(w.t, "idle")
		if from != nil && rapid.Bool().Draw(w.t, "one more") {
			g.Idle[p] = min(from.Idle[p]+1, maxIdle)
		}
	}
	switch rapid.IntRange(0, 2).Draw(w.t, "ledger") {
	case 1:
		g.Ledger = w.tree()
	case 2:
		if from != nil {
			g.Ledger = from.Ledger
		}
	}
	return g
}

// addPieces puts each content somewhere that has no place yet.
func addPieces(t rapid.TB, g *Generation) {
	list, err := contentsOf(g.Tree)
	if err != nil {
		t.Fatal(err)
	}
	for i, c := range list {
		if g.Pieces[c.digest] != nil {
			continue
		}
		p := pack.Piece{Digest: c.digest, Size: c.size, Pack: key.Bytes([]byte{byte(len(g.Idle)), byte(i % 2)}),
			Frame: pack.Frame{Offset: int64(i/4) * 1000, Length: 1000, Raw: 1 << 21}, Offset: int64(i % 4)}
		g.Pieces[c.digest] = []pack.Piece{p}
		if c.size > 400 {
			head, tail := p, p
			head.Size, head.Digest = 400, key.Bytes([]byte("head"))
			tail.Size, tail.Digest, tail.Offset = c.size-400, key.Bytes(fmt.Append(nil, "tail", c.size)), p.Offset+400
			tail.Frame.Offset += 1 << 40
			g.Pieces[c.digest] = []pack.Piece{head, tail}
		}
	}
	dropUnnamed(t, g)
}

// dropUnnamed leaves only pieces of files that are there.
func dropUnnamed(t rapid.TB, g *Generation) {
	list, err := contentsOf(g.Tree)
	if err != nil {
		t.Fatal(err)
	}
	pieces := map[key.Digest][]pack.Piece{}
	for _, c := range list {
		pieces[c.digest] = g.Pieces[c.digest]
	}
	g.Pieces = pieces
}

func leaves(t rapid.TB, root *tree.Node) []string {
	var out []string
	err := pair(root, nil, func(path []byte, _, _ *tree.Node) error {
		out = append(out, string(path))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// dump writes out all that a generation says.
func dump(t testing.TB, g *Generation) string {
	var out strings.Builder
	dumpTree(t, &out, g.Tree)
	for _, p := range slices.Sorted(maps.Keys(g.Idle)) {
		if g.Idle[p] != 0 {
			fmt.Fprintf(&out, "%q idle %d\n", p, g.Idle[p])
		}
	}
	if g.Ledger != nil {
		out.WriteString("ledger\n")
		dumpTree(t, &out, g.Ledger)
	}
	for _, d := range slices.SortedFunc(maps.Keys(g.Pieces), func(a, b key.Digest) int { return slices.Compare(a[:], b[:]) }) {
		fmt.Fprintf(&out, "%x %v\n", d[:4], g.Pieces[d])
	}
	return out.String()
}

func dumpTree(t testing.TB, out *strings.Builder, root *tree.Node) {
	err := tree.Walk(root, func(path string, n *tree.Node) error {
		fmt.Fprintf(out, "%q %s %o %d @%d %v %d %x %q %v\n", path, n.Kind, n.Mode, n.UID, n.MTime, n.Xattrs, n.Size, n.Content[:4], n.Link, n.Opaque)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	links, err := root.Links()
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintln(out, links)
}

func full(t testing.TB, g *Generation) []byte {
	b, err := Full(g)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func delta(t testing.TB, from, to *Generation) []byte {
	b, err := Delta(from, to)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func readAll(t testing.TB, segments ...[]byte) *Generation {
	g, err := Read(segments)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// counted gives the counts after a build that read or wrote some files.
func counted(t rapid.TB, from *Generation, next *tree.Node, used map[string]bool) map[string]int {
	out := map[string]int{}
	err := pair(from.Tree, next, func(path []byte, before, now *tree.Node) error {
		if p := string(path); before != nil && now != nil && !used[p] {
			out[p] = min(from.Idle[p]+1, maxIdle)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

package tree

import (
	"fmt"

	"pgregory.net/rapid"

	"larder/internal/key"
)

// drawTree makes a small random tree out of few names, so that two of them collide often. Files with one Group are the
// same file, as hard links are.
func drawTree(t *rapid.T, label string, layer bool) *Node {
	g := &treeGen{t: t, layer: layer}
	for range rapid.IntRange(0, 2).Draw(t, label+"-groups") {
		n := g.file()
		n.Group = NewGroup()
		g.linked = append(g.linked, n)
	}
	return g.dir(rapid.IntRange(0, 3).Draw(t, label+"-depth"))
}

type treeGen struct {
	t      *rapid.T
	layer  bool
	linked []*Node
}

func (g *treeGen) meta() Meta {
	m := Meta{
		Mode:  rapid.SampledFrom([]uint32{0o755, 0o644, 0o1777, 0o4755}).Draw(g.t, "mode"),
		UID:   rapid.SampledFrom([]uint32{0, 1000, 1 << 31}).Draw(g.t, "uid"),
		GID:   rapid.SampledFrom([]uint32{0, 1000}).Draw(g.t, "gid"),
		MTime: rapid.Int64Range(-5, 5).Draw(g.t, "mtime"),
	}
	if rapid.IntRange(0, 4).Draw(g.t, "xattr") == 0 {
		m.Xattrs = []Xattr{{"security.capability", []byte{1, 2}}, {"user.x", []byte("y")}}
	}
	return m
}

func (g *treeGen) file() *Node {
	size := rapid.Int64Range(0, 2).Draw(g.t, "size")
	return &Node{Kind: File, Meta: g.meta(), Size: size, Content: key.Bytes(fmt.Append(nil, size))}
}

func (g *treeGen) dir(depth int) *Node {
	var entries []Entry
	for _, name := range []string{"a", "a.b", "b", "c"} {
		if n := g.node(depth); n != nil {
			entries = append(entries, Entry{name, n})
		}
	}
	opaque := g.layer && rapid.IntRange(0, 5).Draw(g.t, "opaque") == 0
	d, err := NewDir(g.meta(), opaque, entries)
	if err != nil {
		g.t.Fatal(err)
	}
	return d
}

func (g *treeGen) node(depth int) *Node {
	switch k := rapid.IntRange(0, 9).Draw(g.t, "kind"); k {
	case 0, 1, 2:
		if depth > 0 {
			return g.dir(depth - 1)
		}
	case 3, 4:
		return g.file()
	case 5:
		if len(g.linked) > 0 {
			return rapid.SampledFrom(g.linked).Draw(g.t, "link")
		}
	case 6:
		return &Node{Kind: Symlink, Meta: Meta{Mode: 0o777}, Link: rapid.SampledFrom([]string{"a", "../b", "/c"}).Draw(g.t, "target")}
	case 7:
		return &Node{Kind: rapid.SampledFrom([]Kind{Char, Block}).Draw(g.t, "device"), Meta: g.meta(), Rdev: 0x103}
	case 8:
		if g.layer {
			return &Node{Kind: Whiteout}
		}
		return &Node{Kind: rapid.SampledFrom([]Kind{Fifo, Socket}).Draw(g.t, "special"), Meta: g.meta()}
	}
	return nil
}

// dump writes a tree out in full, mtimes and links included: what two equal trees have in common.
func dump(t rapid.TB, root *Node) string {
	t.Helper()
	out := ""
	err := Walk(root, func(path string, n *Node) error {
		if n.Kind == Whiteout {
			out += fmt.Sprintf("%s gone\n", path)
			return nil
		}
		out += fmt.Sprintf("%s %d %o %d:%d @%d %v %d %s %q %x %v\n", path, n.Kind, n.Mode, n.UID, n.GID, n.MTime, n.Xattrs,
			n.Size, n.Content.Hex()[:4], n.Link, n.Rdev, n.Opaque)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	links, err := root.Links()
	if err != nil {
		t.Fatal(err)
	}
	return out + fmt.Sprint(links)
}

func identity(t rapid.TB, n *Node) key.Digest {
	t.Helper()
	d, err := n.Identity()
	if err != nil {
		t.Fatal(err)
	}
	return d
}

package snapshot

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"larder/internal/key"
	"larder/internal/layer"
	"larder/internal/tree"
)

// layerGen draws layer trees of everything that a layer which larder makes can hold.
type layerGen struct {
	t      *rapid.T
	bodies map[key.Digest][]byte
	linked []*tree.Node
}

// drawLayer makes a random layer whose contents are in memory. A plain root is one without metadata of its own, which a tar
// does not carry.
func drawLayer(t *rapid.T, plainRoot bool) *layer.Layer {
	g := &layerGen{t: t, bodies: map[key.Digest][]byte{}}
	for range rapid.IntRange(0, 3).Draw(t, "groups") {
		n := g.leaf(rapid.SampledFrom([]tree.Kind{tree.File, tree.File, tree.Symlink, tree.Char, tree.Fifo}).Draw(t, "linked"))
		n.Group = tree.NewGroup()
		g.linked = append(g.linked, n)
	}
	root := g.dir(rapid.IntRange(0, 2).Draw(t, "depth"))
	if plainRoot {
		root = root.WithMeta(tree.Meta{Mode: 0o755, MTime: root.MTime})
	}
	root.Implied = false
	id, err := root.Identity()
	if err != nil {
		t.Fatal(err)
	}
	return layer.New(id, rapid.Bool().Draw(t, "pinned"), root, layer.Literal(g.bodies))
}

func (g *layerGen) meta(kind tree.Kind) tree.Meta {
	m := tree.Meta{
		Mode:  rapid.SampledFrom([]uint32{0o755, 0o644, 0, 0o1777, 0o4755, 0o2711, 0o7777}).Draw(g.t, "mode"),
		UID:   rapid.SampledFrom([]uint32{0, 1000, 1<<21 + 5, 1<<32 - 2}).Draw(g.t, "uid"),
		GID:   rapid.SampledFrom([]uint32{0, 1000, 1<<32 - 2}).Draw(g.t, "gid"),
		MTime: rapid.Int64Range(-1e18, 4e18).Draw(g.t, "mtime"),
	}
	if kind == tree.Symlink {
		m.Mode = 0o777
	}
	add := func(name, value string) {
		if rapid.IntRange(0, 5).Draw(g.t, name) == 0 {
			m.Xattrs = append(m.Xattrs, tree.Xattr{Name: name, Value: []byte(value)})
		}
	}
	if kind == tree.File {
		add("security.capability", "\x00\x00\x00\x02\x00\x04"+strings.Repeat("\x00", 14))
	}
	add("trusted.larder", "\x00\xff=\n")
	if kind == tree.File || kind == tree.Dir {
		add("user.%41=\xfe", "odd")
		add("user.none", "")
	}
	return m
}

func (g *layerGen) leaf(kind tree.Kind) *tree.Node {
	n := &tree.Node{Kind: kind, Meta: g.meta(kind)}
	switch kind {
	case tree.File:
		body := rapid.SampledFrom([][]byte{
			nil, []byte("x"), []byte("a line\n"), bytes.Repeat([]byte("0123456789abcdef"), 9000), make([]byte, 140_000),
			append(make([]byte, 140_000), 'e'),
		}).Draw(g.t, "body")
		n.Size, n.Content = int64(len(body)), key.Bytes(body)
		g.bodies[n.Content] = body
	case tree.Symlink:
		n.Link = rapid.SampledFrom([]string{"a", "../b", "/", "//c/./d/", "\xff \n", strings.Repeat("long/", 60)}).Draw(g.t, "target")
	case tree.Char, tree.Block:
		n.Rdev = rapid.SampledFrom([]uint64{0x103, 0x501, unix.Mkdev(259, 1<<20-1), 1}).Draw(g.t, "rdev")
	}
	return n
}

var names = []string{"a", "a.b", "a b", "Größe", "\xff\x01\\", "wh", "-", "..x", strings.Repeat("n", 255)}

func (g *layerGen) dir(depth int) *tree.Node {
	var entries []tree.Entry
	for _, name := range names {
		if n := g.node(depth); n != nil {
			entries = append(entries, tree.Entry{Name: name, Node: n})
		}
	}
	meta := g.meta(tree.Dir)
	// A directory without an entry of its own in the tar has nothing of its own, but something in it.
	implied := len(entries) > 0 && rapid.IntRange(0, 5).Draw(g.t, "implied") == 0
	if implied {
		meta = tree.Meta{Mode: 0o755}
	}
	d, err := tree.NewDir(meta, rapid.IntRange(0, 5).Draw(g.t, "opaque") == 0, entries)
	if err != nil {
		g.t.Fatal(err)
	}
	d.Implied = implied
	return d
}

func (g *layerGen) node(depth int) *tree.Node {
	switch k := rapid.IntRange(0, 15).Draw(g.t, "kind"); k {
	case 0, 1, 2:
		if depth > 0 {
			return g.dir(depth - 1)
		}
	case 3, 4, 5:
		return g.leaf(tree.File)
	case 6, 7:
		if len(g.linked) > 0 {
			return rapid.SampledFrom(g.linked).Draw(g.t, "link")
		}
	case 8:
		return g.leaf(rapid.SampledFrom([]tree.Kind{tree.Symlink, tree.Char, tree.Block, tree.Fifo}).Draw(g.t, "special"))
	case 9:
		return &tree.Node{Kind: tree.Whiteout}
	}
	return nil
}

// dump writes a tree out in full; seconds cuts its times as a tar does. Which directories are implied no disk knows.
func dump(t testing.TB, root *tree.Node, seconds bool) string {
	t.Helper()
	var out strings.Builder
	first, members := map[uint64]string{}, map[uint64]int{}
	err := tree.Walk(root, func(_ string, n *tree.Node) error { members[n.Group]++; return nil })
	if err != nil {
		t.Fatal(err)
	}
	tree.Walk(root, func(path string, n *tree.Node) error {
		mtime := n.MTime
		if seconds {
			mtime -= (mtime%1e9 + 1e9) % 1e9
			if path == "" {
				mtime = 0 // which a tar does not carry
			}
		}
		if n.Kind == tree.Whiteout {
			mtime = 0
		}
		fmt.Fprintf(&out, "/%s %v %o %d:%d @%d %q %d %.6s %q %x %v", path, n.Kind, n.Mode, n.UID, n.GID, mtime, n.Xattrs,
			n.Size, n.Content.Hex(), n.Link, n.Rdev, n.Opaque)
		if members[n.Group] > 1 && n.Group != 0 {
			if first[n.Group] == "" {
				first[n.Group] = path
			}
			fmt.Fprintf(&out, " =%s", first[n.Group])
		}
		out.WriteByte('\n')
		return nil
	})
	return out.String()
}

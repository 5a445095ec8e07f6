package layer

import (
	"context"
	"flag"
	"fmt"
	"io"
	"testing"

	"pgregory.net/rapid"

	"larder/internal/key"
	"larder/internal/tree"
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

// stateGen draws states of small layers out of few names, so that they collide often.
type stateGen struct {
	t      *rapid.T
	bodies map[key.Digest][]byte // of the layer that is being drawn
	linked []*tree.Node
	acls   bool
}

func drawState(t *rapid.T, acls bool) *State {
	var s *State
	for range rapid.IntRange(0, 7).Draw(t, "layers") {
		s = s.Push((&stateGen{t: t, acls: acls}).layer())
	}
	return s
}

func (g *stateGen) layer() *Layer {
	g.bodies = map[key.Digest][]byte{}
	for range rapid.IntRange(0, 1).Draw(g.t, "groups") {
		n := g.file()
		n.Group = tree.NewGroup()
		g.linked = append(g.linked, n)
	}
	bare := rapid.IntRange(0, 4).Draw(g.t, "bare") == 0
	root := g.dir(rapid.IntRange(0, 2).Draw(g.t, "depth"), bare)
	root.Implied = false
	root.Opaque = g.acls && rapid.IntRange(0, 40).Draw(g.t, "root") == 0
	id, err := root.Identity()
	if err != nil {
		g.t.Fatal(err)
	}
	return New(id, rapid.Bool().Draw(g.t, "pinned"), root, Literal(g.bodies))
}

func (g *stateGen) meta() tree.Meta {
	m := tree.Meta{
		Mode:  rapid.SampledFrom([]uint32{0o755, 0o644, 0o4711}).Draw(g.t, "mode"),
		UID:   rapid.SampledFrom([]uint32{0, 1000}).Draw(g.t, "owner"),
		MTime: rapid.Int64Range(1, 9).Draw(g.t, "mtime"),
	}
	switch rapid.IntRange(0, 20).Draw(g.t, "xattr") {
	case 0:
		m.Xattrs = []tree.Xattr{{Name: "trusted.x", Value: []byte("y")}}
	case 1:
		if g.acls {
			m.Xattrs = []tree.Xattr{{Name: "security.capability"}, {Name: "system.posix_acl_default", Value: []byte("a")}}
		}
	}
	return m
}

func (g *stateGen) file() *tree.Node {
	body := fmt.Appendf(nil, "%d", rapid.IntRange(0, 1e9).Draw(g.t, "body"))
	n := &tree.Node{Kind: tree.File, Meta: g.meta(), Size: int64(len(body)), Content: key.Bytes(body)}
	g.bodies[n.Content] = body
	return n
}

func (g *stateGen) dir(depth int, bare bool) *tree.Node {
	var entries []tree.Entry
	for _, name := range []string{"a", "b", "c"} {
		if n := g.node(depth, bare); n != nil {
			entries = append(entries, tree.Entry{Name: name, Node: n})
		}
	}
	d, err := tree.NewDir(g.meta(), rapid.IntRange(0, 5).Draw(g.t, "opaque") == 0, entries)
	if err != nil {
		g.t.Fatal(err)
	}
	d.Implied = rapid.IntRange(0, 3).Draw(g.t, "implied") == 0
	return d
}

func (g *stateGen) node(depth int, bare bool) *tree.Node {
	kind := rapid.IntRange(0, 8).Draw(g.t, "kind")
	switch {
	case kind <= 3 && depth > 0:
		return g.dir(depth-1, bare)
	case bare:
		return nil
	case kind == 4:
		return g.file()
	case kind == 5 && len(g.linked) > 0:
		return g.linked[0]
	case kind == 6:
		return &tree.Node{Kind: tree.Symlink, Meta: tree.Meta{Mode: 0o777, MTime: 3}, Link: "a"}
	case kind == 7:
		return &tree.Node{Kind: tree.Whiteout}
	case kind == 8:
		return &tree.Node{Kind: tree.Fifo, Meta: g.meta()}
	}
	return nil
}

func body(ctx context.Context, src Source, n *tree.Node) (string, error) {
	rc, err := src.Open(ctx, n.Content, n.Size)
	if err != nil {
		return "", err
	}
	defer rc.Close()
	b, err := io.ReadAll(rc)
	return string(b), err
}

// applied lays layer trees over each other, the bottom one first.
func applied(t rapid.TB, trees ...*tree.Node) *tree.Node {
	t.Helper()
	root := tree.Empty()
	for _, n := range trees {
		var err error
		if root, err = tree.Apply(root, n); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func treesOf(t rapid.TB, layers []*Layer) (out []*tree.Node) {
	t.Helper()
	for _, l := range layers {
		root, err := l.Tree(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, root)
	}
	return out
}

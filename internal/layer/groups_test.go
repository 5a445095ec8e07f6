package layer

import (
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"

	"pgregory.net/rapid"

	"larder/internal/key"
	"larder/internal/tree"
)

// TestGroupsAreTheState: groups have all layers in order, alternate, are as observed as can be, and lie over each other as the
// layers do; what they say of contents is so.
func TestGroupsAreTheState(t *testing.T) {
	checks(t, "2500")
	ctx := context.Background()
	rapid.Check(t, func(rt *rapid.T) {
		s := drawState(rt, true)
		// States above s share what it remembers.
		above := []*State{s.Push(observedTree(t, true, "x=1")), s.Push(observedTree(t, false, "y=1")), s.Push(observedTree(t, true, "z=1")), s.Push(observedTree(t, false))}
		for _, a := range above {
			if _, err := a.Groups(ctx); err != nil {
				rt.Fatal(err)
			}
		}
		groups, err := s.Groups(ctx)
		if err != nil {
			rt.Fatal(err)
		}
		for _, a := range append(above, s) {
			again, err := a.Groups(ctx)
			if err != nil || a == s && s != nil && &again[0] != &groups[0] {
				rt.Fatal("computed again", err)
			}
			var layers []*Layer
			for _, g := range again {
				layers = append(layers, g.Layers...)
			}
			if !slices.Equal(layers, a.Layers()) {
				rt.Fatal("the groups have other layers")
			}
		}
		var trees []*tree.Node
		for i, g := range groups {
			if i > 0 && g.Observed == groups[i-1].Observed {
				rt.Fatal("neighbours are one group")
			}
			if !g.Observed {
				trees = append(trees, treesOf(rt, g.Layers)...)
				checkPinned(rt, g)
				continue
			}
			trees = append(trees, g.Root)
			checkObserved(rt, g)
		}
		merged, err := s.Merged(ctx)
		if err != nil {
			rt.Fatal(err)
		}
		if got, want := describe(t, applied(rt, trees...), true), describe(t, merged, true); got != want {
			rt.Fatalf("got\n%s\nwant\n%s", got, want)
		}
	})
}

// checkPinned finds a reason for each run of observed layers of a pinned group.
func checkPinned(t *rapid.T, g Group) {
	if g.Root != nil || g.Contents != nil {
		t.Fatal("a pinned group is served")
	}
	why := false
	for rest := g.Layers; len(rest) > 0; {
		n := slices.IndexFunc(rest, func(l *Layer) bool { return l.Pinned != rest[0].Pinned })
		if n < 0 {
			n = len(rest)
		}
		run := rest[:n]
		rest = rest[n:]
		if run[0].Pinned {
			continue
		}
		one := run[0].root
		acl := false
		for i, l := range run {
			var err error
			if i > 0 {
				if one, err = tree.Compose(one, l.root); err != nil {
					t.Fatal(err)
				}
			}
			has := strings.Contains(kindsOf(t, l.root), "posix_acl")
			acl = acl || has || l.root.Opaque
		}
		bare := true
		for line := range strings.Lines(kindsOf(t, one)) {
			bare = bare && strings.Contains(line, "dir")
		}
		if !bare && !acl {
			t.Fatal("pinned without a reason")
		}
		why = why || !bare
	}
	if why != (g.Why != "") {
		t.Fatalf("the reason is %q", g.Why)
	}
}

// kindsOf says what in a tree is a directory, and what attributes everything has.
func kindsOf(t rapid.TB, root *tree.Node) string {
	var b strings.Builder
	if err := tree.Walk(root, func(path string, n *tree.Node) error {
		b.WriteString(path)
		if n.Kind == tree.Dir {
			b.WriteString(" dir")
		}
		for _, x := range n.Xattrs {
			b.WriteString(" " + x.Name)
		}
		b.WriteString("\n")
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func checkObserved(t *rapid.T, g Group) {
	if g.Why != "" || slices.ContainsFunc(g.Layers, func(l *Layer) bool { return l.Pinned }) {
		t.Fatal("a pinned layer, or a reason, of an observed group")
	}
	files := false
	if err := tree.Walk(g.Root, func(path string, n *tree.Node) error {
		files = files || n.Kind != tree.Dir
		if slices.ContainsFunc(n.Xattrs, func(x tree.Xattr) bool { return strings.HasPrefix(x.Name, "system.posix") }) {
			t.Fatalf("%s has an ACL", path)
		}
		if n.Kind != tree.File {
			return nil
		}
		text, err := body(context.Background(), g.Contents, n)
		if err != nil || key.Bytes([]byte(text)) != n.Content {
			t.Fatalf("%s: %q, %v", path, text, err)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if !files || g.Root.Opaque {
		t.Fatal("nothing to observe")
	}
}

func TestGroups(t *testing.T) {
	base, run := observedTree(t, true, "etc/passwd=p"), observedTree(t, true, "app/out=1")
	workdir, more := observedTree(t, false, "app/"), observedTree(t, false, "app/sub/")
	a, b := observedTree(t, false, "app/a=1"), observedTree(t, false, "app/b=2")
	gone := observedTree(t, false, "-app")
	acl := aclLayer(t)
	for _, c := range []struct {
		name   string
		layers []*Layer
		want   string // layers of groups, observed ones in parentheses
	}{
		{"scratch", nil, ""},
		{"base", []*Layer{base}, "1"},
		{"nothing but a directory", []*Layer{base, workdir, run}, "3"},
		{"several directories", []*Layer{workdir, more, run}, "3"},
		{"files", []*Layer{base, workdir, a, b, run, a}, "1 (3) 1 (1)"},
		{"directories beside files", []*Layer{base, a, workdir, run, more, run}, "1 (2) 3"},
		{"a whiteout", []*Layer{base, gone}, "1 (1)"},
		{"what was taken away again", []*Layer{base, a, gone, run}, "1 (2) 1"},
		{"ACLs", []*Layer{base, a, acl, run}, "4 it has POSIX ACLs"},
		{"files, ACLs elsewhere", []*Layer{a, run, acl, base, b}, "(1) 3 it has POSIX ACLs (1)"},
		{"an opaque root", []*Layer{base, a, New(key.Digest{}, false, a.root.WithOpaque(true), nil)}, "3 it replaces the whole file system"},
	} {
		t.Run(c.name, func(t *testing.T) {
			groups, err := Stack(c.layers...).Groups(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, g := range groups {
				n := string(rune('0' + len(g.Layers)))
				if g.Observed {
					n = "(" + n + ")"
				}
				got = append(got, strings.TrimSpace(n+" "+g.Why))
			}
			if got := strings.Join(got, " "); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

func aclLayer(t *testing.T) *Layer {
	t.Helper()
	root, err := tree.NewDir(tree.Meta{Mode: 0o755}, false, []tree.Entry{{Name: "f", Node: &tree.Node{
		Kind: tree.File, Meta: tree.Meta{Xattrs: []tree.Xattr{{Name: "system.posix_acl_access"}}}, Content: key.Bytes(nil),
	}}})
	if err != nil {
		t.Fatal(err)
	}
	return New(key.Bytes([]byte("acl")), false, root, nil)
}

// TestGroupsAskForLittle: trees of pinned layers are not loaded, those of observed ones once; a load that failed is tried again.
func TestGroupsAskForLittle(t *testing.T) {
	errAway := errors.New("away")
	pinned := Lazy(key.Digest{1}, true, nil, func(context.Context) (*tree.Node, error) {
		t.Error("the tree of a pinned layer was loaded")
		return nil, errAway
	})
	file := observedTree(t, false, "a=1")
	loads := 0
	lazy := Lazy(key.Digest{2}, false, nil, func(context.Context) (*tree.Node, error) {
		if loads++; loads == 1 {
			return nil, errAway
		}
		return file.root, nil
	})
	s := Stack(pinned, lazy)
	if _, err := s.Groups(t.Context()); !errors.Is(err, errAway) {
		t.Fatalf("got %v", err)
	}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			groups, err := s.Push(pinned).Groups(t.Context())
			if err != nil || len(groups) != 3 || groups[1].Root != file.root {
				t.Error(groups, err)
			}
		})
		wg.Go(func() {
			if _, err := s.Groups(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if loads != 2 {
		t.Errorf("loaded %d times", loads)
	}
}

// TestGroupContents: the topmost layer that has a file gives it, its failure is told, and layers without contents are passed by.
func TestGroupContents(t *testing.T) {
	one, two := observedTree(t, false, "a=1"), observedTree(t, false, "b=2")
	d := key.Bytes([]byte("1"))
	group := func(top, below Source) Group {
		groups, err := Stack(New(one.Identity, false, one.root, below), New(two.Identity, false, two.root, top)).Groups(t.Context())
		if err != nil || len(groups) != 1 {
			t.Fatal(groups, err)
		}
		return groups[0]
	}
	with := func(text string) Source { return Literal(map[key.Digest][]byte{d: []byte(text)}) }
	errBroken := errors.New("broken")
	broken := brokenSource{errBroken}
	for _, c := range []struct {
		top, below Source
		want       string
		err        error
	}{
		{with("top"), with("below"), "top", nil},
		{Literal(nil), with("below"), "below", nil},
		{nil, with("below"), "below", nil},
		{broken, with("below"), "", errBroken},
		{nil, nil, "", ErrNoContent},
	} {
		got, err := body(t.Context(), group(c.top, c.below).Contents, &tree.Node{Content: d, Size: 1})
		if got != c.want || !errors.Is(err, c.err) {
			t.Errorf("got %q, %v, want %q, %v", got, err, c.want, c.err)
		}
	}
}

type brokenSource struct{ err error }

func (s brokenSource) Open(context.Context, key.Digest, int64) (io.ReadCloser, error) {
	return nil, s.err
}

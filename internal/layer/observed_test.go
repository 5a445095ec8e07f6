package layer

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"larder/internal/key"
	"larder/internal/tree"
)

// observedTree makes a layer of "path=content"; a path with a slash at the end is an empty directory, "-path" a whiteout, "!path"
// an opaque directory.
func observedTree(t *testing.T, pinned bool, paths ...string) *Layer {
	t.Helper()
	var build func(paths []string, opaque bool) *tree.Node
	build = func(paths []string, opaque bool) *tree.Node {
		below, opaques := map[string][]string{}, map[string]bool{}
		var entries []tree.Entry
		for _, p := range paths {
			if rest, ok := strings.CutPrefix(p, "-"); ok && !strings.Contains(rest, "/") {
				entries = append(entries, tree.Entry{Name: rest, Node: &tree.Node{Kind: tree.Whiteout}})
				continue
			}
			mark := p[:1]
			first, rest, deep := strings.Cut(strings.TrimLeft(p, "-!"), "/")
			if !deep {
				if mark == "!" {
					opaques[first], below[first] = true, append(below[first], "")
					continue
				}
				name, content, _ := strings.Cut(p, "=")
				entries = append(entries, tree.Entry{Name: name, Node: &tree.Node{
					Kind: tree.File, Size: int64(len(content)), Content: key.Bytes([]byte(content)),
				}})
				continue
			}
			if mark == "-" || mark == "!" {
				rest = mark + rest
			}
			below[first] = append(below[first], rest)
		}
		for name, paths := range below {
			paths = slices.DeleteFunc(paths, func(p string) bool { return p == "" })
			entries = append(entries, tree.Entry{Name: name, Node: build(paths, opaques[name])})
		}
		d, err := tree.NewDir(tree.Meta{Mode: 0o755}, opaque, entries)
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	root := build(paths, false)
	id, err := root.Identity()
	if err != nil {
		t.Fatal(err)
	}
	l := New(id, pinned, root, nil)
	if pinned {
		l.Blob = &Blob{} // a base image's
	}
	return l
}

func TestObserved(t *testing.T) {
	base := observedTree(t, true, "etc/passwd=p", "usr/bin/sh=s", "src/old=o")
	for _, c := range []struct {
		name   string
		layers []*Layer
		want   string // implied directories with a star
	}{
		{"nothing", nil, "*"},
		{"base only", []*Layer{base}, "*"},
		{"context", []*Layer{base, observedTree(t, false, "app/a=1", "app/d/b=2", "etc/conf=3")}, "* app app/a app/d app/d/b etc* etc/conf"},
		{"scratch", []*Layer{observedTree(t, false, "a=1", "d/")}, " a d"},
		{"empty directory", []*Layer{base, observedTree(t, false, "app/"), observedTree(t, false, "app/a=1")}, "* app app/a"},
		{"RUN on top", []*Layer{base, observedTree(t, false, "app/a=1", "app/b=1", "app/c=1", "x/y=1"), observedTree(t, true, "app/a=2", "app/-b", "app/new=n")},
			"* app* app/c x x/y"},
		{"context over RUN", []*Layer{base, observedTree(t, true, "app/gen=1", "app/a=0"), observedTree(t, false, "app/a=1")}, "* app* app/a"},
		{"RUN hides", []*Layer{base, observedTree(t, false, "app/a=1", "lib/b=1"), observedTree(t, true, "!app", "app/x=1", "lib=1")}, "*"},
		{"context hides", []*Layer{base, observedTree(t, false, "!src", "src/a=1")}, "* src src/a"},
		{"a file where a directory was", []*Layer{base, observedTree(t, false, "usr=1")}, "* usr"},
		{"a directory where a file was", []*Layer{base, observedTree(t, false, "src/old/a=1")}, "* src src/old src/old/a"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := Stack(c.layers...).Observed(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			var list []string
			if err := tree.Walk(got, func(path string, n *tree.Node) error {
				if n.Implied {
					path += "*"
				}
				list = append(list, path)
				return nil
			}); err != nil {
				t.Fatal(err)
			}
			if got := strings.Join(list, " "); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

// TestObservedBringers marks each file of random stacks with the layer that has it: the observed part is what the marks say.
func TestObservedBringers(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		var layers []*Layer
		for i := range rapid.IntRange(1, 4).Draw(rt, "layers") {
			pinned := rapid.Bool().Draw(rt, "pinned")
			paths := rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"a", "b", "d/a", "d/b", "d/e/a", "d/e/b", "f/a"}), 0, 5, rapid.ID).Draw(rt, "paths")
			for j, p := range paths {
				at := strings.LastIndex(p, "/") + 1
				if rapid.IntRange(0, 3).Draw(rt, "gone") == 0 {
					paths[j] = p[:at] + "-" + p[at:]
				} else {
					paths[j] = fmt.Sprintf("%s=%d%v", p, i, pinned)
				}
			}
			if rapid.IntRange(0, 3).Draw(rt, "opaque") == 0 {
				paths = append(paths, rapid.SampledFrom([]string{"!d", "!f", "d/!e"}).Draw(rt, "what"))
			}
			layers = append(layers, observedTree(t, pinned, paths...))
		}
		st := Stack(layers...)
		merged, err := st.Merged(context.Background())
		if err != nil {
			rt.Fatal(err)
		}
		observed, err := st.Observed(context.Background())
		if err != nil {
			rt.Fatal(err)
		}
		files := func(root *tree.Node, wanted func(key.Digest) bool) (out []string) {
			if err := tree.Walk(root, func(path string, n *tree.Node) error {
				if n.Kind == tree.File && wanted(n.Content) {
					out = append(out, path+n.Content.Hex())
				}
				return nil
			}); err != nil {
				rt.Fatal(err)
			}
			return out
		}
		ours := func(d key.Digest) bool {
			for i := range layers {
				if d == key.Bytes(fmt.Appendf(nil, "%d%v", i, false)) {
					return true
				}
			}
			return false
		}
		all := func(key.Digest) bool { return true }
		if got, want := files(observed, all), files(merged, ours); !slices.Equal(got, want) {
			rt.Fatalf("got %q, want %q", got, want)
		}
	})
}

// TestObservedMade finds what a RUN generated, and leaves out what it installed.
func TestObservedMade(t *testing.T) {
	base := observedTree(t, true, "usr/bin/tool=x")
	small := observedTree(t, true, "src/gen.c=1")
	small.Blob = nil
	var names []string
	for i := range maxMadeFiles {
		names = append(names, fmt.Sprintf("opt/f%d=x", i))
	}
	large := observedTree(t, true, names...)
	large.Blob = nil
	root, err := Stack(base, small, large).Observed(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	if err := tree.Walk(root, func(path string, n *tree.Node) error {
		if n.Kind == tree.File {
			got = append(got, path)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(got, []string{"src/gen.c"}) {
		t.Errorf("got %q", got)
	}
}

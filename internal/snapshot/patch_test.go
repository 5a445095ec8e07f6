package snapshot

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"larder/internal/key"
	"larder/internal/layer"
	"larder/internal/ledger"
	"larder/internal/tree"
)

// redated gives a merged tree with other times for some of its files, links and directories, chosen by salt; names of one file get
// the same.
func redated(t testing.TB, root *tree.Node, salt string, path string) *tree.Node {
	t.Helper()
	name := path
	if root.Group != 0 {
		name = string(rune(root.Group))
	}
	h := key.Bytes([]byte(salt + name))
	meta := root.Meta
	if h[0]%3 == 0 && path != "" && (root.Kind == tree.File || root.Kind == tree.Dir || root.Kind == tree.Symlink) {
		meta.MTime = 1e18 + int64(h[1])*1e9 + int64(h[2])
	}
	if root.Kind != tree.Dir {
		return root.WithMeta(meta)
	}
	entries, err := root.Entries()
	if err != nil {
		t.Fatal(err)
	}
	out := make([]tree.Entry, len(entries))
	for i, e := range entries {
		out[i] = tree.Entry{Name: e.Name, Node: redated(t, e.Node, salt, tree.Join(path, e.Name))}
	}
	d, err := tree.NewDir(meta, false, out)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// TestSoakMountOver mounts random stacks with random other times: all that is seen is the merged tree with those, and what is
// written there makes the same layer as without.
func TestSoakMountOver(t *testing.T) {
	s := openStore(t, t.TempDir(), Options{})
	checks := flag.Lookup("rapid.checks").Value
	defer checks.Set(checks.String())
	if os.Getenv("LARDER_SOAK") == "" {
		checks.Set("8") // each mounts three times
	}
	rapid.Check(t, func(rt *rapid.T) {
		var st *layer.State
		for range rapid.IntRange(1, 3).Draw(rt, "layers") {
			st = st.Push(stackable(rt, drawLayer(rt, false), st))
		}
		merged, err := st.Merged(t.Context())
		if err != nil {
			rt.Fatal(err)
		}
		shown := redated(t, merged, rapid.String().Draw(rt, "salt"), "")
		over, err := ledger.Over(shown, merged)
		if err != nil {
			rt.Fatal(err)
		}
		var layers [2]*layer.Layer
		for i, opt := range []MountOptions{{ReadOnly: rapid.Bool().Draw(rt, "ro"), Over: over}, {Over: over}, {}} {
			m, err := s.Mount(t.Context(), st, opt)
			if err != nil {
				rt.Fatal(err)
			}
			if i < 2 {
				seen, err := layer.FromUpper(t.Context(), m.Root)
				if err != nil {
					rt.Fatal(err)
				}
				if got, want := dump(t, seen, false), dump(t, shown, false); got != want {
					rt.Fatalf("a step sees\n%s\nnot\n%s", got, want)
				}
			}
			if i == 0 {
				err = m.Discard()
			} else {
				change(rt, m.Root)
				layers[i-1], err = m.Commit(t.Context())
			}
			if err != nil {
				rt.Fatal(err)
			}
		}
		if layers[0].Identity != layers[1].Identity {
			rt.Fatalf("other times make another layer")
		}
	})
}

// stackable gives a layer without what no tool writes and overlay shows in ways of its own: an opaque root, and whiteouts over nothing.
func stackable(t *rapid.T, l *layer.Layer, below *layer.State) *layer.Layer {
	root, err := l.Tree(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	lower, err := below.Merged(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	root = overSomething(t, root.WithOpaque(false), lower)
	id, err := root.Identity()
	if err != nil {
		t.Fatal(err)
	}
	return layer.New(id, l.Pinned, root, l.Contents)
}

func overSomething(t *rapid.T, n, lower *tree.Node) *tree.Node {
	entries, err := n.Entries()
	if err != nil {
		t.Fatal(err)
	}
	var out []tree.Entry
	for _, e := range entries {
		var below *tree.Node
		if !n.Opaque {
			if below, err = lower.Lookup(e.Name); err != nil {
				t.Fatal(err)
			}
		}
		if below == nil {
			below = tree.Empty()
			if e.Node.Kind == tree.Whiteout {
				continue
			}
		}
		if e.Node.Kind == tree.Dir {
			e.Node = overSomething(t, e.Node, below)
		}
		out = append(out, e)
	}
	d, err := tree.NewDir(n.Meta, n.Opaque, out)
	if err != nil {
		t.Fatal(err)
	}
	d.Implied = n.Implied
	return d
}

// change does to each directory what is done to files: one is made, one removed, one opened for writing, one linked.
func change(t *rapid.T, dir string) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for i, e := range entries {
		path := filepath.Join(dir, e.Name())
		switch {
		case e.IsDir():
			change(t, path)
		case i%4 == 0:
			err = os.Remove(path)
		case i%4 == 1 && e.Type().IsRegular():
			var f *os.File
			if f, err = os.OpenFile(path, os.O_RDWR, 0); err == nil {
				err = f.Close()
			}
		case i%4 == 2:
			err = os.Link(path, filepath.Join(dir, fmt.Sprint("link", i)))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "new"), []byte(dir[len(dir)-1:]), 0o600); err != nil {
		t.Fatal(err)
	}
}

// overOf makes the tree to show one path of a state with another time.
func overOf(t *testing.T, st *layer.State, path string, mtime int64) *tree.Node {
	t.Helper()
	merged, err := st.Merged(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	over, err := ledger.Over(only(t, merged, path, mtime), merged)
	if err != nil || over == nil {
		t.Fatal(over, err)
	}
	return over
}

// only gives the part of a tree that leads to path, which gets another time.
func only(t *testing.T, n *tree.Node, path string, mtime int64) *tree.Node {
	t.Helper()
	meta := n.Meta
	if path == "" {
		meta.MTime = mtime
		return n.WithMeta(meta)
	}
	first, rest, _ := strings.Cut(path, "/")
	below, err := n.Lookup(first)
	if err != nil || below == nil {
		t.Fatal(first, err)
	}
	d, err := tree.NewDir(meta, false, []tree.Entry{{Name: first, Node: only(t, below, rest, mtime)}})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func mtime(t *testing.T, path string) int64 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		t.Fatal(err)
	}
	return st.Mtim.Nano()
}

// TestMountOverPart binds a part of a read-only mount, which shows the other times too.
func TestMountOverPart(t *testing.T) {
	s := openStore(t, t.TempDir(), Options{})
	// The upper layer's tar lists no directories: the patch has those as well.
	st := layer.Stack(image(t, s, "d/", "d/f=old", "d/g=g"), image(t, s, "d/f=new"), image(t, s, "e/.wh..wh..opq", "e/x=x"))
	const want = int64(1234567890987654321)
	m := mount(t, s, st, MountOptions{ReadOnly: true, Over: overOf(t, st, "d/f", want)})
	part, err := s.BindPart(m.Root, "d")
	if err != nil {
		t.Fatal(err)
	}
	defer part.Remove()
	if got := mtime(t, part.Path+"/f"); got != want {
		t.Errorf("shown with %d", got)
	}
	if got := read(t, part.Path+"/f") + read(t, part.Path+"/g"); got != "newg" {
		t.Errorf("got %s", got)
	}
	if got := mtime(t, part.Path+"/g"); got != 1e18 {
		t.Errorf("what stands beside is shown with %d", got)
	}
}

// TestMountOverOfChangedLayer asks for contents that the state does not have.
func TestMountOverOfChangedLayer(t *testing.T) {
	s := openStore(t, t.TempDir(), Options{})
	st := layer.Stack(image(t, s, "f=old"))
	other := layer.Stack(image(t, s, "f=new"))
	_, err := s.Mount(t.Context(), st, MountOptions{Over: overOf(t, other, "f", 5)})
	var changed *layer.ChangedError
	if !errors.As(err, &changed) {
		t.Errorf("got %v", err)
	}
	missing := layer.Stack(image(t, s, "g=new"))
	if _, err = s.Mount(t.Context(), st, MountOptions{Over: overOf(t, missing, "g", 5)}); !errors.Is(err, layer.ErrNoContent) {
		t.Errorf("got %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err = s.Mount(ctx, st, MountOptions{Over: overOf(t, st, "f", 5)}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	left, err := filepath.Glob(filepath.Join(s.proc, "m*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v %v", left, err)
	}
}

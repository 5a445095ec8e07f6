package snapshot

import (
	"context"
	"errors"
	"math/rand"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"larder/internal/key"
	"larder/internal/layer"
	"larder/internal/tree"
)

// redate gives a tree with other mtimes; hard links keep one.
func redate(t testing.TB, n *tree.Node, mtime func() int64) *tree.Node {
	t.Helper()
	linked := map[uint64]*tree.Node{}
	var redo func(n *tree.Node) *tree.Node
	redo = func(n *tree.Node) *tree.Node {
		if n.Kind == tree.Whiteout {
			return n
		}
		if n.Group != 0 && linked[n.Group] != nil {
			return linked[n.Group]
		}
		meta := n.Meta
		meta.MTime = mtime()
		out := n.WithMeta(meta)
		if n.Kind == tree.Dir {
			entries := must(n.Entries())
			var dated []tree.Entry
			for _, e := range entries {
				dated = append(dated, tree.Entry{Name: e.Name, Node: redo(e.Node)})
			}
			out = must(tree.NewDir(meta, n.Opaque, dated))
			out.Implied = n.Implied
		} else if n.Group != 0 {
			linked[n.Group] = out
		}
		return out
	}
	return redo(n)
}

// agrees fails unless a stored layer's files are what its tree says, times included, and gives that tree as text.
func agrees(t testing.TB, s *Store, id key.Digest) string {
	t.Helper()
	l, ok := s.Layer(t.Context(), id)
	if !ok {
		t.Fatalf("layer %s is not stored", id)
	}
	root, err := l.Tree(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if got, err := root.Identity(); err != nil || got != id {
		t.Fatalf("the tree of %s, %v", got, err)
	}
	dir, err := s.Dir(t.Context(), l)
	if err != nil {
		t.Fatal(err)
	}
	disk, err := layer.FromUpper(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	got := dump(t, root, false)
	if d := dump(t, disk, false); d != got {
		t.Fatalf("on the disk\n%s\nin the tree\n%s", d, got)
	}
	return got
}

// TestAdopt gives layers other times: files, tree, and for the next process too.
func TestAdopt(t *testing.T) {
	base := t.TempDir()
	s := openStore(t, base, Options{})
	rapid.Check(t, func(rt *rapid.T) {
		made := drawLayer(rt, false)
		if _, err := s.Dir(t.Context(), made); err != nil {
			rt.Fatal(err)
		}
		old := must(made.Tree(t.Context()))
		seed := rapid.Int64().Draw(rt, "seed")
		rng := rand.New(rand.NewSource(seed))
		other := redate(t, old, func() int64 { return rng.Int63n(5e18) - 1e18 })
		before, _ := s.Layer(t.Context(), made.Identity)
		held := must(before.Tree(t.Context()))
		if err := s.Adopt(t.Context(), made.Identity, other); err != nil {
			rt.Fatal(err)
		}
		want := dump(t, other, false)
		if got := agrees(t, s, made.Identity); got != want {
			rt.Fatalf("adopted\n%s\nit has\n%s", want, got)
		}
		if got := dump(t, held, false); got != dump(t, old, false) {
			rt.Fatal("a tree that was handed out changed")
		}
		if rapid.IntRange(0, 4).Draw(rt, "next process") == 0 {
			next := openStore(t, base, Options{})
			if got := agrees(t, next, made.Identity); got != want {
				rt.Fatalf("the next process sees\n%s\nwant\n%s", got, want)
			}
			if err := next.Close(); err != nil {
				rt.Fatal(err)
			}
		}
	})
}

func TestAdoptRefuses(t *testing.T) {
	s := openStore(t, t.TempDir(), Options{})
	made, other := sample(t, "made", 7), sample(t, "other", 9)
	if err := s.Adopt(t.Context(), made.Identity, must(made.Tree(t.Context()))); err != nil || s.Has(made.Identity) {
		t.Errorf("a layer that is not here: %v", err)
	}
	dir := must(s.Dir(t.Context(), made))
	if err := s.Adopt(t.Context(), made.Identity, must(other.Tree(t.Context()))); err == nil {
		t.Error("another layer's tree was taken")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Adopt(ctx, made.Identity, must(sample(t, "made", 9).Tree(t.Context()))); err != nil && !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	agrees(t, s, made.Identity)
	// Times that it has already change nothing.
	meta := filepath.Join(filepath.Dir(dir), "meta")
	var before, after unix.Stat_t
	same := must(sample(t, "made", 9).Tree(t.Context()))
	if err := s.Adopt(t.Context(), made.Identity, same); err != nil {
		t.Fatal(err)
	}
	if err := unix.Stat(meta, &before); err != nil {
		t.Fatal(err)
	}
	if err := s.Adopt(t.Context(), made.Identity, same); err != nil {
		t.Fatal(err)
	}
	if err := unix.Stat(meta, &after); err != nil || after.Ino != before.Ino {
		t.Errorf("written again: %v", err)
	}
	nothingLeft(t, s)
}

// TestAdoptMounted: what is mounted of a layer goes on working, with the new times.
func TestAdoptMounted(t *testing.T) {
	s := openStore(t, t.TempDir(), Options{})
	made := sample(t, "made", 7)
	m := mount(t, s, layer.Stack(made), MountOptions{})
	if err := s.Adopt(t.Context(), made.Identity, must(sample(t, "made", 9).Tree(t.Context()))); err != nil {
		t.Fatal(err)
	}
	fi, err := os.Stat(m.Root + "/f")
	if err != nil || fi.ModTime().UnixNano() != 9 || read(t, m.Root+"/f") != "made" {
		t.Errorf("%v, %v", fi, err)
	}
	write(t, m.Root+"/g", "new")
	if _, err := m.Commit(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestAdoptTwoProcesses: a layer whose times one process replaces is never damaged for another that opens it meanwhile, nor
// does the other keep it from adopting.
func TestAdoptTwoProcesses(t *testing.T) {
	root := t.TempDir()
	s := openStore(t, root, Options{})
	made := sample(t, "made", 7)
	if _, err := s.Dir(t.Context(), made); err != nil {
		t.Fatal(err)
	}
	other := openStore(t, root, Options{})
	stale, ok := other.Layer(t.Context(), made.Identity)
	if !ok {
		t.Fatal("not stored")
	}
	var wg sync.WaitGroup
	stop := make(chan struct{})
	wg.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			r, err := Open(root, Options{Warn: func(msg string) { t.Error(msg) }})
			if err != nil {
				t.Error(err)
				return
			}
			if _, ok := r.Layer(t.Context(), made.Identity); !ok {
				t.Error("not found while its times were replaced")
			}
			if err := r.Close(); err != nil {
				t.Error(err)
			}
		}
	})
	for i := range int64(50) {
		if err := s.Adopt(t.Context(), made.Identity, must(sample(t, "made", i).Tree(t.Context()))); err != nil {
			t.Fatal(err)
		}
	}
	close(stop)
	wg.Wait()
	if n := must(stale.Tree(t.Context())).MTime; n != 7 {
		t.Errorf("a tree that was handed out changed to %d", n)
	}
	// The other still thinks that the layer has the first times, and is asked for just those.
	if err := other.Adopt(t.Context(), made.Identity, must(made.Tree(t.Context()))); err != nil {
		t.Fatal(err)
	}
	agrees(t, other, made.Identity)
	next := openStore(t, root, Options{})
	if got := agrees(t, next, made.Identity); got != dump(t, must(made.Tree(t.Context())), false) {
		t.Errorf("got\n%s", got)
	}
}

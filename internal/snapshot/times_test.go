package snapshot

import (
	"context"
	"testing"

	"larder/internal/key"
	"larder/internal/layer"
	"larder/internal/tree"
)

// dated makes a layer of one file with a time, all such have one identity.
func dated(t *testing.T, mtime int64) *layer.Layer {
	t.Helper()
	d := key.Bytes([]byte("x"))
	f := &tree.Node{Kind: tree.File, Meta: tree.Meta{Mode: 0o644, MTime: mtime}, Size: 1, Content: d}
	root, err := tree.NewDir(tree.Meta{Mode: 0o755, MTime: mtime}, false, []tree.Entry{{Name: "f", Node: f}})
	if err != nil {
		t.Fatal(err)
	}
	id, err := root.Identity()
	if err != nil {
		t.Fatal(err)
	}
	return layer.New(id, false, root, layer.Literal(map[key.Digest][]byte{d: []byte("x")}))
}

// TestTimed gives the times of the directory that was made first, and of what became of it here and in another process.
func TestTimed(t *testing.T) {
	dir := t.TempDir()
	s, other := openStore(t, dir, Options{}), openStore(t, dir, Options{})
	image, fetched := blob(t, "base")
	base, err := s.FromBlob(image, func(context.Context) (*tree.Node, error) { return tree.Empty(), nil })
	if err != nil {
		t.Fatal(err)
	}
	first, later := dated(t, 1e9), dated(t, 3e9)
	want := func(l *layer.Layer, mtime int64, same bool) {
		t.Helper()
		state := layer.Stack(base, l)
		timed, err := s.Timed(t.Context(), state, nil)
		if err != nil {
			t.Fatal(err)
		}
		if (timed == state) != same || timed.Parent() != state.Parent() || timed.Top().Identity != l.Identity || timed.Top().Pinned {
			t.Errorf("got %p of %p, %+v", timed, state, timed.Top())
		}
		merged, err := timed.Merged(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if f, err := merged.Lookup("f"); err != nil || f.MTime != mtime {
			t.Errorf("got %v, %v, want %d", f, err, mtime)
		}
	}
	want(first, 1e9, true)
	want(later, 1e9, false)
	for i, store := range []*Store{s, other} {
		mtime := int64(5e9) + int64(i)
		root, err := dated(t, mtime).Tree(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if err := store.Adopt(t.Context(), first.Identity, root); err != nil {
			t.Fatal(err)
		}
		want(later, mtime, false)
		want(first, mtime, false)
	}
	if state, err := s.Timed(t.Context(), nil, nil); state != nil || err != nil {
		t.Errorf("got %v, %v", state, err)
	}
	if fetched.Load() != 0 {
		t.Error("a base image was fetched for its times")
	}
	gone := layer.Stack(s.Stored(key.Bytes([]byte("gone")), false, nil, nil))
	if _, err := s.Timed(t.Context(), gone, nil); err == nil {
		t.Error("a layer that is gone has times")
	}
}

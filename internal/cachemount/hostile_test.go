package cachemount

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"larder/internal/generation"
	"larder/internal/key"
	"larder/internal/pack"
	"larder/internal/remote"
	"larder/internal/tree"
)

// cage is a directory in another one, of which nothing may be changed but that directory.
type cage struct {
	outer, dir, before string
}

func newCage(t testing.TB) *cage {
	t.Helper()
	outer, err := os.MkdirTemp(t.TempDir(), "")
	must(t, err)
	write(t, outer, map[string]string{"etc/passwd": "root", "etc/d/y": "y", "canary": "sings"})
	must(t, os.Mkdir(filepath.Join(outer, "dir"), 0o700))
	c := &cage{outer: outer, dir: filepath.Join(outer, "dir")}
	c.before = c.outside(t)
	return c
}

func (c *cage) outside(t testing.TB) string {
	t.Helper()
	out := ""
	for line := range strings.Lines(look(t, c.outer)) {
		if !strings.HasPrefix(line, `"dir`) {
			out += line
		}
	}
	return out
}

func (c *cage) check(t testing.TB) {
	t.Helper()
	if after := c.outside(t); after != c.before {
		t.Errorf("outside is\n%s\nit was\n%s", after, c.before)
	}
}

func dirOf(t testing.TB, entries ...tree.Entry) *tree.Node {
	t.Helper()
	n, err := tree.NewDir(tree.Meta{Mode: 0o755}, false, entries)
	must(t, err)
	return n
}

func fileOf(data string) *tree.Node {
	return &tree.Node{Kind: tree.File, Meta: tree.Meta{Mode: 0o644}, Size: int64(len(data)), Content: key.Bytes([]byte(data))}
}

// TestLinksLeadNowhere: a link with the name of a directory cannot stand in a tree, so somebody else puts it there while
// Restore runs. Nothing is written through it.
func TestLinksLeadNowhere(t *testing.T) {
	w := newWorld(t)
	src := t.TempDir()
	write(t, src, map[string]string{"etc/new": "evil", "etc/d/x": "evil too"})
	g := w.captured(src, nil, nil).Next
	c := newCage(t)
	_, err := Restore(t.Context(), c.dir, g, func(ctx context.Context, d key.Digest, off, n int64) (io.ReadCloser, error) {
		rc, err := w.open(ctx, d, off, n)
		return &swapped{rc, func() {
			for { // once the directories are made
				if os.Rename(filepath.Join(c.dir, "etc"), filepath.Join(c.dir, "old")) == nil {
					must(t, os.Symlink("../etc", filepath.Join(c.dir, "etc")))
					return
				}
			}
		}}, err
	})
	if err == nil {
		t.Error("no error")
	}
	c.check(t)
	must(t, os.Remove(filepath.Join(c.dir, "etc"))) // the link, still
}

type swapped struct {
	io.ReadCloser
	do func()
}

func (s *swapped) Read(p []byte) (int, error) {
	if s.do != nil {
		s.do()
		s.do = nil
	}
	return s.ReadCloser.Read(p)
}

func TestHostileGenerations(t *testing.T) {
	w := newWorld(t)
	src := t.TempDir()
	write(t, src, map[string]string{"a": "aaaa", "b": "bbbb", "big": string(noise(1, 6<<20))})
	good := w.captured(src, nil, nil).Next
	a, b := fileOf("aaaa"), fileOf("bbbb")
	big, err := good.Tree.Lookup("big")
	must(t, err)
	pa, pb, pbig := good.Pieces[a.Content], good.Pieces[b.Content], good.Pieces[big.Content]
	if len(pbig) < 3 {
		t.Fatalf("%d pieces", len(pbig))
	}
	with := func(n *tree.Node, pieces ...pack.Piece) *generation.Generation {
		return &generation.Generation{
			Tree:   dirOf(t, tree.Entry{Name: "a", Node: a}, tree.Entry{Name: "x", Node: n}),
			Pieces: map[key.Digest][]pack.Piece{a.Content: pa, n.Content: pieces},
		}
	}
	sized := func(n *tree.Node, size int64) *tree.Node {
		c := *n
		c.Size = size
		return &c
	}
	changed := func(list []pack.Piece, fn func([]pack.Piece)) []pack.Piece {
		c := append([]pack.Piece{}, list...)
		fn(c)
		return c
	}
	grouped := func(n *tree.Node) *tree.Node {
		c := *n
		c.Group = 1 << 60
		return &c
	}
	opaque := dirOf(t).WithOpaque(true)
	for name, g := range map[string]*generation.Generation{
		"a file as its root":          {Tree: a, Pieces: good.Pieces},
		"a whiteout":                  with(&tree.Node{Kind: tree.Whiteout}),
		"an opaque directory":         with(opaque),
		"a socket":                    with(&tree.Node{Kind: tree.Socket}),
		"an unknown kind":             with(&tree.Node{Kind: 99}),
		"no pieces":                   with(b),
		"pieces of something else":    with(b, pa...),
		"too many pieces":             with(b, pb[0], pa[0]),
		"too few pieces":              with(big, pbig[:2]...),
		"pieces in another order":     with(big, changed(pbig, func(p []pack.Piece) { p[0], p[1] = p[1], p[0] })...),
		"a piece twice":               with(big, changed(pbig, func(p []pack.Piece) { p[1] = p[0] })...),
		"a negative piece":            with(big, changed(pbig, func(p []pack.Piece) { p[1].Size = -p[1].Size })...),
		"a piece of no bytes":         with(b, changed([]pack.Piece{pb[0], pb[0]}, func(p []pack.Piece) { p[0].Size = 0 })...),
		"pieces that overflow":        with(sized(b, 1<<62), changed([]pack.Piece{pb[0], pb[0], pb[0]}, func(p []pack.Piece) { p[0].Size, p[1].Size = 1<<62, 1<<62 })...),
		"a huge size":                 with(sized(b, 1<<60), pb...),
		"a huge size, and a piece":    with(sized(b, 1<<60), changed(pb, func(p []pack.Piece) { p[0].Size = 1 << 60 })...),
		"a negative size":             with(sized(b, -1), pb...),
		"no size, but contents":       with(sized(b, 0)),
		"two sizes of a content":      {Tree: dirOf(t, tree.Entry{Name: "x", Node: b}, tree.Entry{Name: "y", Node: sized(b, 5)}), Pieces: good.Pieces},
		"another pack":                with(b, changed(pb, func(p []pack.Piece) { p[0].Pack = key.Bytes(nil) })...),
		"another frame":               with(b, changed(pb, func(p []pack.Piece) { p[0].Frame.Offset = 1 << 40 })...),
		"another place in the frame":  with(b, changed(pb, func(p []pack.Piece) { p[0].Offset++ })...),
		"hard links that differ":      {Tree: dirOf(t, tree.Entry{Name: "x", Node: grouped(a)}, tree.Entry{Name: "y", Node: grouped(b)}), Pieces: good.Pieces},
		"a hard link of another kind": {Tree: dirOf(t, tree.Entry{Name: "x", Node: grouped(a)}, tree.Entry{Name: "y", Node: grouped(&tree.Node{Kind: tree.Fifo})}), Pieces: good.Pieces},
	} {
		c := newCage(t)
		_, err := Restore(t.Context(), c.dir, g, w.open)
		if err == nil {
			t.Errorf("%s: restored\n%s", name, look(t, c.dir))
		} else if name != "another pack" && name != "another frame" && !errors.Is(err, tree.ErrDamaged) && !errors.Is(err, remote.ErrDamaged) {
			t.Errorf("%s: %v", name, err)
		}
		c.check(t)
	}
	must(t, func() error { _, err := Restore(t.Context(), newCage(t).dir, with(b, pb...), w.open); return err }())

	// A path that is longer than the kernel takes, and attributes that are not a mount's.
	deep := dirOf(t, tree.Entry{Name: "f", Node: a})
	for range 2000 {
		deep = dirOf(t, tree.Entry{Name: "dd", Node: deep})
	}
	if _, err := Restore(t.Context(), newCage(t).dir, &generation.Generation{Tree: deep, Pieces: good.Pieces}, w.open); !errors.Is(err, tree.ErrDamaged) {
		t.Errorf("a deep path: %v", err)
	}
	marked := b.WithMeta(tree.Meta{Mode: 0o644, Xattrs: []tree.Xattr{{Name: "security.ima", Value: []byte("x")}, {Name: "trusted.overlay.redirect", Value: []byte("/etc")}, {Name: "user.fine", Value: []byte("x")}}})
	out, _ := w.restored(with(marked, pb...))
	if got := lookXattrs(t, filepath.Join(out, "x")); got != ` user.fine="x"` {
		t.Errorf("attributes: %s", got)
	}
}

// TestDamagedPacks: whatever is wrong with the bytes, a directory that Restore calls good is good.
func TestDamagedPacks(t *testing.T) {
	w := newWorld(t)
	src := t.TempDir()
	write(t, src, map[string]string{"a": "aaaa", "b/c": "cccc", "big": string(noise(1, 2<<20))})
	good := w.captured(src, nil, nil).Next
	want := look(t, src)
	rapid.Check(t, func(rt *rapid.T) {
		seed := rapid.IntRange(0, 1<<30).Draw(rt, "where")
		how := rapid.IntRange(0, 3).Draw(rt, "how")
		dir, err := os.MkdirTemp(t.TempDir(), "")
		must(t, err)
		defer os.RemoveAll(dir)
		_, err = Restore(t.Context(), dir, good, func(ctx context.Context, d key.Digest, off, n int64) (io.ReadCloser, error) {
			rc, err := w.open(ctx, d, off, n)
			if err != nil {
				return nil, err
			}
			data, err := io.ReadAll(rc)
			if err != nil {
				return nil, err
			}
			at := seed % len(data)
			switch how {
			case 0:
				data[at] ^= 1 << (seed % 8)
			case 1:
				data = data[:at]
			case 2:
				data = append(data[at:], data[:at]...)
			}
			return io.NopCloser(strings.NewReader(string(data))), nil
		})
		switch {
		case err == nil:
			if got := look(t, dir); got != want {
				rt.Fatalf("restored:\n%s\nwas:\n%s", got, want)
			}
		case how == 3:
			rt.Fatal(err)
		case !errors.Is(err, remote.ErrDamaged) && !errors.Is(err, tree.ErrDamaged):
			rt.Fatalf("%v", err)
		}
	})
}

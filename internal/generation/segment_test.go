package generation

import (
	"bytes"
	"errors"
	"testing"

	"pgregory.net/rapid"

	"larder/internal/key"
	"larder/internal/pack"
	"larder/internal/tree"
)

func TestWhatIsWrittenIsRead(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		w := &world{t: rt}
		a := w.generation(nil)
		row := [][]byte{full(t, a)}
		if !bytes.Equal(row[0], full(t, a)) {
			rt.Fatal("written twice, it is not the same")
		}
		now := a
		for range rapid.IntRange(0, 3).Draw(rt, "deltas") {
			next := w.generation(now)
			from := now
			if rapid.Bool().Draw(rt, "from what was read") {
				from = readAll(t, row...)
			}
			row = append(row, delta(t, from, next))
			now = next
		}
		if want, got := dump(t, now), dump(t, readAll(t, row...)); got != want {
			rt.Fatalf("wrote\n%s\nread\n%s", want, got)
		}
	})
}

func TestPacksOfASegment(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		w := &world{t: rt}
		g := w.generation(nil)
		got, err := SegmentPacks(full(t, g))
		if err != nil {
			rt.Fatal(err)
		}
		seen := map[key.Digest]bool{}
		for _, pieces := range g.Pieces {
			for _, p := range pieces {
				seen[p.Pack] = true
			}
		}
		want := sortedDigests(seen)
		if len(got) != len(want) {
			rt.Fatalf("%v, want %v", got, want)
		}
		for i := range got {
			if got[i] != want[i] {
				rt.Fatalf("%v, want %v", got, want)
			}
		}
	})
}

func TestWhatCannotBeWritten(t *testing.T) {
	file := &tree.Node{Kind: tree.File, Size: 3, Content: key.Bytes([]byte("abc"))}
	longer := &tree.Node{Kind: tree.File, Size: 4, Content: file.Content}
	gone := &tree.Node{Kind: tree.Whiteout}
	good := pack.Piece{Digest: file.Content, Size: 3, Pack: key.Bytes(nil), Frame: pack.Frame{Length: 9, Raw: 5}, Offset: 2}
	for name, c := range map[string]struct {
		entries []tree.Entry
		piece   pack.Piece
	}{
		"no pieces":            {[]tree.Entry{{Name: "f", Node: file}}, pack.Piece{}},
		"beyond the frame":     {[]tree.Entry{{Name: "f", Node: file}}, pack.Piece{Digest: file.Content, Size: 3, Frame: good.Frame, Offset: 3}},
		"too long a name":      {[]tree.Entry{{Name: string(bytes.Repeat([]byte("x"), 256)), Node: gone}}, good},
		"a whiteout":           {[]tree.Entry{{Name: "f", Node: gone}}, good},
		"one content, 2 sizes": {[]tree.Entry{{Name: "f", Node: file}, {Name: "g", Node: longer}}, good},
	} {
		root, err := tree.NewDir(tree.Meta{}, false, c.entries)
		if err != nil {
			t.Fatal(err)
		}
		g := &Generation{Tree: root, Pieces: map[key.Digest][]pack.Piece{file.Content: {c.piece}}}
		if _, err := Full(g); err == nil {
			t.Errorf("%s: written", name)
		}
	}
}

func TestRowsThatAreNone(t *testing.T) {
	a := &Generation{Tree: tree.Empty()}
	b := &Generation{Tree: tree.Empty().WithMeta(tree.Meta{Mode: 0o700})}
	for name, row := range map[string][][]byte{
		"no full one":  {delta(t, b, a)},
		"no segment":   {{}},
		"cut short":    {full(t, a)[:20]},
		"too many":     make([][]byte, maxSegments+1),
		"other format": {[]byte("larder mount 1\n")},
	} {
		if _, err := Read(row); !errors.Is(err, tree.ErrDamaged) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if g := readAll(t); len(leaves(t, g.Tree)) != 0 || g.Ledger != nil {
		t.Error("no segments make something")
	}
}

// TestTreesThatAreNone reads segments whose trees no mount can have.
func TestTreesThatAreNone(t *testing.T) {
	dir := func(name string, n *tree.Node) *tree.Node {
		d, err := tree.NewDir(tree.Meta{Mode: 0o755}, false, []tree.Entry{{Name: name, Node: n}})
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	deep := tree.Empty()
	for range maxPath / 2 {
		deep = dir("xx", deep)
	}
	implied := *tree.Empty()
	implied.Implied = true
	for name, root := range map[string]*tree.Node{
		"too deep":        deep,
		"too long a name": dir(string(bytes.Repeat([]byte("x"), maxName+1)), tree.Empty()),
		"opaque":          dir("d", tree.Empty().WithOpaque(true)),
		"implied":         dir("d", &implied),
		"no pieces":       dir("f", &tree.Node{Kind: tree.File, Size: 1}),
	} {
		s := &columns{}
		s[colStates].buf = make([]byte, 32)
		var err error
		if s[colTree].buf, err = encoded(root); err != nil {
			t.Fatal(err)
		}
		s[colLedger].buf = []byte{ledgerNone}
		blob, err := s.blob()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Read([][]byte{blob}); !errors.Is(err, tree.ErrDamaged) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// FuzzRead reads segments that somebody else wrote, one after a good one. Whatever is accepted can be written and is then the same.
func FuzzRead(f *testing.F) {
	a, b := sample(f, 30), sample(f, 40)
	first := full(f, a)
	for _, blob := range [][]byte{first, full(f, b), delta(f, a, b), delta(f, b, a)} {
		f.Add(unpack(f, blob))
	}
	enc, err := packer()
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, plain []byte) {
		for _, row := range [][][]byte{{enc.EncodeAll(plain, nil)}, {first, enc.EncodeAll(plain, nil)}, {plain}} {
			g, err := Read(row)
			if err != nil {
				if !errors.Is(err, tree.ErrDamaged) {
					t.Fatal(err)
				}
				continue
			}
			if again := readAll(t, full(t, g)); dump(t, again) != dump(t, g) {
				t.Fatal("written and read, it is another")
			}
		}
	})
}

func unpack(t testing.TB, blob []byte) []byte {
	dec, err := unpacker()
	if err != nil {
		t.Fatal(err)
	}
	plain, err := dec.DecodeAll(blob, nil)
	if err != nil {
		t.Fatal(err)
	}
	return plain
}

// TestEveryChangedByte changes each byte of a segment, packed and unpacked: an error that says so or a generation, no panic.
func TestEveryChangedByte(t *testing.T) {
	a, b := sample(t, 2), sample(t, 4)
	first, second := full(t, a), delta(t, a, b)
	enc, err := packer()
	if err != nil {
		t.Fatal(err)
	}
	plain, want := unpack(t, second), dump(t, b)
	for i := range plain {
		for _, by := range []byte{1, 0xff} {
			bad := bytes.Clone(plain)
			bad[i] ^= by
			if _, err := Read([][]byte{first, enc.EncodeAll(bad, nil)}); err != nil && !errors.Is(err, tree.ErrDamaged) {
				t.Fatalf("byte %d: %v", i, err)
			}
		}
		if _, err := Read([][]byte{first, enc.EncodeAll(plain[:i], nil)}); !errors.Is(err, tree.ErrDamaged) {
			t.Fatalf("cut to %d bytes: %v", i, err)
		}
	}
	for i := range second {
		bad := bytes.Clone(second)
		bad[i] ^= 0x41
		// A few bits of a zstd frame say nothing of what it holds.
		g, err := Read([][]byte{first, bad})
		if err != nil && !errors.Is(err, tree.ErrDamaged) || err == nil && dump(t, g) != want {
			t.Errorf("byte %d of the blob: %v", i, err)
		}
	}
}

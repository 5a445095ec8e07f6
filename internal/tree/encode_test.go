package tree

import (
	"bytes"
	"encoding/binary"
	"errors"
	"testing"

	"pgregory.net/rapid"
)

func encoded(t testing.TB, n *Node) []byte {
	t.Helper()
	var buf bytes.Buffer
	if err := Encode(&buf, n); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func TestEncodeRoundTrip(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		n := drawTree(rt, "tree", rapid.Bool().Draw(rt, "layer"))
		b := encoded(t, n)
		got, err := Decode(bytes.NewReader(b), int64(len(b)))
		if err != nil {
			rt.Fatal(err)
		}
		if identity(t, got) != identity(t, n) {
			rt.Fatal("another identity")
		}
		if a, b := dump(t, n), dump(t, got); a != b {
			rt.Fatalf("wrote\n%s\nread\n%s", a, b)
		}
		if !bytes.Equal(encoded(t, got), b) {
			rt.Fatal("encoding what was decoded gives other bytes")
		}
	})
}

// countingReader counts reads, to show what a look-up fetches.
type countingReader struct {
	*bytes.Reader
	reads int
}

func (c *countingReader) ReadAt(b []byte, off int64) (int, error) {
	c.reads++
	return c.Reader.ReadAt(b, off)
}

func TestDecodeIsLazy(t *testing.T) {
	deep := Empty()
	for range 10 {
		d, err := NewDir(Meta{Mode: 0o755}, false, []Entry{{"d", deep}, {"e", &Node{Kind: File}}})
		if err != nil {
			t.Fatal(err)
		}
		deep = d
	}
	b := encoded(t, deep)
	r := &countingReader{Reader: bytes.NewReader(b)}
	root, err := Decode(r, int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	opening := r.reads
	if identity(t, root) != identity(t, deep) || r.reads != opening {
		t.Fatalf("identity took %d reads", r.reads-opening)
	}
	if _, n, err := Resolve(root, "/d/d/e", true); err != nil || n == nil {
		t.Fatal(n, err)
	}
	if got := r.reads - opening; got != 3 {
		t.Fatalf("three directories took %d reads", got)
	}
}

func TestDecodeSeesEveryFlippedByte(t *testing.T) {
	file := &Node{Kind: File, Meta: Meta{Mode: 0o644, MTime: 77}, Size: 5, Group: NewGroup()}
	sub, _ := NewDir(Meta{Mode: 0o755}, false, []Entry{{"x", file}, {"y", file}})
	root, _ := NewDir(Meta{Mode: 0o755}, false, []Entry{{"sub", sub}, {"z", &Node{Kind: Symlink, Link: "sub"}}})
	want := dump(t, root)
	b := encoded(t, root)
	for i := range b {
		bad := bytes.Clone(b)
		bad[i] ^= 0x41
		if err := readAll(bad); !errors.Is(err, ErrDamaged) {
			t.Errorf("byte %d of %d flipped: %v", i, len(b), err)
		}
		if err := readAll(b[:i]); !errors.Is(err, ErrDamaged) {
			t.Errorf("cut to %d of %d: %v", i, len(b), err)
		}
	}
	if got, err := Decode(bytes.NewReader(b), int64(len(b))); err != nil || dump(t, got) != want {
		t.Fatal("the original does not decode", err)
	}
}

func readAll(b []byte) error {
	root, err := Decode(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		return err
	}
	return Walk(root, func(string, *Node) error { return nil })
}

func FuzzDecode(f *testing.F) {
	file := &Node{Kind: File, Meta: Meta{Mode: 0o644, Xattrs: []Xattr{{"user.a", []byte("b")}}}, Group: NewGroup()}
	sub, _ := NewDir(Meta{Mode: 0o755}, true, []Entry{{"x", file}, {"y", file}, {"z", &Node{Kind: Whiteout}}})
	root, _ := NewDir(Meta{Mode: 0o755}, false, []Entry{{"sub", sub}, {"dev", &Node{Kind: Char, Rdev: 5}}})
	f.Add(encoded(f, root))
	f.Add(encoded(f, Empty()))
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := Decode(bytes.NewReader(b), int64(len(b)))
		if err == nil {
			err = Walk(got, func(string, *Node) error { return nil })
		}
		if err != nil {
			if !errors.Is(err, ErrDamaged) {
				t.Fatal(err)
			}
			return
		}
		again := encoded(t, got)
		back, err := Decode(bytes.NewReader(again), int64(len(again)))
		if err != nil || dump(t, back) != dump(t, got) {
			t.Fatal("what was accepted does not survive", err)
		}
	})
}

// FuzzBlock reads a directory's block whose checksum fits, so that the parser is reached.
func FuzzBlock(f *testing.F) {
	sub, _ := NewDir(Meta{Mode: 0o755, Xattrs: []Xattr{{"user.a", []byte("b")}}}, true, []Entry{{"z", &Node{Kind: Whiteout}}})
	e := &encoder{groups: map[uint64]uint64{}}
	block := binary.AppendUvarint(nil, 1)
	block, _, _ = e.node(appendString(block, "sub"), sub, span{region: 20, block: 20, marks: markLayer}, 0)
	f.Add(block)
	f.Fuzz(func(t *testing.T, b []byte) {
		p := &parser{buf: b, src: &blocks{groups: 3}, end: 1 << 20}
		entries := p.entries()
		if len(entries) > len(b)/smallest {
			t.Fatalf("%d entries out of %d bytes", len(entries), len(b))
		}
		if p.bad || len(p.buf) > 0 {
			return
		}
		if _, err := NewDir(Meta{}, false, entries); err != nil {
			t.Fatal(err)
		}
	})
}

package tree

import (
	"bytes"
	"flag"
	"os"
	"testing"

	"larder/internal/key"
)

var update = flag.Bool("update", false, "write the golden files anew")

// TestGolden fails when the stored form or the identity changes: then the version in docs/formats.md changes too.
func TestGolden(t *testing.T) {
	g := NewGroup()
	linked := &Node{Kind: File, Meta: Meta{Mode: 0o644, UID: 1000, MTime: 1_700_000_000_000_000_001}, Size: 3, Content: key.Bytes([]byte("abc")), Group: g}
	dir := func(m Meta, opaque bool, entries ...Entry) *Node {
		d, err := NewDir(m, opaque, entries)
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	root := dir(Meta{Mode: 0o755}, false,
		Entry{"bin", &Node{Kind: Symlink, Meta: Meta{Mode: 0o777}, Link: "usr/bin"}},
		Entry{"dev", dir(Meta{Mode: 0o755}, true, Entry{"null", &Node{Kind: Char, Meta: Meta{Mode: 0o666}, Rdev: 0x103}})},
		Entry{"gone", &Node{Kind: Whiteout}},
		Entry{"tmp", dir(Meta{Mode: 0o1777, MTime: -1}, false)},
		Entry{"usr", dir(Meta{Mode: 0o755, Xattrs: []Xattr{{"user.k", []byte("v")}}}, false, Entry{"a", linked}, Entry{"b", linked})},
	)
	const file = "testdata/tree.golden"
	got := encoded(t, root)
	if *update {
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("a tree is written as\n%x, it was\n%x", got, want)
	}
	back, err := Decode(bytes.NewReader(want), int64(len(want)))
	if err != nil {
		t.Fatal(err)
	}
	const id = "sha256:a69ae7b33448e22d71f28aecc2780707f5d1f41e3ac4fd1a2b76d86ef74ef50f"
	if got := identity(t, back).String(); got != id {
		t.Errorf("identity %s, it was %s", got, id)
	}
}

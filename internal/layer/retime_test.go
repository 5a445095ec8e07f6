package layer

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"larder/internal/key"
	"larder/internal/tree"
)

// TestRetime makes of an unpacked tar, which has whole seconds and no root, what it was made of.
func TestRetime(t *testing.T) {
	needRoot(t)
	dir := sampleDir(t)
	if err := unix.Chmod(dir, 0o1770); err != nil {
		t.Fatal(err)
	}
	if err := unix.Setxattr(dir, "user.root", []byte("r"), 0); err != nil {
		t.Fatal(err)
	}
	want, err := FromUpper(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	var tar bytes.Buffer
	if err := Write(t.Context(), &tar, want, DirSource(dir, want), WriteOptions{}); err != nil {
		t.Fatal(err)
	}
	for name, know := range map[string]bool{"knowing what there is": true, "knowing nothing": false} {
		t.Run(name, func(t *testing.T) {
			out := t.TempDir()
			have, err := Unpack(t.Context(), bytes.NewReader(tar.Bytes()), out)
			if err != nil {
				t.Fatal(err)
			}
			if !know {
				have = nil
			}
			if err := Retime(out, have, want); err != nil {
				t.Fatal(err)
			}
			back, err := FromUpper(t.Context(), out)
			if err != nil {
				t.Fatal(err)
			}
			if a, b := describe(t, back, true), describe(t, want, true); a != b {
				t.Errorf("got\n%s\nwant\n%s", a, b)
			}
			if back.Mode != want.Mode || back.MTime != want.MTime || len(back.Xattrs) != 1 {
				t.Errorf("the root is %+v, was %+v", back.Meta, want.Meta)
			}
		})
	}
	entries, err := want.Entries()
	if err != nil {
		t.Fatal(err)
	}
	other, err := tree.NewDir(want.Meta, false, slices.Clone(entries[1:]))
	if err != nil {
		t.Fatal(err)
	}
	if err := Retime(dir, other, want); err == nil {
		t.Error("a tree with other names passed for what is there")
	}
	if err := os.Remove(filepath.Join(dir, "empty")); err != nil {
		t.Fatal(err)
	}
	if err := Retime(dir, nil, want); err == nil {
		t.Error("a file is missing and nobody said so")
	}
}

// TestTarHoldsAll: names and attributes at the limits of what Linux allows come back from a tar.
func TestTarHoldsAll(t *testing.T) {
	needRoot(t)
	long := strings.Repeat("n", 255)
	content := []byte("body")
	f := &tree.Node{Kind: tree.File, Meta: tree.Meta{Mode: 0o644, Xattrs: []tree.Xattr{
		{Name: "user.%3D=\"\xff", Value: []byte("=\x00\n")}, {Name: "user.a=b", Value: nil}, {Name: "user.empty", Value: nil},
	}}, Size: 4, Content: key.Bytes(content)}
	dir := func(entries ...tree.Entry) *tree.Node {
		d, err := tree.NewDir(tree.Meta{Mode: 0o755}, false, entries)
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	deep := dir()
	for range 15 { // a path of 16*256-1 = 4095 bytes
		deep = dir(tree.Entry{Name: long, Node: deep})
	}
	hidden := dir(tree.Entry{Name: long, Node: &tree.Node{Kind: tree.Whiteout}})
	for range 14 {
		hidden = dir(tree.Entry{Name: long, Node: hidden})
	}
	root := dir(
		tree.Entry{Name: "f =\n\\\xff\x01 ", Node: f},
		tree.Entry{Name: long[1:], Node: &tree.Node{Kind: tree.Whiteout}},
		tree.Entry{Name: long, Node: deep},
		tree.Entry{Name: long[:253] + "oo", Node: hidden},
	)
	var tar bytes.Buffer
	src := Literal(map[key.Digest][]byte{f.Content: content})
	if err := Write(t.Context(), &tar, root, src, WriteOptions{}); err != nil {
		t.Fatal(err)
	}
	out := t.TempDir()
	back, err := Unpack(t.Context(), &tar, out)
	if err != nil {
		t.Fatal(err)
	}
	disk, err := FromUpper(t.Context(), out)
	if err != nil {
		t.Fatal(err)
	}
	want := describe(t, root, false)
	for what, n := range map[string]*tree.Node{"unpacked": back, "on the disk": disk} {
		if got := describe(t, n, false); got != want {
			t.Errorf("%s:\n%.2000s\nwritten:\n%.2000s", what, got, want)
		}
	}
}

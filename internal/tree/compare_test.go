package tree

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"larder/internal/key"
)

// TestCompareGolden shows how each sort of difference is said.
func TestCompareGolden(t *testing.T) {
	dir := func(meta Meta, entries ...Entry) *Node {
		t.Helper()
		d, err := NewDir(meta, false, entries)
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	file := func(mode uint32, body string) *Node {
		return &Node{Kind: File, Meta: Meta{Mode: mode}, Size: int64(len(body)), Content: key.Bytes([]byte(body))}
	}
	plain := Meta{Mode: 0o755}
	one, two := file(0o644, "linked"), file(0o644, "linked")
	one.Group, two.Group = NewGroup(), NewGroup()
	alone := file(0o644, "linked")
	marked := func(names ...string) *Node {
		n := file(0o644, "x")
		for _, name := range names {
			k, v, _ := strings.Cut(name, "=")
			n.Xattrs = append(n.Xattrs, Xattr{k, []byte(v)})
		}
		return n
	}
	implied := dir(plain, Entry{"f", file(0o644, "f")})
	implied.Implied = true
	dated := file(0o644, "same")
	dated.MTime = 5
	a := dir(plain,
		Entry{"attr", marked("user.a=1", "user.b=1", "user.c=1")},
		Entry{"content", file(0o644, "old")},
		Entry{"d", dir(plain, Entry{"deep", dir(Meta{Mode: 0o1777}, Entry{"x", file(0o600, "1")})}, Entry{"gone", dir(plain, Entry{"in", one})})},
		Entry{"d.x", file(0o644, "before d/ as a path")},
		Entry{"dev", &Node{Kind: Char, Rdev: 0x103}},
		Entry{"hl1", two}, Entry{"hl2", two}, Entry{"hl3", two}, Entry{"hl4", two}, Entry{"hl5", two}, Entry{"hl6", alone},
		Entry{"implied", implied},
		Entry{"kind", file(0o644, "k")},
		Entry{"link", &Node{Kind: Symlink, Link: "a b"}},
		Entry{"opaque", dir(plain)},
		Entry{"removed", &Node{Kind: Whiteout}},
		Entry{"same", file(0o644, "same")},
	)
	b := dir(Meta{Mode: 0o700, GID: 4},
		Entry{"attr", marked("user.b=2", "user.c=1", "user.d=1")},
		Entry{"content", file(0o755, "newer")},
		Entry{"d", dir(plain, Entry{"deep", dir(Meta{Mode: 0o1777}, Entry{"x", file(0o600, "2")})})},
		Entry{"d.x", file(0o644, "before d/ as a path!")},
		Entry{"dev", &Node{Kind: Char, Rdev: 0x501}},
		Entry{"hl1", two}, Entry{"hl2", two}, Entry{"hl3", two}, Entry{"hl4", two}, Entry{"hl5", alone}, Entry{"hl6", two},
		Entry{"implied", implied.WithMeta(plain).WithOpaque(true)},
		Entry{"kind", dir(plain)},
		Entry{"link", &Node{Kind: Symlink, Link: "c"}},
		Entry{"new", file(0o644, "")},
		Entry{"opaque", dir(plain).WithOpaque(true)},
		Entry{"removed", dir(plain)},
		Entry{"same", dated},
	)
	list, more, err := Compare(a, b, 100)
	if err != nil || more != 0 {
		t.Fatal(more, err)
	}
	var got strings.Builder
	for _, d := range list {
		fmt.Fprintf(&got, "%s: %s\n", d.Path, d.What)
	}
	want := `: mode 0755 -> 0700, owner 0:0 -> 0:4
attr: attribute user.a only in the record, attribute user.b, attribute user.d only in the new run
content: content, size 3 -> 5, mode 0644 -> 0755
d.x: content, size 19 -> 20
d/deep/x: content
d/gone: only in the record
dev: device 1:3 -> 5:1
hl1: no longer a hard link of /hl5, now a hard link of /hl6
hl2: no longer a hard link of /hl5, now a hard link of /hl6
hl3: no longer a hard link of /hl5, now a hard link of /hl6
hl4: no longer a hard link of /hl5, now a hard link of /hl6
hl5: no longer a hard link of /hl1 /hl2 /hl3 and 1 more
hl6: now a hard link of /hl1 /hl2 /hl3 and 1 more
implied: hides what is below false -> true
kind: file -> directory
link: target "a b" -> "c"
new: only in the new run
opaque: hides what is below false -> true
removed: whiteout -> directory
`
	if got.String() != want {
		t.Errorf("got\n%s\nwant\n%s", got.String(), want)
	}
	first, more, err := Compare(a, b, 3)
	if err != nil || more != len(list)-3 || !slices.Equal(first, list[:3]) {
		t.Errorf("with a limit: %v and %d more, %v", first, more, err)
	}
}

// TestCompare: no differences if and only if the identities are equal, and the paths that are named are right.
func TestCompare(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		a := drawTree(rt, "a", true)
		b := drawTree(rt, "b", true)
		switch rapid.IntRange(0, 2).Draw(rt, "related") {
		case 0:
			b = reread(t, a)
		case 1:
			b = regroup(t, rt, reread(t, a))
		}
		list, more, err := Compare(a, b, 1000)
		if err != nil || more != 0 {
			rt.Fatal(more, err)
		}
		if same := identity(t, a) == identity(t, b); same != (len(list) == 0) {
			rt.Fatalf("same identity: %v, but the differences are %v of\n%s\nand\n%s", same, list, dump(t, a), dump(t, b))
		}
		if !slices.IsSortedFunc(list, func(x, y Difference) int { return strings.Compare(x.Path, y.Path) }) {
			rt.Fatalf("not sorted: %v", list)
		}
		back, _, err := Compare(b, a, 1000)
		if err != nil || len(back) != len(list) {
			rt.Fatalf("%d differences, the other way round %d, %v", len(list), len(back), err)
		}
		for i, d := range list {
			if d.Path != back[i].Path {
				rt.Fatalf("%q, the other way round %q", d.Path, back[i].Path)
			}
			inA, inB := at(t, a, d.Path), at(t, b, d.Path)
			if strings.HasPrefix(d.What, "only in the record") != (inB == nil) || strings.HasPrefix(d.What, "only in the new run") != (inA == nil) {
				rt.Fatalf("%v: there %v, here %v", d, inA != nil, inB != nil)
			}
		}
	})
}

// TestCompareLazy reads no directory that both trees have, nor what is only below a difference.
func TestCompareLazy(t *testing.T) {
	var entries []Entry
	for i := range 40 {
		sub, err := NewDir(Meta{Mode: 0o755}, false, []Entry{{"f", &Node{Kind: File, Size: 1, Content: key.Bytes([]byte{byte(i)})}}})
		if err != nil {
			t.Fatal(err)
		}
		entries = append(entries, Entry{fmt.Sprint("d", i), sub})
	}
	a, err := NewDir(Meta{}, false, entries)
	if err != nil {
		t.Fatal(err)
	}
	changed := slices.Clone(entries)
	changed[7].Node, err = NewDir(Meta{Mode: 0o755}, false, []Entry{{"f", &Node{Kind: File, Size: 1, Content: key.Bytes([]byte("other"))}}})
	if err != nil {
		t.Fatal(err)
	}
	changed[8].Node = changed[8].Node.WithMeta(Meta{Mode: 0o700})
	b, err := NewDir(Meta{}, false, changed)
	if err != nil {
		t.Fatal(err)
	}
	ra, rb := &failingReader{data: encoded(t, a)}, &failingReader{data: encoded(t, b)}
	la, err := Decode(ra, int64(len(ra.data)))
	if err != nil {
		t.Fatal(err)
	}
	lb, err := Decode(rb, int64(len(rb.data)))
	if err != nil {
		t.Fatal(err)
	}
	ra.reads, rb.reads = 0, 0
	list, _, err := Compare(la, lb, 10)
	if err != nil || len(list) != 2 {
		t.Fatal(list, err)
	}
	if ra.reads != 2 || rb.reads != 2 { // the root, and the directory that differs
		t.Errorf("%d and %d directories read", ra.reads, rb.reads)
	}
	rb.err = errors.New("the disk is gone")
	broken, err := Decode(bytes.NewReader(rb.data), int64(len(rb.data)))
	if err != nil {
		t.Fatal(err)
	}
	broken.dir.lazy.Load().src.r = rb
	if _, _, err := Compare(la, broken, 10); !errors.Is(err, rb.err) {
		t.Errorf("error is %v", err)
	}
}

type failingReader struct {
	data  []byte
	reads int
	err   error
}

func (r *failingReader) ReadAt(p []byte, off int64) (int, error) {
	r.reads++
	if r.err != nil {
		return 0, r.err
	}
	return bytes.NewReader(r.data).ReadAt(p, off)
}

// reread gives an equal tree that shares nothing.
func reread(t *testing.T, n *Node) *Node {
	t.Helper()
	data := encoded(t, n)
	back, err := Decode(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		t.Fatal(err)
	}
	return back
}

// regroup changes nothing but, perhaps, which files are hard links of each other.
func regroup(t *testing.T, rt *rapid.T, n *Node) *Node {
	t.Helper()
	entries, err := n.Entries()
	if err != nil {
		t.Fatal(err)
	}
	out := slices.Clone(entries)
	for i, e := range out {
		switch c := *e.Node; {
		case c.Kind == Dir:
			out[i].Node = regroup(t, rt, e.Node)
		case c.Kind == File:
			c.Group = rapid.Uint64Range(0, 3).Draw(rt, "group")
			out[i].Node = &c
		}
	}
	d, err := NewDir(n.Meta, n.Opaque, out)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// at gives what has a path, nil for nothing.
func at(t *testing.T, n *Node, path string) *Node {
	t.Helper()
	if path == "" {
		return n
	}
	for name := range strings.SplitSeq(path, "/") {
		var err error
		if n, err = n.Lookup(name); err != nil {
			t.Fatal(err)
		}
		if n == nil {
			return nil
		}
	}
	return n
}

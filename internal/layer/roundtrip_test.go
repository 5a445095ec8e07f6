package layer

import (
	"bytes"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"fmt"
	"strings"
	"testing"

	"larder/internal/key"
	"larder/internal/tree"
)

// describe is a tree as text, one line per path: what two trees must agree in. Groups are named by their first path.
func describe(t testing.TB, root *tree.Node, withTimes bool) string {
	t.Helper()
	return describeAs(t, root, withTimes, false)
}

// describeAs also says, if wanted, which directories are only implied: a directory on disk does not know.
func describeAs(t testing.TB, root *tree.Node, withTimes, implied bool) string {
	t.Helper()
	var b strings.Builder
	groups, members := map[uint64]string{}, map[uint64]int{}
	each(t, "", root, func(p string, n *tree.Node) {
		if n.Group != 0 {
			members[n.Group]++
		}
	})
	each(t, "", root, func(p string, n *tree.Node) {
		fmt.Fprintf(&b, "/%s kind=%d", p, n.Kind)
		if n.Kind != tree.Whiteout && p != "" {
			fmt.Fprintf(&b, " mode=%o owner=%d:%d", n.Mode, n.UID, n.GID)
			if withTimes {
				fmt.Fprintf(&b, " mtime=%d", n.MTime)
			}
			for _, x := range n.Xattrs {
				fmt.Fprintf(&b, " %s=%q", x.Name, x.Value)
			}
		}
		switch n.Kind {
		case tree.File:
			fmt.Fprintf(&b, " size=%d %s", n.Size, n.Content.Hex()[:12])
		case tree.Symlink:
			fmt.Fprintf(&b, " -> %q", n.Link)
		case tree.Char, tree.Block:
			fmt.Fprintf(&b, " rdev=%x", n.Rdev)
		case tree.Dir:
			if n.Opaque {
				b.WriteString(" opaque")
			}
			if n.Implied && implied {
				b.WriteString(" implied")
			}
		}
		if n.Group != 0 && members[n.Group] > 1 {
			if groups[n.Group] == "" {
				groups[n.Group] = p
			}
			fmt.Fprintf(&b, " group=%s", groups[n.Group])
		}
		b.WriteByte('\n')
	})
	return b.String()
}

func each(t testing.TB, p string, n *tree.Node, fn func(string, *tree.Node)) {
	t.Helper()
	fn(p, n)
	entries, err := n.Entries()
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		each(t, joinRel(p, e.Name), e.Node, fn)
	}
}

// short is describe for tables in tests: one letter for the kind, metadata where it is not the plain one, contents of the
// known digests in clear.
func short(t testing.TB, root *tree.Node) string {
	t.Helper()
	var b strings.Builder
	known := map[string]string{}
	for _, s := range []string{"x", "1", "2", "3", "one", "two", ""} {
		known[key.Bytes([]byte(s)).Hex()] = s
	}
	groups, members := map[uint64]string{}, map[uint64]int{}
	each(t, "", root, func(p string, n *tree.Node) { members[n.Group]++ })
	each(t, "", root, func(p string, n *tree.Node) {
		if p == "" {
			return
		}
		b.WriteString("/" + p)
		switch n.Kind {
		case tree.Dir:
			fmt.Fprintf(&b, " D%o", n.Mode)
			if n.Opaque {
				b.WriteString(" opaque")
			}
		case tree.File:
			fmt.Fprintf(&b, " F%o %s", n.Mode, known[n.Content.Hex()])
		case tree.Symlink:
			b.WriteString(" -> " + n.Link)
		case tree.Whiteout:
			b.WriteString(" W")
		default:
			fmt.Fprintf(&b, " kind=%d", n.Kind)
		}
		if n.Group != 0 && members[n.Group] > 1 {
			if groups[n.Group] == "" {
				groups[n.Group] = p
			}
			b.WriteString(" =" + groups[n.Group])
		}
		b.WriteByte('\n')
	})
	return b.String()
}

func TestWriteRoundTrip(t *testing.T) {
	needRoot(t)
	dir := sampleDir(t)
	root, err := FromUpper(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	var first, second bytes.Buffer
	for _, b := range []*bytes.Buffer{&first, &second} {
		if err := Write(t.Context(), b, root, DirSource(dir, root), WriteOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(first.Bytes(), second.Bytes()) {
		t.Error("two writes of one tree differ")
	}
	out := t.TempDir()
	unpacked, err := Unpack(t.Context(), &first, out)
	if err != nil {
		t.Fatal(err)
	}
	back, err := FromUpper(t.Context(), out)
	if err != nil {
		t.Fatal(err)
	}
	want := describe(t, root, false)
	if got := describe(t, unpacked, false); got != want {
		t.Errorf("unpacked:\n%s\nwritten:\n%s", got, want)
	}
	if got := describe(t, back, false); got != want {
		t.Errorf("read back:\n%s\nwritten:\n%s", got, want)
	}
	a, errA := root.Identity()
	b, errB := back.Identity()
	if errA != nil || errB != nil || a != b {
		t.Errorf("identities: %s %v, %s %v", a, errA, b, errB)
	}
}

// sampleDir is an overlay upper directory with one of everything.
func sampleDir(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	p := func(name string) string { return filepath.Join(dir, name) }
	long := strings.Repeat("long-name/", 15) + "Größe \xff"
	must(os.MkdirAll(p(filepath.Dir(long)), 0o755))
	must(os.WriteFile(p(long), []byte("long"), 0o640))
	must(os.WriteFile(p("empty"), nil, 0o600))
	must(os.WriteFile(p("big"), bytes.Repeat([]byte("0123456789abcdef"), 70_000), 0o644))
	must(os.WriteFile(p("hole"), nil, 0o644))
	must(os.Truncate(p("hole"), 3<<20))
	must(os.WriteFile(p("setuid"), []byte("x"), 0o755))
	must(os.Chown(p("setuid"), 3_000_000, 100))
	must(unix.Chmod(p("setuid"), 0o4755))
	must(os.Mkdir(p("tmp"), 0o755))
	must(unix.Chmod(p("tmp"), 0o1777))
	must(os.Mkdir(p("opaque"), 0o700))
	must(unix.Setxattr(p("opaque"), overlayOpaque, []byte("y"), 0))
	must(unix.Setxattr(p("opaque"), "trusted.overlay.impure", []byte("y"), 0))
	must(unix.Setxattr(p("empty"), "user.note", []byte("a\x00b"), 0))
	must(os.Link(p("big"), p("opaque/again")))
	must(os.Link(p("big"), p("a-link")))
	must(os.Symlink("../nowhere/"+strings.Repeat("y", 200), p("tmp/dangling")))
	must(os.Lchown(p("tmp/dangling"), 5, 6))
	must(unix.Mknod(p("gone"), unix.S_IFCHR, 0))
	must(unix.Mknod(p("null"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))))
	must(unix.Mknod(p("disk"), unix.S_IFBLK|0o660, int(unix.Mkdev(259, 70_000))))
	must(unix.Mkfifo(p("pipe"), 0o622))
	must(unix.Mknod(p("socket"), unix.S_IFSOCK|0o600, 0))
	must(os.Chtimes(p("empty"), time.Unix(-10, 5), time.Unix(-10, 5)))
	return dir
}

package layer

import (
	"fmt"
	"strings"
	"testing"

	"larder/internal/key"
	"larder/internal/tree"
)

// describe is a tree as text, one line per path: what two trees must agree in. Groups are named by their first path.
func describe(t testing.TB, root *tree.Node, withTimes bool) string {
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

package tree

import (
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Difference is a path at which two trees are not the same.
type Difference struct {
	Path string `json:"path"` // as Walk reports it: without a slash in front, "" for the root
	What string `json:"what"` // "content", "mode 0644 -> 0755", "only in the record", ...; several are separated by commas
}

// Compare says what two trees differ in, mtimes aside: nothing if and only if their identities are equal. a is what a record
// has, b what its step made when it ran again. The differences are sorted by path, at most limit of them; more is how many
// there are beyond. A directory that only one of them has is one difference. Only directories that differ are listed, and
// those that hold hard links. The error is that of fetching a directory.
func Compare(a, b *Node, limit int) (list []Difference, more int, err error) {
	c := &comparer{}
	if a.HasGroups() || b.HasGroups() {
		if c.before, err = linkedWith(a); err != nil {
			return nil, 0, err
		}
		if c.after, err = linkedWith(b); err != nil {
			return nil, 0, err
		}
	}
	if err := c.nodes("", a, b); err != nil {
		return nil, 0, err
	}
	slices.SortFunc(c.out, func(x, y Difference) int { return strings.Compare(x.Path, y.Path) })
	if len(c.out) > limit {
		more = len(c.out) - limit
		c.out = c.out[:limit]
	}
	return c.out, more, nil
}

type comparer struct {
	out []Difference
	// The other names of files with several, by path. Nil where neither tree has such.
	before, after map[string][]string
}

func linkedWith(root *Node) (map[string][]string, error) {
	sets, err := root.Links()
	if err != nil {
		return nil, err
	}
	out := map[string][]string{}
	for _, set := range sets {
		for _, p := range set {
			out[p] = set
		}
	}
	return out, nil
}

func (c *comparer) add(path string, what ...string) {
	if len(what) > 0 {
		c.out = append(c.out, Difference{path, strings.Join(what, ", ")})
	}
}

// nodes compares two nodes of one path and what is below them.
func (c *comparer) nodes(path string, a, b *Node) error {
	if a.Kind != b.Kind {
		c.add(path, fmt.Sprintf("%s -> %s", a.Kind, b.Kind))
		return nil
	}
	what := differences(a, b)
	if lost := without(c.before[path], path, c.after[path]); len(lost) > 0 {
		what = append(what, "no longer a hard link of "+names(lost))
	}
	if won := without(c.after[path], path, c.before[path]); len(won) > 0 {
		what = append(what, "now a hard link of "+names(won))
	}
	c.add(path, what...)
	if a.dir == b.dir && !a.HasGroups() {
		return nil
	}
	was, err := a.listDigest()
	if err != nil {
		return err
	}
	is, err := b.listDigest()
	if err != nil {
		return err
	}
	if was == is && !a.HasGroups() && !b.HasGroups() {
		return nil
	}
	return c.entries(path, a, b)
}

func (c *comparer) entries(path string, a, b *Node) error {
	was, err := a.Entries()
	if err != nil {
		return err
	}
	is, err := b.Entries()
	if err != nil {
		return err
	}
	for len(was) > 0 || len(is) > 0 {
		switch {
		case len(is) == 0 || len(was) > 0 && was[0].Name < is[0].Name:
			c.add(Join(path, was[0].Name), "only in the record")
			was = was[1:]
		case len(was) == 0 || is[0].Name < was[0].Name:
			c.add(Join(path, is[0].Name), "only in the new run")
			is = is[1:]
		default:
			if err := c.nodes(Join(path, is[0].Name), was[0].Node, is[0].Node); err != nil {
				return err
			}
			was, is = was[1:], is[1:]
		}
	}
	return nil
}

// differences compares what Self names of two nodes of a kind.
func differences(a, b *Node) []string {
	var what []string
	changed := func(name, format string, was, is any) {
		if was != is {
			what = append(what, fmt.Sprintf(name+" "+format+" -> "+format, was, is))
		}
	}
	if a.Kind == Whiteout {
		return nil
	}
	if a.Kind == File {
		if a.Content != b.Content {
			what = append(what, "content")
		}
		changed("size", "%d", a.Size, b.Size)
	}
	if a.Kind != Symlink { // Linux gives them none
		changed("mode", "%04o", a.Mode, b.Mode)
	}
	if a.UID != b.UID || a.GID != b.GID {
		what = append(what, fmt.Sprintf("owner %d:%d -> %d:%d", a.UID, a.GID, b.UID, b.GID))
	}
	what = append(what, xattrDifferences(a.Xattrs, b.Xattrs)...)
	switch a.Kind {
	case Symlink:
		changed("target", "%q", a.Link, b.Link)
	case Char, Block:
		changed("device", "%s", device(a.Rdev), device(b.Rdev))
	case Dir:
		changed("hides what is below", "%t", a.Opaque, b.Opaque)
		changed("left out of its tar", "%t", a.Implied, b.Implied)
	}
	return what
}

// xattrDifferences names attributes but shows no values: a capability's bytes say nothing to people.
func xattrDifferences(a, b []Xattr) []string {
	var what []string
	for len(a) > 0 || len(b) > 0 {
		switch {
		case len(b) == 0 || len(a) > 0 && a[0].Name < b[0].Name:
			what = append(what, "attribute "+a[0].Name+" only in the record")
			a = a[1:]
		case len(a) == 0 || b[0].Name < a[0].Name:
			what = append(what, "attribute "+b[0].Name+" only in the new run")
			b = b[1:]
		default:
			if string(a[0].Value) != string(b[0].Value) {
				what = append(what, "attribute "+a[0].Name)
			}
			a, b = a[1:], b[1:]
		}
	}
	return what
}

func device(rdev uint64) string {
	return fmt.Sprintf("%d:%d", unix.Major(rdev), unix.Minor(rdev))
}

// maxNames is how many other names of a file are written out.
const maxNames = 3

func names(paths []string) string {
	end := ""
	if n := len(paths) - maxNames; n > 0 {
		paths, end = paths[:maxNames], fmt.Sprintf(" and %d more", n)
	}
	return "/" + strings.Join(paths, " /") + end
}

// without gives the names of a set but for self and those that are in another set, both sorted.
func without(set []string, self string, other []string) []string {
	var out []string
	for _, p := range set {
		if _, there := slices.BinarySearch(other, p); !there && p != self {
			out = append(out, p)
		}
	}
	return out
}

var kindNames = map[Kind]string{
	File: "file", Dir: "directory", Symlink: "symbolic link", Char: "character device", Block: "block device", Fifo: "fifo",
	Socket: "socket", Whiteout: "whiteout",
}

// String names a kind for people.
func (k Kind) String() string {
	if name, ok := kindNames[k]; ok {
		return name
	}
	return fmt.Sprintf("kind %d", uint8(k))
}

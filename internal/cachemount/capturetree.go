package cachemount

import (
	"fmt"
	"maps"
	"slices"

	"larder/internal/generation"
	"larder/internal/key"
	"larder/internal/pack"
	"larder/internal/tree"
)

// names are those of one file, by path.
type names []*entry

// settle gives all names of a file what is known by reading it under the first.
func (n names) settle() {
	first := n[0]
	for _, e := range n[1:] {
		if first.node == nil {
			e.node = nil
			continue
		}
		e.used = e.used || first.used
		e.settle(first.node)
		e.stamp = first.stamp
	}
}

// group gives the names one Group: the one that they have in before, if they have one and no other file took it.
func (n names) group(taken map[uint64]bool) {
	if len(n) < 2 || n[0].node == nil {
		n[0].setGroup(0)
		return
	}
	var g uint64
	if n[0].old != nil {
		g = n[0].old.Group
	}
	for _, e := range n {
		if e.old == nil || e.old.Group != g {
			g = 0
		}
	}
	if g == 0 || taken[g] {
		g = tree.NewGroup()
	}
	taken[g] = true
	for _, e := range n {
		e.setGroup(g)
	}
}

func (e *entry) setGroup(g uint64) {
	if e.node == nil || e.node.Group == g {
		return
	}
	c := *e.node
	c.Group = g
	e.node = &c
}

// written reports whether it is another file than before's, or one that was written to.
func (e *entry) written() bool {
	a, b := e.old, e.node
	return a == nil || a != b && (a.Kind != b.Kind || a.Content != b.Content || a.MTime != b.MTime || a.Link != b.Link)
}

// result puts together what was found. where is where the pieces are that were read.
func (c *capture) result(root *listing, where map[key.Digest]pack.Piece) (*Captured, error) {
	taken := map[uint64]bool{}
	for _, id := range slices.SortedFunc(maps.Keys(c.inodes), inode.compare) {
		n := c.inodes[id]
		if n[0].unread {
			n.settle()
		}
		n.group(taken)
	}
	root.each(func(e *entry) {
		if e.names == nil {
			e.setGroup(0)
		}
	})
	next := &generation.Generation{}
	var err error
	if next.Tree, err = root.tree(); err != nil {
		return nil, err
	}
	out := &Captured{Next: next, LeftOut: c.leftOut}
	slices.Sort(out.LeftOut)
	asBefore := next.Tree == c.before.Tree && len(c.refs) == 0 // contents that before did not know were read
	if asBefore {
		next.Pieces = c.before.Pieces
	} else {
		next.Pieces = make(map[key.Digest][]pack.Piece, len(c.before.Pieces)+len(c.refs))
	}
	next.Idle = make(map[string]int, len(c.before.Idle))
	stamps := make([]stamp, 0, c.entries)
	root.each(func(e *entry) {
		c.count(out, e)
		if e.names == nil || e.names[0] == e {
			stamps = append(stamps, e.stamp)
		}
		if err == nil && !asBefore {
			err = c.locate(out, e.node, where)
		}
	})
	if err != nil {
		return nil, err
	}
	err = tree.Walk(c.before.Tree, func(_ string, n *tree.Node) error {
		if n.Kind == tree.File {
			out.Had++
		}
		return nil
	})
	out.Stamps = newStamps(stamps, c.began)
	return out, err
}

// count adds an entry to what the caller is told.
func (c *capture) count(out *Captured, e *entry) {
	used := e.used || e.written()
	if !used {
		path := e.path()
		out.Next.Idle[path] = c.before.Idle[path] + 1
	}
	if e.node.Kind != tree.File {
		return
	}
	out.Files++
	if e.names == nil || e.names[0] == e {
		out.Size += e.node.Size
	}
	if used && e.old != nil && e.old.Kind == tree.File {
		out.Used++
	}
}

// locate notes where a file's contents are.
func (c *capture) locate(out *Captured, n *tree.Node, where map[key.Digest]pack.Piece) error {
	if _, known := out.Next.Pieces[n.Content]; known || n.Kind != tree.File || n.Size == 0 {
		return nil
	}
	if list, ok := c.before.Pieces[n.Content]; ok {
		out.Next.Pieces[n.Content] = list
		return nil
	}
	var list []pack.Piece
	for _, ref := range c.refs[n.Content] {
		if p, ok := where[ref.Digest]; ok {
			list = append(list, p)
		}
	}
	if len(list) == 0 || len(list) != len(c.refs[n.Content]) {
		return fmt.Errorf("contents were read, and are in no pack: %s", n.Content)
	}
	out.Next.Pieces[n.Content] = list
	out.New++
	out.NewBytes += n.Size
	return nil
}

// tree makes the directory's node. What is as before is before's own node, so that comparing the two is quick.
func (l *listing) tree() (*tree.Node, error) {
	var before []tree.Entry
	if l.old != nil {
		var err error
		if before, err = l.old.Entries(); err != nil {
			return nil, err
		}
	}
	entries := make([]tree.Entry, 0, len(l.entries))
	same := l.old != nil
	for i := range l.entries {
		e := &l.entries[i]
		n := e.node
		if e.sub != nil && !e.sub.left {
			var err error
			if n, err = e.sub.tree(); err != nil {
				return nil, err
			}
		}
		if n == nil {
			continue
		}
		k := len(entries)
		same = same && k < len(before) && before[k] == tree.Entry{Name: e.name, Node: n}
		entries = append(entries, tree.Entry{Name: e.name, Node: n})
	}
	if !same || len(entries) != len(before) {
		return tree.NewDir(l.meta, false, entries)
	}
	if o := l.old; o.Mode == l.meta.Mode && o.UID == l.meta.UID && o.GID == l.meta.GID && o.MTime == l.meta.MTime && sameXattrs(o.Xattrs, l.meta.Xattrs) {
		return o, nil
	}
	return l.old.WithMeta(l.meta), nil
}

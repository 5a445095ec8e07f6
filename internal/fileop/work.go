package fileop

import (
	"maps"
	"slices"
	"sort"

	"larder/internal/tree"
)

// work is a file system under construction: a base, which is only looked at, and what was changed over it. It belongs to
// one goroutine.
type work struct {
	root  *inode
	input int   // which input the base is, -1 for the empty file system
	base  base  // how the base is looked at; nil with input -1
	now   int64 // mtime of what is changed, in nanoseconds
}

// inode is an object in a work. A file that has several names is one inode under each of them.
type inode struct {
	tree.Node // as it is now; of a directory the metadata only

	// changed is set when the object did not come from the base, or differs from what the base has.
	changed bool

	path string // where the base has it, if it came from there

	// The rest is for directories. kids says what is known of the names in it; a name that is not there shows through
	// from below, which is nil when nothing does. In a directory of the base names are looked up through work.base.
	kids   map[string]slot
	below  *tree.Node
	inBase bool
}

// slot is what is known of a name: what stands there now (nil for nothing), and whether the base has the name too.
type slot struct {
	ino    *inode
	hidden bool
}

func newWork(input int, b base, root *tree.Node, now int64) *work {
	w := &work{input: input, base: b, now: now}
	if input < 0 {
		w.root = &inode{Node: tree.Node{Kind: tree.Dir, Meta: tree.Meta{Mode: 0o755, MTime: now}}}
		return w
	}
	w.root = baseInode(root, "")
	return w
}

func baseInode(n *tree.Node, path string) *inode {
	ino := &inode{Node: *n, path: path}
	ino.Group = 0 // a change to one name of a base's file copies it up alone, as overlayfs does
	if n.Kind == tree.Dir {
		ino.below, ino.inBase = n, true
	}
	return ino
}

// freshInode makes an inode of a node that is new to the work: a directory brings what it holds with it. Nothing below n
// may have a Group.
func freshInode(n *tree.Node) *inode {
	ino := &inode{Node: *n, changed: true}
	ino.Group = 0
	if n.Kind == tree.Dir {
		ino.below = n
	}
	return ino
}

// child looks a name up in a directory.
func (w *work) child(dir *inode, name string) (*inode, error) {
	if s, ok := dir.kids[name]; ok {
		return s.ino, nil
	}
	if dir.below == nil {
		return nil, nil
	}
	var s slot
	if dir.inBase {
		path := tree.Join(dir.path, name)
		n, err := w.base.lookup(dir.below, name, path)
		if err != nil {
			return nil, err
		}
		if n != nil {
			s = slot{ino: baseInode(n, path), hidden: true}
		}
	} else {
		n, err := dir.below.Lookup(name)
		if err != nil || n == nil {
			return nil, err
		}
		s.ino = freshInode(n)
	}
	dir.set(name, s)
	return s.ino, nil
}

func (d *inode) set(name string, s slot) {
	if d.kids == nil {
		d.kids = map[string]slot{}
	}
	d.kids[name] = s
}

// put makes name in dir stand for ino, or for nothing if ino is nil. The name has been looked up before.
func (w *work) put(dir *inode, name string, ino *inode) {
	s := dir.kids[name]
	s.ino = ino
	dir.set(name, s)
	dir.changed = true
	dir.MTime = w.now
}

// names lists a directory, sorted.
func (w *work) names(dir *inode) ([]string, error) {
	var all []string
	switch {
	case dir.inBase:
		list, err := w.base.list(dir.below, dir.path)
		if err != nil {
			return nil, err
		}
		all = slices.Clone(list)
	case dir.below != nil:
		entries, err := dir.below.Entries()
		if err != nil {
			return nil, err
		}
		for _, e := range entries {
			all = append(all, e.Name)
		}
	}
	all = slices.DeleteFunc(all, func(name string) bool {
		_, known := dir.kids[name]
		return known
	})
	for name, s := range dir.kids {
		if s.ino != nil {
			all = append(all, name)
		}
	}
	sort.Strings(all)
	return all, nil
}

// clone copies a work, so that two actions can go on from it.
func (w *work) clone() *work {
	c := *w
	seen := map[*inode]*inode{}
	c.root = cloneInode(w.root, seen)
	return &c
}

func cloneInode(ino *inode, seen map[*inode]*inode) *inode {
	if ino == nil {
		return nil
	}
	if c, ok := seen[ino]; ok {
		return c
	}
	c := *ino
	seen[ino] = &c
	c.kids = maps.Clone(ino.kids)
	for name, s := range c.kids {
		s.ino = cloneInode(s.ino, seen)
		c.kids[name] = s
	}
	return &c
}

// layer gives what was changed as a layer tree: the changed objects, the directories above them with the metadata
// that they have, Whiteouts for what is gone, and Opaque on a directory that took the place of something.
func (w *work) layer() (*tree.Node, error) {
	f := &freezer{names: map[*inode]int{}, groups: map[*inode]uint64{}}
	f.count(w.root)
	entries, err := f.entries(w.root)
	if err != nil {
		return nil, err
	}
	return tree.NewDir(w.root.Meta, false, entries)
}

type freezer struct {
	names  map[*inode]int    // of files
	groups map[*inode]uint64 // of files with several names
}

func (f *freezer) count(dir *inode) {
	for _, s := range dir.kids {
		switch {
		case s.ino == nil:
		case s.ino.Kind == tree.Dir:
			f.count(s.ino)
		case s.ino.changed:
			f.names[s.ino]++
		}
	}
}

func (f *freezer) entries(dir *inode) ([]tree.Entry, error) {
	var out []tree.Entry
	if dir.below != nil && !dir.inBase {
		entries, err := dir.below.Entries()
		if err != nil {
			return nil, err
		}
		for _, e := range entries {
			if _, known := dir.kids[e.Name]; !known {
				out = append(out, e)
			}
		}
	}
	for name, s := range dir.kids {
		n, err := f.node(s)
		if err != nil {
			return nil, err
		}
		if n != nil {
			out = append(out, tree.Entry{Name: name, Node: n})
		}
	}
	return out, nil
}

var whiteout = &tree.Node{Kind: tree.Whiteout}

// node gives what stands in the layer for a name, nil for nothing.
func (f *freezer) node(s slot) (*tree.Node, error) {
	ino := s.ino
	switch {
	case ino == nil && s.hidden:
		return whiteout, nil
	case ino == nil:
		return nil, nil
	case ino.Kind != tree.Dir:
		if !ino.changed {
			return nil, nil
		}
		n := ino.Node
		if f.names[ino] > 1 && ino.Kind == tree.File {
			if f.groups[ino] == 0 {
				f.groups[ino] = tree.NewGroup()
			}
			n.Group = f.groups[ino]
		}
		return &n, nil
	case !ino.inBase && len(ino.kids) == 0 && ino.below != nil && !ino.below.Implied:
		return ino.below.WithMeta(ino.Meta).WithOpaque(s.hidden), nil
	}
	entries, err := f.entries(ino)
	if err != nil || ino.inBase && len(entries) == 0 && !ino.changed {
		return nil, err
	}
	return tree.NewDir(ino.Meta, s.hidden && !ino.inBase, entries)
}

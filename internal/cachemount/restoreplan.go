package cachemount

import (
	"crypto/sha256"
	"fmt"
	"hash"
	"slices"
	"sync"

	"larder/internal/generation"
	"larder/internal/key"
	"larder/internal/pack"
	"larder/internal/tree"
)

// plan is a generation as Restore goes about it: checked, directories by level, contents by piece.
type plan struct {
	levels  [][]*folder // directories by their depth; the first level is the root alone
	pieces  []pack.Piece
	uses    [][]use // of each piece
	objects int     // files, links, devices and fifos, each once
}

// folder is a directory to make.
type folder struct {
	path   string
	node   *tree.Node
	subs   []*folder
	others []*object // what has no contents to wait for
	links  []another
	linked []*object // what has further names
}

// object is a file, link, device or fifo to make.
type object struct {
	in     *folder
	name   string
	node   *tree.Node
	number int  // among the objects
	absent bool // a device that this machine does not let us make
}

func (o *object) path() string { return tree.Join(o.in.path, o.name) }

// another is a further name of an object.
type another struct {
	name string
	of   *object
}

// content is the bytes of one or several files.
type content struct {
	digest key.Digest
	size   int64
	places []*object
	parts  *parts // nil for one piece
}

// use is a place of a piece in a content.
type use struct {
	*content
	part int
}

// parts is what has arrived of a content of several pieces.
type parts struct {
	off []int64 // where each part begins, and the size

	mu      sync.Mutex
	made    bool // the files are there
	there   []bool
	hashed  int // parts
	hashing bool
	sum     hash.Hash
}

type planner struct {
	g        *generation.Generation
	plan     *plan
	groups   map[uint64]*object
	contents map[key.Digest]*content
	numbers  map[key.Digest]int // of pieces
	entries  int
}

// planOf reads a generation, of which nothing is trusted: what is wrong with it wraps tree.ErrDamaged.
func planOf(g *generation.Generation) (*plan, error) {
	if g.Tree.Kind != tree.Dir || g.Tree.IsLayer() {
		return nil, fmt.Errorf("it is no directory: %w", tree.ErrDamaged)
	}
	p := &planner{
		g: g, plan: &plan{}, groups: map[uint64]*object{}, contents: map[key.Digest]*content{}, numbers: map[key.Digest]int{},
	}
	for level := []*folder{{node: g.Tree}}; len(level) > 0; {
		p.plan.levels = append(p.plan.levels, level)
		var below []*folder
		for _, d := range level {
			if err := p.folder(d); err != nil {
				return nil, err
			}
			below = append(below, d.subs...)
		}
		level = below
	}
	return p.plan, nil
}

func (p *planner) folder(d *folder) error {
	entries, err := d.node.Entries()
	if err != nil {
		return fmt.Errorf("/%s: %w", d.path, err)
	}
	if p.entries += len(entries); p.entries > maxEntries {
		return fmt.Errorf("it has more than %d entries: %w", maxEntries, tree.ErrDamaged)
	}
	for _, e := range entries {
		switch {
		case len(d.path)+1+len(e.Name) > maxPath:
			err = fmt.Errorf("its path has more than %d bytes: %w", maxPath, tree.ErrDamaged)
		case e.Node.Kind == tree.Dir:
			d.subs = append(d.subs, &folder{path: tree.Join(d.path, e.Name), node: e.Node})
		default:
			err = p.object(d, e.Name, e.Node)
		}
		if err != nil {
			return fmt.Errorf("/%s: %w", tree.Join(d.path, e.Name), err)
		}
	}
	return nil
}

func (p *planner) object(d *folder, name string, n *tree.Node) error {
	if n.Group != 0 {
		if first := p.groups[n.Group]; first != nil {
			if !sameObject(first.node, n) {
				return fmt.Errorf("it is not like /%s, whose hard link it should be: %w", first.path(), tree.ErrDamaged)
			}
			d.links = append(d.links, another{name, first})
			if k := len(first.in.linked); k == 0 || first.in.linked[k-1] != first {
				first.in.linked = append(first.in.linked, first)
			}
			return nil
		}
	}
	o := &object{in: d, name: name, node: n, number: p.plan.objects}
	p.plan.objects++
	if n.Group != 0 {
		p.groups[n.Group] = o
	}
	switch n.Kind {
	case tree.File:
		if n.Size > 0 {
			return p.file(o)
		}
		if n.Size < 0 || n.Content != key.Bytes(nil) {
			return fmt.Errorf("its size is not that of its contents: %w", tree.ErrDamaged)
		}
	case tree.Symlink, tree.Char, tree.Block, tree.Fifo:
	default:
		return fmt.Errorf("a %s cannot be restored: %w", n.Kind, tree.ErrDamaged)
	}
	d.others = append(d.others, o)
	return nil
}

// file sees to the contents of a file that is not empty.
func (p *planner) file(o *object) error {
	if c := p.contents[o.node.Content]; c != nil {
		if c.size != o.node.Size {
			return fmt.Errorf("its size is not that of its contents: %w", tree.ErrDamaged)
		}
		c.places = append(c.places, o)
		return nil
	}
	c := &content{digest: o.node.Content, size: o.node.Size, places: []*object{o}}
	p.contents[c.digest] = c
	pieces := p.g.Pieces[c.digest]
	if len(pieces) == 0 {
		return fmt.Errorf("nothing says where its contents are: %w", tree.ErrDamaged)
	}
	off := make([]int64, 1, len(pieces)+1)
	for i, piece := range pieces {
		at := off[i]
		if piece.Size <= 0 || piece.Size > c.size-at {
			return fmt.Errorf("its pieces are not as long as it is: %w", tree.ErrDamaged)
		}
		off = append(off, at+piece.Size)
		number, ok := p.numbers[piece.Digest]
		if !ok {
			number = len(p.plan.pieces)
			p.numbers[piece.Digest] = number
			p.plan.pieces = append(p.plan.pieces, piece)
			p.plan.uses = append(p.plan.uses, nil)
		} else if p.plan.pieces[number].Size != piece.Size {
			return fmt.Errorf("one piece has two sizes: %w", tree.ErrDamaged)
		}
		p.plan.uses[number] = append(p.plan.uses[number], use{c, i})
	}
	switch {
	case off[len(pieces)] != c.size:
		return fmt.Errorf("its pieces are not as long as it is: %w", tree.ErrDamaged)
	case len(pieces) > 1:
		c.parts = &parts{off: off, there: make([]bool, len(pieces)), sum: sha256.New()}
	case pieces[0].Digest != c.digest:
		return fmt.Errorf("its only piece is something else: %w", tree.ErrDamaged)
	}
	return nil
}

// sameObject compares two nodes that are no directories in all that one inode has.
func sameObject(a, b *tree.Node) bool {
	return a.Kind == b.Kind && a.Mode == b.Mode && a.UID == b.UID && a.GID == b.GID && a.MTime == b.MTime && a.Size == b.Size &&
		a.Content == b.Content && a.Link == b.Link && a.Rdev == b.Rdev && sameXattrs(a.Xattrs, b.Xattrs)
}

func sameXattrs(a, b []tree.Xattr) bool {
	return slices.EqualFunc(a, b, func(x, y tree.Xattr) bool { return x.Name == y.Name && string(x.Value) == string(y.Value) })
}

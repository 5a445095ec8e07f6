package observation

import (
	"cmp"
	"slices"
	"strings"

	"larder/internal/tree"
)

// Reduce gives looks that say at least as much with fewer paths: any tree that gives the values that root gives to these also gives
// those that root gives to looks. root is the tree that was looked at. The result is sorted, with one look for a path.
//
// What others say already is left out: what is below a Whole, or known to be absent by what is known of a directory above. A
// directory of which everything was looked at becomes a Whole. As long as there are more than most (at least 1), further directories
// become a Whole, those first that add the fewest objects for each path that they spare; so do those above a path of more than 4096
// bytes. The error is that of fetching a directory, or says which look is none.
func Reduce(looks []Look, root *tree.Node, most int) ([]Look, error) {
	root, err := served(root)
	if err != nil {
		return nil, err
	}
	r, err := grow(looks, root)
	if err != nil {
		return nil, err
	}
	if err := r.prune(); err != nil {
		return nil, err
	}
	if r.looks > most {
		if err := coarsen(r, most); err != nil {
			return nil, err
		}
	}
	out := r.collect(make([]Look, 0, r.looks))
	slices.SortFunc(out, func(a, b Look) int { return strings.Compare(a.Path, b.Path) })
	return out, nil
}

// place is a path that was looked at, or leads to one. Places form a tree, whose branches are in the order of tree.Entries.
type place struct {
	finger
	path  string
	kind  Kind // 0 where only the way leads through
	above *place
	below []*place

	full  bool // nothing of what is here and below was not looked at
	looks int  // how many there are here and below
	news  int  // how many objects here and below a Whole would see that nobody looked at; set by coarsen
}

// grow makes the places of looks.
func grow(looks []Look, root *tree.Node) (*place, error) {
	sorted := make([]Look, len(looks))
	for i, l := range looks {
		if len(l.Path) > maxPath {
			l = Look{l.Path[:max(0, strings.LastIndexByte(l.Path[:maxPath+1], '/'))], Whole}
		}
		if err := l.check(); err != nil {
			return nil, err
		}
		sorted[i] = l
	}
	slices.SortFunc(sorted, func(a, b Look) int { return compareDeep(a.Path, b.Path) })
	top := &place{finger: finger{node: root}}
	at := top
	for _, l := range sorted {
		for !at.leadsTo(l.Path) {
			at = at.above
		}
		for at.path != l.Path {
			var err error
			if at, err = at.branch(l.Path); err != nil {
				return nil, err
			}
		}
		at.kind |= l.Kind
	}
	return top, nil
}

// compareDeep orders paths so that what is below a directory follows it at once.
func compareDeep(a, b string) int {
	i := commonPrefix(a, b)
	switch {
	case i == len(a) || i == len(b):
		return cmp.Compare(len(a), len(b))
	case a[i] == '/':
		return -1
	case b[i] == '/':
		return 1
	}
	return cmp.Compare(a[i], b[i])
}

// leadsTo reports whether path is p's or below it.
func (p *place) leadsTo(path string) bool {
	return p.path == "" || strings.HasPrefix(path, p.path) && (len(path) == len(p.path) || path[len(p.path)] == '/')
}

// branch gives the next place on the way to path, which is below p.
func (p *place) branch(path string) (*place, error) {
	from := len(p.path)
	if from > 0 {
		from++
	}
	end := len(path)
	if i := strings.IndexByte(path[from:], '/'); i >= 0 {
		end = from + i
	}
	n, err := p.child(path[from:end])
	if err != nil {
		return nil, err
	}
	c := &place{finger: finger{node: n}, path: path[:end], above: p}
	p.below = append(p.below, c)
	return c, nil
}

func (p *place) name() string { return p.path[strings.LastIndexByte(p.path, '/')+1:] }

func (p *place) isDir() bool { return p.node != nil && p.node.Kind == tree.Dir }

// listed reports whether all names of the directory are known, and of what kind each is.
func (p *place) listed() bool { return p.kind&List != 0 && p.isDir() }

// prune leaves out what is said already, makes a Whole of what was looked at as a whole, and counts.
func (p *place) prune() error {
	switch {
	case p.kind&Whole != 0:
		p.kind, p.below = Whole, nil
	case p.isDir():
		if p.listed() {
			p.below = slices.DeleteFunc(p.below, func(c *place) bool { return c.node == nil })
		}
	case p.kind&(Entry|List) != 0 || p.above != nil && p.above.listed():
		p.below = nil // it is known to be no directory
	}
	p.looks = 0
	if p.kind != 0 {
		p.looks = 1
	}
	for _, c := range p.below {
		if err := c.prune(); err != nil {
			return err
		}
		p.looks += c.looks
	}
	var err error
	if p.full, err = p.isFull(); err == nil && p.full && p.looks > 1 {
		p.kind, p.below, p.looks = Whole, nil, 1
	}
	return err
}

func (p *place) isFull() (bool, error) {
	if p.kind == Whole {
		return true, nil
	}
	if !p.seen() || !p.isDir() {
		return p.seen(), nil
	}
	entries, err := p.node.Entries()
	if err != nil {
		return false, err
	}
	below := p.below
	for _, e := range entries {
		for len(below) > 0 && below[0].name() < e.Name {
			below = below[1:]
		}
		if e.Node.Kind == tree.Whiteout { // of which the listing tells all
			continue
		}
		if len(below) == 0 || below[0].name() != e.Name || !below[0].full {
			return false, nil
		}
	}
	return true, nil
}

// seen reports whether everything of the object itself was looked at.
func (p *place) seen() bool {
	want := Entry
	if p.isDir() {
		want |= List
	}
	return p.kind == Whole || p.kind&want == want
}

// collect appends the looks here and below.
func (p *place) collect(out []Look) []Look {
	if p.kind != 0 {
		out = append(out, Look{p.path, p.kind})
	}
	for _, c := range p.below {
		out = c.collect(out)
	}
	return out
}

package generation

import (
	"cmp"
	"slices"

	"larder/internal/key"
	"larder/internal/layout"
	"larder/internal/pack"
	"larder/internal/tree"
)

// Limits say how much of a mount stays.
type Limits struct {
	Builds int   // what none of so many builds used goes; 0: never
	Size   int64 // bytes of files, each name of a file counted; what was used least lately goes until the rest fits; 0: no bound
}

// Trim leaves out of g what limits do not allow, whole units at a time (layout.Layout). First go those that were idle for too many builds.
// While the rest is too large, the ones that were idle longest go: of those the ones that lead to others first, then the larger ones, then in
// the order of their names. What the last build used only goes when it does not fit by itself. Directories that become empty go too.
//
// dropped lists the files and directories that next lacks, what is in a directory before the directory itself. Directories that stay keep
// their times in next, which is g where nothing goes.
func Trim(g *Generation, l layout.Layout, lim Limits) (next *Generation, dropped []string, err error) {
	units, total, err := unitsOf(g, l)
	if err != nil {
		return nil, nil, err
	}
	gone := map[string]bool{}
	for _, u := range units {
		idleTooLong := lim.Builds > 0 && u.idle >= lim.Builds
		tooLarge := lim.Size > 0 && total > lim.Size
		if idleTooLong || tooLarge {
			gone[u.name] = true
			total -= u.size
		}
	}
	if len(gone) == 0 {
		return g, nil, nil
	}
	t := &trimmer{layout: l, gone: gone}
	root, _, err := t.dir("", g.Tree)
	if err != nil {
		return nil, nil, err
	}
	slices.Reverse(t.dropped)
	next = &Generation{Tree: root, Pieces: map[key.Digest][]pack.Piece{}, Idle: map[string]int{}, Ledger: g.Ledger}
	err = pair(root, nil, func(path []byte, n, _ *tree.Node) error {
		if count := g.Idle[string(path)]; count > 0 {
			next.Idle[string(path)] = count
		}
		if pieces, have := g.Pieces[n.Content]; have && n.Kind == tree.File {
			next.Pieces[n.Content] = pieces
		}
		return nil
	})
	return next, t.dropped, err
}

// unit is what goes together.
type unit struct {
	name  string
	idle  int   // builds, of the file that was used last
	size  int64 // bytes
	leads bool
}

// unitsOf lists what may go, in the order in which it does, and the size of all files.
func unitsOf(g *Generation, l layout.Layout) (units []*unit, total int64, err error) {
	byName := map[string]*unit{}
	err = pair(g.Tree, nil, func(path []byte, n, _ *tree.Node) error {
		p := string(path)
		total += n.Size
		if l.Keep(p) {
			return nil
		}
		u := byName[l.Unit(p)]
		if u == nil {
			u = &unit{name: l.Unit(p), idle: g.Idle[p]}
			byName[u.name] = u
			units = append(units, u)
		}
		u.idle = min(u.idle, g.Idle[p])
		u.size += n.Size
		u.leads = u.leads || l.Leads(p)
		return nil
	})
	slices.SortFunc(units, func(a, b *unit) int {
		return cmp.Or(-cmp.Compare(a.idle, b.idle), compareBool(b.leads, a.leads), -cmp.Compare(a.size, b.size), cmp.Compare(a.name, b.name))
	})
	return units, total, err
}

// compareBool puts false before true.
func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return 1
	}
	return -1
}

type trimmer struct {
	layout  layout.Layout
	gone    map[string]bool // units, by name
	dropped []string        // a directory before what is in it, and names in falling order
}

// dir gives what stays of a directory, nil when it goes itself.
func (t *trimmer) dir(path string, n *tree.Node) (left *tree.Node, changed bool, err error) {
	was, err := n.Entries()
	if err != nil {
		return nil, false, err
	}
	from := len(t.dropped)
	kept := make([]tree.Entry, 0, len(was))
	for _, e := range slices.Backward(was) {
		child := tree.Join(path, e.Name)
		c, differs := e.Node, false
		if c.Kind == tree.Dir {
			if c, differs, err = t.dir(child, c); err != nil {
				return nil, false, err
			}
		} else if t.gone[t.layout.Unit(child)] && !t.layout.Keep(child) {
			t.dropped = append(t.dropped, child)
			c, differs = nil, true
		}
		changed = changed || differs
		if c != nil {
			kept = append(kept, tree.Entry{Name: e.Name, Node: c})
		}
	}
	if path != "" && len(kept) == 0 && (changed || t.gone[t.layout.Unit(path)]) {
		t.dropped = slices.Insert(t.dropped, from, path)
		return nil, true, nil
	}
	if !changed {
		return n, false, nil
	}
	slices.Reverse(kept)
	left, err = tree.NewDir(n.Meta, false, kept)
	return left, true, err
}

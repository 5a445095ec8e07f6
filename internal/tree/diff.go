package tree

import (
	"slices"
	"strings"
)

// Diff gives the layer tree that makes upper of lower, both merged trees: Apply(lower, Diff(lower, upper)) is upper, mtimes
// and hard links included. What is equal is left out; its directories are not looked into where both trees share them.
func Diff(lower, upper *Node) (*Node, error) {
	d := &differ{}
	if lower.HasGroups() || upper.HasGroups() {
		var err error
		if d.relinked, err = relinked(lower, upper); err != nil {
			return nil, err
		}
	}
	entries, err := d.dir("", lower, upper)
	if err != nil {
		return nil, err
	}
	return NewDir(upper.Meta, false, entries)
}

// Equal tells whether two merged trees are the same, mtimes and hard links included.
func Equal(a, b *Node) (bool, error) {
	diff, err := Diff(a, b)
	if err != nil {
		return false, err
	}
	entries, err := diff.Entries()
	return err == nil && len(entries) == 0 && a.Self() == b.Self() && a.MTime == b.MTime, err
}

type differ struct {
	// relinked holds the paths of upper that must be written although the file is the same, for the sake of hard links.
	relinked map[string]bool
}

func (d *differ) dir(path string, lower, upper *Node) ([]Entry, error) {
	below, err := lower.Entries()
	if err != nil {
		return nil, err
	}
	top, err := upper.Entries()
	if err != nil {
		return nil, err
	}
	var out []Entry
	for len(below) > 0 || len(top) > 0 {
		switch {
		case len(top) == 0 || len(below) > 0 && below[0].Name < top[0].Name:
			out = append(out, Entry{below[0].Name, whiteout})
			below = below[1:]
		case len(below) == 0 || top[0].Name < below[0].Name:
			out = append(out, top[0])
			top = top[1:]
		default:
			n, err := d.node(Join(path, top[0].Name), below[0].Node, top[0].Node)
			if err != nil {
				return nil, err
			}
			if n != nil {
				out = append(out, Entry{top[0].Name, n})
			}
			below, top = below[1:], top[1:]
		}
	}
	return out, nil
}

// node gives what stands for a name that both have, nil for nothing.
func (d *differ) node(path string, lower, upper *Node) (*Node, error) {
	if lower.Kind != Dir || upper.Kind != Dir {
		if !d.relinked[path] && same(lower, upper) {
			return nil, nil
		}
		return upper, nil
	}
	if lower.dir == upper.dir && (len(d.relinked) == 0 || !upper.HasGroups()) {
		if same(lower, upper) {
			return nil, nil
		}
		return &Node{Kind: Dir, Meta: upper.Meta, dir: &dirData{}}, nil
	}
	entries, err := d.dir(path, lower, upper)
	if err != nil || len(entries) == 0 && same(lower, upper) {
		return nil, err
	}
	return NewDir(upper.Meta, false, entries)
}

// same compares two nodes alone, mtime included.
func same(a, b *Node) bool { return a.MTime == b.MTime && a.Self() == b.Self() }

// relinked finds the files whose set of names is another in upper than in lower, or one of whose names differs: a layer
// can only say such a thing by holding all names of the file.
func relinked(lower, upper *Node) (map[string]bool, error) {
	old, oldFiles, err := linkSets(lower)
	if err != nil {
		return nil, err
	}
	now, nowFiles, err := linkSets(upper)
	if err != nil {
		return nil, err
	}
	out := map[string]bool{}
	mark := func(set []string) {
		for _, p := range set {
			out[p] = true
		}
	}
	for first, set := range now {
		differs := func(p string) bool { return !same(oldFiles[p], nowFiles[p]) }
		if !slices.Equal(set, old[first]) || slices.ContainsFunc(set, differs) {
			mark(set)
		}
	}
	for first, set := range old {
		if !slices.Equal(set, now[first]) {
			mark(set)
		}
	}
	return out, nil
}

// linkSets gives the sets of Links by their first path, and the files in them by path.
func linkSets(root *Node) (map[string][]string, map[string]*Node, error) {
	links, err := root.Links()
	if err != nil {
		return nil, nil, err
	}
	sets, files := map[string][]string{}, map[string]*Node{}
	for _, set := range links {
		sets[set[0]] = set
		for _, p := range set {
			n := root
			for name := range strings.SplitSeq(p, "/") {
				if n, err = n.Lookup(name); err != nil {
					return nil, nil, err
				}
			}
			files[p] = n
		}
	}
	return sets, files, nil
}

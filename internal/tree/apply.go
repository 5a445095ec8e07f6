package tree

import "strings"

// Apply lays upper, a layer tree, over lower, a merged one, as overlayfs does: a Whiteout takes a name away, an Opaque
// directory hides what lower has there, two directories merge under upper's metadata, anything else replaces. The result
// holds no Whiteout and no Opaque mark and shares what it can with both. lower may be nil or no directory; upper
// is a directory.
func Apply(lower, upper *Node) (*Node, error) {
	if upper.Kind != Dir || upper.Opaque || lower == nil || lower.Kind != Dir {
		return strip(upper)
	}
	top, err := upper.Entries()
	if err != nil {
		return nil, err
	}
	like := upper
	if upper.Implied {
		like = lower
	}
	if len(top) == 0 {
		c := *like
		c.dir, c.Opaque, c.Implied = lower.dir, false, false
		return &c, nil
	}
	below, err := lower.Entries()
	if err != nil {
		return nil, err
	}
	out := make([]Entry, 0, len(top)+len(below))
	for len(top) > 0 && len(below) > 0 {
		switch c := strings.Compare(below[0].Name, top[0].Name); {
		case c < 0:
			out = append(out, below[0])
			below = below[1:]
		case c > 0:
			if out, err = appendStripped(out, top[0]); err != nil {
				return nil, err
			}
			top = top[1:]
		default:
			if top[0].Node.Kind != Whiteout {
				n, err := Apply(below[0].Node, top[0].Node)
				if err != nil {
					return nil, err
				}
				out = append(out, Entry{top[0].Name, n})
			}
			below, top = below[1:], top[1:]
		}
	}
	out = append(out, below...)
	for _, e := range top {
		if out, err = appendStripped(out, e); err != nil {
			return nil, err
		}
	}
	return newSorted(like, out), nil
}

// strip takes Whiteouts and Opaque marks out of a tree that has nothing below it.
func strip(n *Node) (*Node, error) {
	if !n.IsLayer() {
		return n, nil
	}
	entries, err := n.Entries()
	if err != nil {
		return nil, err
	}
	out := make([]Entry, 0, len(entries))
	for _, e := range entries {
		if out, err = appendStripped(out, e); err != nil {
			return nil, err
		}
	}
	return newSorted(n, out), nil
}

func appendStripped(out []Entry, e Entry) ([]Entry, error) {
	if e.Node.Kind == Whiteout {
		return out, nil
	}
	n, err := strip(e.Node)
	if err != nil {
		return nil, err
	}
	return append(out, Entry{e.Name, n}), nil
}

// newSorted makes a directory with like's metadata, not opaque, of entries that are sorted and have good names.
func newSorted(like *Node, entries []Entry) *Node {
	d := &dirData{entries: entries}
	for _, e := range entries {
		d.marks |= e.Node.marks()
	}
	return &Node{Kind: Dir, Meta: like.Meta, dir: d}
}

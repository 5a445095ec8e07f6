package tree

import "strings"

// Compose makes one layer tree of two, upper lying over lower: laid over any merged tree by Apply, it gives what lower and then
// upper give. What one of them alone has is shared, not copied; so are directories to which upper adds nothing. Where a directory of
// the result hides what is below for a reason that neither layer had alone (a directory in place of a file, of a name that was
// whited out, over an opaque one), it is Opaque and holds no further marks. Both are directories.
func Compose(lower, upper *Node) (*Node, error) {
	switch {
	case upper.Kind != Dir || upper.Opaque:
		return upper, nil
	case lower.Kind != Dir: // also a Whiteout: what is below shall not shine through
		return hiding(upper)
	case lower.dir == upper.dir: // a layer over itself adds nothing
		return composedDir(lower, upper, upper.dir), nil
	}
	top, err := upper.Entries()
	if err != nil {
		return nil, err
	}
	if len(top) == 0 {
		return composedDir(lower, upper, lower.dir), nil
	}
	if lower.Opaque { // the base is out of the question, so it is a merged tree
		base, err := strip(lower)
		if err != nil {
			return nil, err
		}
		merged, err := Apply(base, upper)
		if err != nil {
			return nil, err
		}
		return merged.WithOpaque(true), nil
	}
	below, err := lower.Entries()
	if err != nil {
		return nil, err
	}
	if len(below) == 0 {
		return composedDir(lower, upper, upper.dir), nil
	}
	out := make([]Entry, 0, len(top)+len(below))
	for len(top) > 0 && len(below) > 0 {
		switch c := strings.Compare(below[0].Name, top[0].Name); {
		case c < 0:
			out = append(out, below[0])
			below = below[1:]
		case c > 0:
			out = append(out, top[0])
			top = top[1:]
		default:
			n, err := Compose(below[0].Node, top[0].Node)
			if err != nil {
				return nil, err
			}
			out = append(out, Entry{top[0].Name, n})
			below, top = below[1:], top[1:]
		}
	}
	out = append(append(out, below...), top...)
	return composedDir(lower, upper, newSorted(lower, out).dir), nil
}

// composedDir gives two directories of one path as one that lists d.
func composedDir(lower, upper *Node, d *dirData) *Node {
	like := upper
	if upper.Implied {
		like = lower
	}
	if like.dir == d && like.Opaque == lower.Opaque {
		return like
	}
	c := *like
	c.dir, c.Opaque = d, lower.Opaque
	return &c
}

// hiding gives a directory of a layer as one that hides what is below it.
func hiding(n *Node) (*Node, error) {
	n, err := strip(n)
	if err != nil {
		return nil, err
	}
	return n.WithOpaque(true), nil
}

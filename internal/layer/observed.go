package layer

import (
	"context"
	"errors"

	"larder/internal/tree"
)

// maxMadeFiles and maxMadeBytes bound what a RUN may have made for its files to count among those that Observed gives. What is larger
// was installed, not generated.
const (
	maxMadeFiles = 5000
	maxMadeBytes = 64 << 20
)

// Observed gives the part of the state's merged tree that comes from observed layers, and from small ones that a RUN made: what the
// topmost layer that says anything of a path brought, where that layer is one. Directories that only lead there, or hold something else as well, are marked as Implied; they,
// like everything, have the merged tree's metadata. Parts of the merged tree that are all observed are shared with it.
func (s *State) Observed(ctx context.Context) (*tree.Node, error) {
	merged, err := s.Merged(ctx)
	if err != nil {
		return nil, err
	}
	var stack []brought
	for ; s != nil; s = s.parent {
		root, err := s.top.Tree(ctx)
		if err != nil {
			return nil, err
		}
		observed := !s.top.Pinned
		if !observed && s.top.Blob == nil { // of no base image
			if observed, err = isSmall(root); err != nil {
				return nil, err
			}
		}
		stack = append(stack, brought{root, observed})
		if root.Opaque {
			break
		}
	}
	root, err := observedDir(merged, stack)
	if err != nil || root != nil {
		return root, err
	}
	root, err = tree.NewDir(merged.Meta, false, nil)
	if err == nil {
		root.Implied = true
	}
	return root, err
}

func isSmall(root *tree.Node) (bool, error) {
	files, size := 0, int64(0)
	err := tree.Walk(root, func(_ string, n *tree.Node) error {
		files++
		if size += n.Size; files > maxMadeFiles || size > maxMadeBytes {
			return errLarge
		}
		return nil
	})
	if errors.Is(err, errLarge) {
		return false, nil
	}
	return err == nil, err
}

var errLarge = errors.New("a large layer")

// brought is what one layer has at a path.
type brought struct {
	node     *tree.Node
	observed bool
}

// observedDir gives the observed part of a directory, nil for none. stack has the directories that make it up, the topmost first.
func observedDir(merged *tree.Node, stack []brought) (*tree.Node, error) {
	all, any := true, false
	for _, b := range stack {
		all, any = all && b.observed, any || b.observed
	}
	if !any {
		return nil, nil
	}
	entries, err := merged.Entries()
	if all || err != nil {
		return merged, err
	}
	var out []tree.Entry
	for _, e := range entries {
		n, err := observedEntry(e, stack)
		if err != nil {
			return nil, err
		}
		if n != nil {
			out = append(out, tree.Entry{Name: e.Name, Node: n})
		}
	}
	own := len(out) == len(entries) && ownDir(stack)
	if len(out) == 0 && !own {
		return nil, nil
	}
	d, err := tree.NewDir(merged.Meta, false, out)
	if err != nil {
		return nil, err
	}
	d.Implied = !own
	return d, nil
}

func observedEntry(e tree.Entry, stack []brought) (*tree.Node, error) {
	var below []brought
	for _, b := range stack {
		n, err := b.node.Lookup(e.Name)
		if err != nil {
			return nil, err
		}
		switch {
		case n == nil:
			continue
		case n.Kind != tree.Dir && len(below) == 0 && b.observed:
			return e.Node, nil
		case n.Kind != tree.Dir && len(below) == 0:
			return nil, nil
		case n.Kind == tree.Dir:
			below = append(below, brought{n, b.observed})
		}
		if n.Kind != tree.Dir || n.Opaque {
			break // hides what lies below
		}
	}
	return observedDir(e.Node, below)
}

// ownDir tells whether a directory's metadata comes from an observed layer.
func ownDir(stack []brought) bool {
	for _, b := range stack {
		if !b.node.Implied {
			return b.observed
		}
	}
	return false
}

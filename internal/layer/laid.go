package layer

import (
	"context"
	"fmt"

	"larder/internal/tree"
)

// Laid deals out what is laid over a state with other times: over is a merged tree that differs from the state's in times only, holds
// some of its files, links and directories with what leads there, and has all names of a file with several or none. There is one tree
// for each of the state's Groups:
//   - of a pinned group, those of over's files and links that the step sees of it, and the directories whose times it sees of it, with what
//     leads there, all as over has them; nil where there are none. It is to lie right above the group.
//   - of an observed group, its Root with the times of these; Root itself where that changes nothing. It is to be served in Root's place.
//
// What several groups have, the step sees of the topmost. The times of directories are those of the topmost that does not merely
// imply the directory; what is laid over all groups for implied directories (with the merged tree's metadata) needs over's times too, as by tree.Retime.
func (s *State) Laid(ctx context.Context, over *tree.Node) ([]*tree.Node, error) {
	groups, err := s.Groups(ctx)
	if err != nil {
		return nil, err
	}
	parts := make([]*tree.Node, len(groups))
	if over != nil && len(groups) > 0 {
		if parts, err = deal(ctx, groups, over); err != nil {
			return nil, fmt.Errorf("times to show: %w", err)
		}
	}
	for i, g := range groups {
		switch {
		case g.Observed && parts[i] == nil:
			parts[i] = g.Root
		case g.Observed:
			if parts[i], err = tree.Retime(g.Root, parts[i]); err != nil {
				return nil, fmt.Errorf("times to show: %w", err)
			}
		}
	}
	return parts, nil
}

// held is what a layer tree of a group has at a path.
type held struct {
	node  *tree.Node
	group int
}

// deal gives the part of over that is seen of each group, nil where there is none.
func deal(ctx context.Context, groups []Group, over *tree.Node) ([]*tree.Node, error) {
	var stack []held
	for i := len(groups) - 1; i >= 0; i-- {
		g := groups[i]
		if g.Observed {
			stack = append(stack, held{g.Root, i})
			continue
		}
		for j := len(g.Layers) - 1; j >= 0; j-- { // one by one is as good as composed
			root, err := g.Layers[j].Tree(ctx)
			if err != nil {
				return nil, err
			}
			stack = append(stack, held{root, i})
		}
	}
	for i, h := range stack {
		if h.node.Opaque {
			stack = stack[:i+1]
			break
		}
	}
	parts := make([]*tree.Node, len(groups))
	return parts, dealDir("", over, stack, parts)
}

// dealDir deals out a directory of over. stack has the directories that make it up, the topmost first. parts gets what is seen of each group.
func dealDir(path string, over *tree.Node, stack []held, parts []*tree.Node) error {
	entries, err := over.Entries()
	if err != nil {
		return err
	}
	lists := make([][]tree.Entry, len(parts))
	below := make([]*tree.Node, len(parts))
	for _, e := range entries {
		at := tree.Join(path, e.Name)
		found, err := lookup(stack, e.Name)
		if err != nil {
			return err
		}
		if len(found) == 0 || found[0].node.Kind != e.Node.Kind {
			return fmt.Errorf("/%s is not what the layers have there", at)
		}
		if e.Node.Kind != tree.Dir {
			lists[found[0].group] = append(lists[found[0].group], e)
			continue
		}
		clear(below)
		if err := dealDir(at, e.Node, found, below); err != nil {
			return err
		}
		for i, n := range below {
			if n != nil {
				lists[i] = append(lists[i], tree.Entry{Name: e.Name, Node: n})
			}
		}
	}
	owner := datedBy(stack)
	for i, list := range lists {
		if i != owner && len(list) == 0 {
			continue
		}
		if parts[i], err = tree.NewDir(over.Meta, false, list); err != nil {
			return err
		}
	}
	return nil
}

// lookup gives what is seen of a name in directories that lie over each other: the directories that make it up, or the one other thing,
// which may be a whiteout.
func lookup(stack []held, name string) ([]held, error) {
	var found []held
	for _, h := range stack {
		n, err := h.node.Lookup(name)
		if err != nil {
			return nil, err
		}
		if n == nil {
			continue
		}
		if n.Kind != tree.Dir {
			if len(found) == 0 {
				found = append(found, held{n, h.group})
			}
			break
		}
		found = append(found, held{n, h.group})
		if n.Opaque {
			break
		}
	}
	return found, nil
}

// datedBy gives the group that a directory's metadata are seen of.
func datedBy(stack []held) int {
	for _, h := range stack {
		if !h.node.Implied {
			return h.group
		}
	}
	return stack[len(stack)-1].group
}

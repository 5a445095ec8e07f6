package snapshot

import (
	"context"
	"fmt"

	"larder/internal/layer"
	"larder/internal/tree"
)

// impliedPatch gives the directories that some layer of a state only implies, with the metadata that they have in the merged file
// system. Overlay would show that of the topmost layer which has the directory, and a layer's own directory on disk has to look like
// something: 755 and root.
func impliedPatch(ctx context.Context, state *layer.State) (*tree.Node, error) {
	merged, err := state.Merged(ctx)
	if err != nil {
		return nil, err
	}
	var trees []*tree.Node
	for _, l := range state.Layers() {
		root, err := l.Tree(ctx)
		if err != nil {
			return nil, err
		}
		trees = append(trees, root)
	}
	patch, err := impliedDirs(merged, trees)
	if err != nil {
		return nil, fmt.Errorf("directories without entries: %w", err)
	}
	return patch, nil
}

// impliedDirs gives, of the directory that merged is and trees have, those parts that some tree implies, and what leads
// there. The result shows a directory's metadata as merged does and holds directories only.
func impliedDirs(merged *tree.Node, trees []*tree.Node) (*tree.Node, error) {
	names := map[string][]*tree.Node{}
	for _, t := range trees {
		entries, err := t.Entries()
		if err != nil {
			return nil, err
		}
		for _, e := range entries {
			if e.Node.Kind == tree.Dir {
				names[e.Name] = append(names[e.Name], e.Node)
			}
		}
	}
	var entries []tree.Entry
	for name, below := range names {
		shown, err := merged.Lookup(name)
		if err != nil {
			return nil, err
		}
		if shown == nil || shown.Kind != tree.Dir {
			continue
		}
		part, err := impliedDirs(shown, below)
		if err != nil {
			return nil, err
		}
		inside, err := part.Entries()
		if err != nil {
			return nil, err
		}
		wanted := len(inside) > 0
		for _, b := range below {
			wanted = wanted || b.Implied
		}
		if wanted {
			entries = append(entries, tree.Entry{Name: name, Node: part})
		}
	}
	return tree.NewDir(merged.Meta, false, entries)
}

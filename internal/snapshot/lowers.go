package snapshot

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"larder/internal/layer"
	"larder/internal/tree"
)

// lowers collects the lower directories of an overlay, the topmost first.
type lowers struct {
	s       *Store
	list    []string
	implied bool // some layer has directories that its tar only implies
}

// add puts the directories of layers, the bottom one first, below what is there. Overlay refuses to stack a directory twice: a layer that
// comes again further down adds nothing, as all that it has, hides and whites out is there in its upper place.
func (o *lowers) add(ctx context.Context, layers []*layer.Layer) error {
	for _, l := range slices.Backward(layers) {
		e, err := o.s.ensure(ctx, l)
		if err != nil {
			return err
		}
		o.implied = o.implied || e.Implied
		if path := e.fs(); !slices.Contains(o.list, path) {
			o.list = append(o.list, path)
		}
	}
	return nil
}

// layerDirs gives the directories of a state's layers, the topmost first, with what is to be shown otherwise laid over them.
func (s *Store) layerDirs(ctx context.Context, state *layer.State, over *tree.Node, dir string) ([]string, error) {
	layers := state.Layers()
	if err := s.Prefetch(ctx, layers); err != nil {
		return nil, err
	}
	o := lowers{s: s}
	if err := o.add(ctx, layers); err != nil {
		return nil, err
	}
	if !o.implied && over == nil {
		return o.list, nil
	}
	patch := filepath.Join(dir, "patch")
	if err := writePatch(ctx, patch, state, o.implied, over, o.list); err != nil {
		return nil, err
	}
	return slices.Insert(o.list, 0, patch), nil
}

// groupDirs is layerDirs where some groups of layers are shown by directories that are there already.
func (s *Store) groupDirs(ctx context.Context, state *layer.State, shown []GroupOptions, over *tree.Node, dir string) ([]string, error) {
	groups, err := state.Groups(ctx)
	if err != nil {
		return nil, err
	}
	if len(groups) != len(shown) {
		return nil, fmt.Errorf("%d groups of layers are to be shown in %d ways", len(groups), len(shown))
	}
	o := lowers{s: s}
	for i, g := range slices.Backward(groups) {
		if shown[i].Dir != "" {
			o.list = append(o.list, shown[i].Dir)
			if !o.implied {
				if o.implied, err = implies(g.Root); err != nil {
					return nil, err
				}
			}
			continue
		}
		above := len(o.list)
		if err := o.add(ctx, g.Layers); err != nil {
			return nil, err
		}
		if shown[i].Over != nil {
			patch := filepath.Join(dir, fmt.Sprint("patch", i))
			if err := writePatch(ctx, patch, nil, false, shown[i].Over, o.list[above:]); err != nil {
				return nil, err
			}
			o.list = slices.Insert(o.list, above, patch)
		}
	}
	if !o.implied {
		return o.list, nil
	}
	root, err := impliedPatch(ctx, state)
	if err == nil && over != nil {
		root, err = tree.Retime(root, over)
	}
	if err != nil {
		return nil, err
	}
	patch := filepath.Join(dir, "patch")
	if err := os.Mkdir(patch, 0o755); err != nil {
		return nil, err
	}
	return slices.Insert(o.list, 0, patch), layer.Materialise(ctx, root, nil, patch)
}

// implies tells whether a tree has directories that some tar only implied.
func implies(root *tree.Node) (bool, error) {
	err := tree.Walk(root, func(_ string, n *tree.Node) error {
		if n.Implied {
			return errImplied
		}
		return nil
	})
	if errors.Is(err, errImplied) {
		return true, nil
	}
	return false, err
}

var errImplied = errors.New("an implied directory")

package snapshot

import (
	"context"
	"errors"
	"io"
	"os"

	"larder/internal/layer"
	"larder/internal/tree"
)

// writePatch writes a lower directory to lie over all others of a state: directories that have other metadata than the topmost layer
// with them, where implied says that there are any, and what MountOptions.Over shows with other times. lowers are the directories
// of the state's layers, the topmost first.
func writePatch(ctx context.Context, dir string, state *layer.State, implied bool, over *tree.Node, lowers []string) (err error) {
	patch := over
	if implied {
		if patch, err = impliedPatch(ctx, state); err != nil {
			return err
		}
		if over != nil {
			if patch, err = tree.Apply(patch, over); err != nil {
				return err
			}
		}
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	// What the merged file system has at a path lies at the same path of the topmost layer that has one.
	sources := make([]layer.Source, 0, len(lowers))
	defer func() {
		for _, s := range sources {
			if c, ok := s.(io.Closer); ok {
				err = errors.Join(err, c.Close())
			}
		}
	}()
	if over != nil {
		for _, lower := range lowers {
			sources = append(sources, layer.DirSource(lower, over))
		}
	}
	return layer.Materialise(ctx, patch, layer.Union(sources...), dir)
}

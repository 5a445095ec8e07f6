package build

import (
	"context"

	"github.com/moby/buildkit/solver/pb"

	"larder/internal/automount"
	"larder/internal/tree"
)

// attach gives RUN steps the cache mounts that their commands can use (--auto-mounts).
func (b *building) attach(ctx context.Context) error {
	if !b.req.AutoMounts {
		return nil
	}
	for i, o := range b.front.Outputs {
		def, attached, err := automount.Attach(ctx, o.Def, automount.Options{
			Namespace: b.req.Args["BUILDKIT_CACHE_MOUNT_NS"], Config: o.Config, Occupied: b.occupied,
		})
		if err != nil {
			return err
		}
		b.front.Outputs[i].Def = def
		for _, a := range attached {
			for _, line := range a.Lines() {
				b.stream.Begin(line).Done(nil)
			}
		}
	}
	return nil
}

// occupied tells whether a source has anything at a path but an empty directory. It reads what the source's layers list, not what
// is in files.
func (b *building) occupied(ctx context.Context, source *pb.Definition, path string) (bool, error) {
	st, err := b.solver.Evaluate(ctx, source)
	if err != nil {
		return false, err
	}
	root, err := st.Merged(ctx)
	if err != nil {
		return false, err
	}
	_, n, err := tree.Resolve(root, path, true)
	if err != nil || n == nil {
		return false, err
	}
	if n.Kind != tree.Dir {
		return true, nil
	}
	list, err := n.Entries()
	return len(list) > 0, err
}

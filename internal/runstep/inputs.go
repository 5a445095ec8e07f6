package runstep

import (
	"context"
	"path"

	"github.com/moby/buildkit/solver/pb"

	"larder/internal/layer"
	"larder/internal/tree"
)

// Input is how a step is shown one of its inputs, by a bind mount; its root file system is one.
type Input struct {
	Mount int // index of the op's mount
	State *layer.State
	// Groups are what the mount shows: those of the state, or, where Part is set, one that is observed.
	Groups []layer.Group
	// Part says that the mount shows no more than the part of the state that its selector names, and keeps nothing of what is written.
	Part bool
	// Path is where that part is in the state, absolute and without links.
	Path string
	// File is the only name in the group's root that the mount shows, where the part is no directory.
	File string
}

// Inputs says how the bind mounts of a step show its inputs: the same for the one who runs the step and the one who looks for what it made
// (DESIGN section 3). It reads the trees of observed layers, and of all layers of a state of which a part is mounted.
func Inputs(ctx context.Context, op *pb.ExecOp, states []*layer.State) ([]Input, error) {
	var out []Input
	for i, m := range op.Mounts {
		if m.MountType != pb.MountType_BIND || m.Input < 0 || m.Input >= int64(len(states)) || states[m.Input] == nil {
			continue
		}
		in := Input{Mount: i, State: states[m.Input]}
		part := path.Clean("/"+m.Selector) != "/" && m.Output < 0
		var err error
		if part && made(in.State) {
			err = in.part(ctx, m.Selector)
		} else {
			in.Groups, err = in.State.Groups(ctx)
		}
		if err != nil {
			return nil, err
		}
		out = append(out, in)
	}
	return out, nil
}

// made tells whether a state has anything that is not of a base image.
func made(st *layer.State) bool {
	for ; st != nil; st = st.Parent() {
		if st.Top().Blob == nil {
			return true
		}
	}
	return false
}

// part makes one observed group of what is at a path of the state: who mounts the result of a stage need not run again because something else
// in that stage changed.
func (in *Input) part(ctx context.Context, selector string) error {
	merged, err := in.State.Merged(ctx)
	if err != nil {
		return err
	}
	clean, n, err := tree.Resolve(merged, selector, true)
	if err != nil {
		return err
	}
	in.Part, in.Path = true, clean
	g := layer.Group{Layers: in.State.Layers(), Root: n, Contents: in.State.Contents()}
	switch {
	case n == nil: // mounting it will say so
		in.Groups = []layer.Group{g}
		return nil
	case n.Kind != tree.Dir:
		in.File = path.Base(clean)
		if g.Root, err = tree.NewDir(tree.Meta{Mode: 0o755}, false, []tree.Entry{{Name: in.File, Node: n}}); err != nil {
			return err
		}
	}
	if g.Why, err = layer.Unobservable(g.Root); err != nil {
		return err
	}
	g.Observed = g.Why == ""
	in.Groups = []layer.Group{g}
	return nil
}

// Observed lists the groups of all inputs that are observed, in order: the parts of a path set.
func Observed(inputs []Input) []layer.Group {
	var out []layer.Group
	for _, in := range inputs {
		for _, g := range in.Groups {
			if g.Observed {
				out = append(out, g)
			}
		}
	}
	return out
}

package runstep

import (
	"context"
	"errors"
	"path"
	"path/filepath"

	"larder/internal/layer"
	"larder/internal/observation"
	"larder/internal/snapshot"
	"larder/internal/tree"
	"larder/internal/treefs"
)

// Observe says whether the inputs of steps are observed.
type Observe int

const (
	Auto Observe = iota // where this machine can, files are handed to the kernel
	Copy                // where this machine can, every read goes through larder
	Off                 // never
)

// Looks are what a step looked at in one observed group.
type Looks struct {
	Group layer.Group
	Looks []observation.Look
}

// observes tells whether a step's inputs are to be observed, and why not; nothing to observe is no reason.
func (r *Runner) observes() (bool, string) {
	if r.opts.Observe == Off {
		return false, "--observe=off"
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.blind == "", r.blind
}

// observed gives the layers that the i-th mount shows by their trees.
func (p *prepared) observed(i int) map[*layer.Layer]bool {
	out := map[*layer.Layer]bool{}
	for _, in := range p.inputs {
		for _, g := range in.Groups {
			if in.Mount == i && g.Observed {
				for _, l := range g.Layers {
					out[l] = true
				}
			}
		}
	}
	return out
}

// serve shows the observed groups through treefs, with the times that date has found.
func (p *prepared) serve(ctx context.Context) error {
	var parts []treefs.Part
	p.shown = make([]shown, len(p.inputs))
	for i, in := range p.inputs {
		over := p.over[p.dest(p.step.Op.Mounts[in.Mount])]
		if in.Part {
			g := in.Groups[0]
			if !g.Observed {
				continue
			}
			root, err := retimed(g.Root, over, in)
			if err != nil {
				return err
			}
			p.shown[i].part = len(parts)
			parts = append(parts, treefs.Part{Root: root, Contents: g.Contents})
			continue
		}
		laid := make([]*tree.Node, len(in.Groups))
		if over != nil {
			var err error
			if laid, err = in.State.Laid(ctx, over); err != nil {
				return err
			}
		}
		p.shown[i].groups = make([]snapshot.GroupOptions, len(in.Groups))
		for n, g := range in.Groups {
			if !g.Observed {
				p.shown[i].groups[n].Over = laid[n]
				continue
			}
			p.shown[i].at = append(p.shown[i].at, spot{n, len(parts)})
			root := g.Root
			if laid[n] != nil {
				root = laid[n]
			}
			parts = append(parts, treefs.Part{Root: root, Contents: g.Contents})
		}
	}
	if len(parts) == 0 {
		return nil
	}
	var err error
	if p.served, err = p.r.snapshots.Serve(ctx, parts, treefs.Options{Copy: p.r.opts.Observe == Copy}); err != nil {
		return err
	}
	for i := range p.shown {
		for _, at := range p.shown[i].at {
			p.shown[i].groups[at.group].Dir = p.served.Dir(at.part)
		}
	}
	return nil
}

// shown is how an input is shown, see Input: its groups, or the part of treefs that is the whole of it.
type shown struct {
	groups []snapshot.GroupOptions
	part   int
	at     []spot
}

// spot says that a part of treefs shows a group.
type spot struct{ group, part int }

// retimed gives a part of a state with the times of what lies over the state.
func retimed(root, over *tree.Node, in Input) (*tree.Node, error) {
	if over == nil {
		return root, nil
	}
	_, n, err := tree.Resolve(over, in.Path, false)
	if err != nil || n == nil {
		return root, nil // nothing of it has another time
	}
	if in.File != "" {
		if n, err = tree.NewDir(root.Meta, false, []tree.Entry{{Name: in.File, Node: n}}); err != nil {
			return nil, err
		}
	}
	return tree.Retime(root, n)
}

// look mounts the input that the i-th mount shows. It gives false where the input is shown by the directories of its layers.
func (p *prepared) look(ctx context.Context, i int, state *layer.State, readOnly bool) (mnt *snapshot.Mount, source string, ok bool, err error) {
	if p.served == nil {
		return nil, "", false, nil
	}
	for n, in := range p.inputs {
		switch {
		case in.Mount != i:
		case !in.Part:
			over := p.over[p.dest(p.step.Op.Mounts[i])]
			mnt, err = p.r.snapshots.Mount(ctx, state, snapshot.MountOptions{ReadOnly: readOnly, Over: over, Groups: p.shown[n].groups})
			return mnt, "", true, err
		case in.Groups[0].Observed:
			mnt, err = p.r.snapshots.MountDir(p.served.Dir(p.shown[n].part), readOnly)
			if err != nil {
				return nil, "", true, err
			}
			return mnt, filepath.Join(mnt.Root, path.Base("/"+in.File)), true, nil
		}
	}
	return nil, "", false, nil
}

// looked says what the step has looked at, once its command has ended. The error is why what it was shown is not what it should have seen.
func (p *prepared) looked(ctx context.Context) ([]Looks, error) {
	if p.served == nil {
		return nil, nil
	}
	if err := errors.Join(p.served.Err(), p.served.Alive()); err != nil {
		return nil, err
	}
	if err := p.served.Check(ctx); err != nil {
		return nil, err
	}
	var out []Looks
	for i, g := range Observed(p.inputs) {
		out = append(out, Looks{Group: g, Looks: p.served.Looks(i)})
	}
	return out, nil
}

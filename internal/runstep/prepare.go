package runstep

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/moby/buildkit/solver/pb"
	"golang.org/x/sync/errgroup"

	"larder/internal/cachemount"
	"larder/internal/layer"
	"larder/internal/runtime"
	"larder/internal/snapshot"
	"larder/internal/tree"
)

// prepared are the mounts of one step while it runs.
type prepared struct {
	r    *Runner
	step Step

	root     string
	readOnly bool
	list     []runtime.Mount
	outputs  map[int64]*output
	open     []*snapshot.Mount           // to be discarded, committed ones too
	caches   map[string]cachemount.Mount // by what identifies them: two mounts of one step with the same id are the same
	dirs     []*snapshot.Scratch
	secrets  *snapshot.Scratch
	given    [][]byte              // secrets that the step gets
	over     map[string]*tree.Node // by where a state is mounted, the files that are shown with other times, see times.go

	inputs []Input // set where the step is observed, see observe.go
	shown  []shown // of inputs
	served *snapshot.Served
}

func newPrepared(r *Runner, step Step) *prepared {
	return &prepared{r: r, step: step, caches: map[string]cachemount.Mount{}}
}

// output is what becomes of an op's output: a mount to commit, or an input handed on.
type output struct {
	input int
	mount *snapshot.Mount
}

// mounts makes everything that the step sees. The rules of which mount is an output, a copy or read-only are those of
// BuildKit's solver.
func (p *prepared) mounts(ctx context.Context) error {
	p.outputs = map[int64]*output{}
	if err := p.fetch(ctx); err != nil {
		return err
	}
	if err := p.date(ctx); err != nil {
		return err
	}
	if err := p.serve(ctx); err != nil {
		return err
	}
	for i, m := range p.step.Op.Mounts {
		if err := p.mount(ctx, i, m); err != nil {
			return err
		}
	}
	if p.root == "" {
		return errors.New("a RUN step without a root file system")
	}
	for n := range int64(len(p.outputs)) {
		if p.outputs[n] == nil {
			return fmt.Errorf("output %d of the step is missing", n)
		}
	}
	// Parents first. Options are given per mount point, and a step may not hide one mount under another by accident of
	// order.
	slices.SortStableFunc(p.list, func(a, b runtime.Mount) int { return cmp.Compare(a.Dest, b.Dest) })
	return nil
}

// fetch brings what the step needs to this machine: cache mounts are restored while layers are unpacked.
func (p *prepared) fetch(ctx context.Context) error {
	eg, ctx := errgroup.WithContext(ctx)
	eg.Go(func() error { return p.acquireCaches(ctx) })
	if p.inputs != nil {
		for _, in := range p.inputs {
			for _, g := range in.Groups {
				if !g.Observed {
					eg.Go(func() error { return p.r.snapshots.Prefetch(ctx, g.Layers) })
				}
			}
		}
		return eg.Wait()
	}
	for _, m := range p.step.Op.Mounts {
		if m.MountType == pb.MountType_BIND && m.Input >= 0 && m.Input < int64(len(p.step.Inputs)) {
			eg.Go(func() error { return p.r.snapshots.Prefetch(ctx, p.step.Inputs[m.Input].Layers()) })
		}
	}
	return eg.Wait()
}

func (p *prepared) mount(ctx context.Context, i int, m *pb.Mount) error {
	isRoot := m.Dest == pb.RootMount
	if isRoot && m.MountType != pb.MountType_BIND {
		return fmt.Errorf("a %s mount cannot be the root file system", strings.ToLower(m.MountType.String()))
	}
	input, state := -1, (*layer.State)(nil)
	if m.Input != int64(pb.Empty) {
		if m.Input < 0 || m.Input >= int64(len(p.step.Inputs)) {
			return fmt.Errorf("mount %s refers to input %d, the step has %d", m.Dest, m.Input, len(p.step.Inputs))
		}
		input, state = int(m.Input), p.step.Inputs[m.Input]
	}
	var err error
	switch m.MountType {
	case pb.MountType_BIND:
		err = p.bind(ctx, i, m, input, state)
	case pb.MountType_CACHE:
		err = p.cache(m, input, state)
	case pb.MountType_TMPFS:
		err = p.tmpfs(m)
	case pb.MountType_SECRET:
		err = p.secret(ctx, m)
	case pb.MountType_SSH:
		if m.SSHOpt == nil || !m.SSHOpt.Optional {
			err = errors.New("forwarding an SSH agent into a step is not supported yet; fetch what it is needed for outside of the build, or mark the mount as not required")
		}
	default:
		err = fmt.Errorf("mounts of type %s are unknown", m.MountType)
	}
	if err != nil {
		return fmt.Errorf("mount %s: %w", m.Dest, err)
	}
	return nil
}

// dest is where a mount goes; relative to the working directory where it does not say.
func (p *prepared) dest(m *pb.Mount) string {
	if path.IsAbs(m.Dest) {
		return path.Clean(m.Dest)
	}
	return path.Join("/", p.step.Op.Meta.Cwd, m.Dest)
}

func (p *prepared) bind(ctx context.Context, i int, m *pb.Mount, input int, state *layer.State) error {
	isRoot := m.Dest == pb.RootMount
	wanted := m.Output != int64(pb.SkipOutput)
	var out *output
	if wanted {
		if m.Output < 0 || m.Output >= int64(len(p.step.Op.Mounts)) || p.outputs[m.Output] != nil {
			return fmt.Errorf("invalid output %d", m.Output)
		}
		out = &output{input: input}
		p.outputs[m.Output] = out
	}
	// An input that is only looked at is shown without an upper directory. The root always gets one, for mount points.
	readOnly := m.Readonly && !isRoot && (input >= 0 || !wanted)
	mnt, source, observed, err := p.look(ctx, i, state, readOnly)
	if !observed {
		mnt, err = p.r.snapshots.Mount(ctx, state, snapshot.MountOptions{ReadOnly: readOnly, Over: p.over[p.dest(m)]})
	}
	if err != nil {
		return err
	}
	p.open = append(p.open, mnt)
	if wanted && !readOnly {
		out.mount = mnt
	}
	if isRoot {
		p.root, p.readOnly = mnt.Root, m.Readonly
		if m.Selector != "" && path.Clean("/"+m.Selector) != "/" {
			return errors.New("a part of an input cannot be the root file system")
		}
		return nil
	}
	if source == "" {
		if source, err = p.selected(mnt.Root, m.Selector); err != nil {
			return err
		}
	}
	options := []string{"rbind"}
	if m.Readonly {
		options = append(options, "ro")
	}
	p.list = append(p.list, runtime.Mount{Dest: p.dest(m), Type: "bind", Source: source, Options: options})
	return nil
}

// selected gives a path on the host for a part of a mount.
func (p *prepared) selected(root, selector string) (string, error) {
	if path.Clean("/"+selector) == "/" {
		return root, nil
	}
	d, err := p.r.snapshots.BindPart(root, selector)
	if err != nil {
		if errors.Is(err, os.ErrNotExist) {
			return "", fmt.Errorf("%s: not found", path.Clean("/"+selector))
		}
		return "", err
	}
	p.dirs = append(p.dirs, d)
	return d.Path, nil
}

func (p *prepared) tmpfs(m *pb.Mount) error {
	options := []string{"nosuid"}
	if m.Readonly {
		options = append(options, "ro")
	}
	if m.TmpfsOpt != nil && m.TmpfsOpt.Size > 0 {
		options = append(options, fmt.Sprintf("size=%d", m.TmpfsOpt.Size))
	}
	p.list = append(p.list, runtime.Mount{Dest: p.dest(m), Type: "tmpfs", Source: "tmpfs", Options: options})
	return nil
}

// commit makes the outputs.
func (p *prepared) commit(ctx context.Context) ([]Output, error) {
	outputs := make([]Output, len(p.outputs))
	for n, out := range p.outputs {
		o := Output{Base: out.input}
		if out.input >= 0 {
			o.State = p.step.Inputs[out.input]
		}
		if out.mount != nil {
			if err := p.unbind(); err != nil {
				return nil, err
			}
			l, err := out.mount.Commit(ctx)
			if err != nil {
				return nil, err
			}
			o.State, o.Layers = o.State.Push(l), []*layer.Layer{l}
		}
		outputs[n] = o
	}
	return outputs, nil
}

// unbind takes away what was mounted from parts of mounts and keeps those busy.
func (p *prepared) unbind() error {
	var errs []error
	for _, d := range slices.Backward(p.dirs) {
		errs = append(errs, d.Remove())
	}
	p.dirs = nil
	return errors.Join(errs...)
}

// release ends everything that is still there. whole tells whether what the step left in its cache mounts is worth saving.
func (p *prepared) release(whole bool) error {
	errs := []error{p.unbind()}
	if p.secrets != nil {
		errs = append(errs, p.secrets.Remove())
	}
	for _, m := range slices.Backward(p.open) {
		errs = append(errs, m.Discard())
	}
	if p.served != nil {
		errs = append(errs, p.served.Close())
	}
	for _, c := range p.caches {
		errs = append(errs, c.Release(whole))
	}
	return errors.Join(errs...)
}

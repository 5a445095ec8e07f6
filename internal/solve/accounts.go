package solve

import (
	"context"
	"slices"
	"strings"

	"github.com/moby/buildkit/solver/pb"

	"larder/internal/key"
	"larder/internal/layer"
	"larder/internal/observation"
	"larder/internal/record"
	"larder/internal/report"
	"larder/internal/tree"
)

// Steps tells what became of each step so far, inputs before what stands on them (issue 5, larder explain).
func (s *Solver) Steps() []report.Step {
	s.stats.Lock()
	defer s.stats.Unlock()
	out := make([]report.Step, 0, len(s.order))
	for _, d := range s.order {
		out = append(out, *s.accounts[d])
	}
	return out
}

// plan notes the names of steps that are to come.
func (s *Solver) plan(nodes []*node) {
	s.stats.Lock()
	defer s.stats.Unlock()
	for _, n := range nodes {
		s.names = append(s.names, n.label)
	}
}

func (s *Solver) planned() []string {
	s.stats.Lock()
	defer s.stats.Unlock()
	return slices.Clone(s.names)
}

// account notes what became of a step. One that was done again takes the place of what was noted first.
func (s *Solver) account(j job, st *report.Step) {
	s.stats.Lock()
	defer s.stats.Unlock()
	if s.accounts[j.digest] == nil {
		s.order = append(s.order, j.digest)
	}
	s.accounts[j.digest] = st
}

// begin gives what is known of any step before anything is done.
func (j job) begin(t report.Type) *report.Step {
	return &report.Step{Name: j.label, Platform: PlatformName(j.op.Platform), File: j.file, Line: j.row, Type: t}
}

// accountFailed notes a step that could not be done.
func (s *Solver) accountFailed(j job, t report.Type) {
	step := j.begin(t)
	step.How = report.Failed
	s.account(j, step)
}

// accountSource notes what a source gave.
func (s *Solver) accountSource(j job, op *pb.SourceOp, st *layer.State) {
	name, rest, _ := strings.Cut(op.Identifier, "://")
	step := j.begin(report.Other)
	step.How, step.Result = report.Ran, op.Identifier
	switch name {
	case "docker-image", "oci-layout":
		step.Type = report.Image
		s.stats.Lock()
		for _, l := range st.Layers() {
			s.images[l.Identity] = rest
		}
		s.stats.Unlock()
	case "local":
		step.Type = report.Context
		if st != nil {
			step.Result = st.Top().Identity.String()
		}
		s.name(st, j.label)
	}
	s.account(j, step)
}

// name says which step today's build has a layer from.
func (s *Solver) name(st *layer.State, step string) {
	if st == nil {
		return
	}
	s.stats.Lock()
	defer s.stats.Unlock()
	s.makers[st.Top().Identity] = step
}

// accountFiles notes what became of file operations.
func (s *Solver) accountFiles(ctx context.Context, j job, how report.How, rec *record.Record, out []*layer.State) {
	step := j.begin(report.File)
	step.How, step.From, step.Made = how, s.origin(rec), rec.Created
	for i, o := range rec.Outputs {
		for _, ref := range o.Layers {
			step.Result, step.Tree = ref.Identity.String(), ref.Tree
			s.stats.Lock()
			s.trees[ref.Identity] = ref.Tree
			s.stats.Unlock()
			if how == report.Ran {
				step.Root, _ = out[i].Top().Tree(ctx) // it was just made
			}
		}
	}
	if how == report.Ran {
		s.why(ctx, j, step)
	}
	s.account(j, step)
}

// origin names the catalog that a record came from; empty for this machine.
func (s *Solver) origin(rec *record.Record) string {
	if rec.From == "" || s.opt.Origin == nil {
		return rec.From
	}
	return s.opt.Origin(rec.From)
}

// firstLines gives arguments with the first line of each, and a digest where there are more: what a here-document has in it is told to nobody.
func firstLines(args []string) []string {
	out := slices.Clone(args)
	for i, a := range out {
		if line, _, more := strings.Cut(strings.TrimSpace(a), "\n"); more {
			out[i] = line + " ... " + key.New("larder.report.args.v1").Str(a).Sum().Hex()[:8]
		}
	}
	return out
}

// recipe says what a RUN step is by itself, for people.
func (j job) recipe(op *pb.ExecOp) report.Recipe {
	r := report.Recipe{Args: firstLines(op.Meta.Args), Env: map[string]string{}, Cwd: op.Meta.Cwd, User: op.Meta.User, BuildArgs: j.args}
	for _, e := range op.Meta.Env {
		name, value, _ := strings.Cut(e, "=")
		r.Env[name] = key.New("larder.report.env.v1").Str(name).Str(value).Sum().Hex()[:8]
	}
	if op.Network != pb.NetMode_UNSET {
		r.Network = strings.ToLower(op.Network.String())
	}
	if op.Security != pb.SecurityMode_SANDBOX {
		r.Security = strings.ToLower(op.Security.String())
	}
	for _, m := range op.Mounts {
		if m.Dest != pb.RootMount {
			r.Mounts = append(r.Mounts, strings.ToLower(m.MountType.String())+" "+m.Dest)
		}
	}
	other := op.CloneVT()
	other.Meta.Args, other.Meta.Env, other.Meta.Cwd, other.Meta.User = nil, nil, "", ""
	other.Network, other.Security = 0, 0
	for _, m := range other.Mounts {
		m.Dest, m.MountType, m.Input, m.Output = "", 0, 0, 0
	}
	h := key.New("larder.report.recipe.v1")
	if recipe(h, other, nil) == nil {
		r.Other = h.Sum().Hex()[:8]
	}
	return r
}

// accountExec gives what is known of a RUN step before it is run or found: with the trees of what it can look at.
func (s *Solver) accountExec(j job, op *pb.ExecOp, v *seeing) *report.Step {
	step := j.begin(report.Run)
	step.Recipe = j.recipe(op)
	if v == nil {
		for _, m := range op.Mounts {
			if m.MountType == pb.MountType_BIND && m.Input >= 0 && int(m.Input) < len(j.inputs) {
				g := report.Group{Layers: s.accountLayers(j.inputs[m.Input].Layers(), false)}
				step.Inputs = append(step.Inputs, report.Input{Place: m.Dest, Groups: []report.Group{g}})
			}
		}
		return step
	}
	for _, in := range v.inputs {
		input := report.Input{Place: op.Mounts[in.Mount].Dest, Source: strings.TrimPrefix(in.Path, "/")}
		for _, g := range in.Groups {
			input.Groups = append(input.Groups, report.Group{Layers: s.accountLayers(g.Layers, true), Observed: g.Observed, Root: g.Root})
		}
		step.Inputs = append(step.Inputs, input)
	}
	return step
}

// accountLayers gives what is known of layers; with trees, what observed ones have, which was read for their groups.
func (s *Solver) accountLayers(layers []*layer.Layer, trees bool) []report.Layer {
	s.stats.Lock()
	defer s.stats.Unlock()
	var out []report.Layer
	for _, l := range layers {
		r := report.Layer{Identity: l.Identity, Step: s.makers[l.Identity], Image: s.images[l.Identity], Tree: s.trees[l.Identity]}
		if trees && !l.Pinned {
			r.Root, _ = l.Tree(context.Background())
		}
		out = append(out, r)
	}
	return out
}

// fill notes what a step saw, by its path set.
func fill(step *report.Step, set observation.Set, parts []*tree.Node) error {
	n := 0
	for i := range step.Inputs {
		for g := range step.Inputs[i].Groups {
			group := &step.Inputs[i].Groups[g]
			if !group.Observed {
				continue
			}
			group.Seen = []report.Seen{} // nothing is something else than not to know
			values, err := observation.Values(set.Parts[n], parts[n])
			if err != nil {
				return err
			}
			for k, look := range set.Parts[n] {
				seen := report.Seen{Path: look.Path, Kind: look.Kind}
				copy(seen.Value[:], values[k][:])
				group.Seen = append(group.Seen, seen)
			}
			n++
		}
	}
	return nil
}

// why finds out why a step is done.
func (s *Solver) why(ctx context.Context, j job, step *report.Step) {
	switch {
	case len(step.Why) > 0: // what was found does not count
	case j.ignoreCache:
		step.Why = report.ToldBy("--no-cache")
	case s.opt.Last != nil:
		step.Why = report.Causes(s.opt.Last(ctx), s.planned(), step, func(d key.Digest) *tree.Node {
			if !s.opt.Records.HasTree(ctx, d) {
				return nil
			}
			root, err := s.opt.Records.Tree(ctx, d)
			if err != nil {
				return nil
			}
			return root
		})
	}
}

// tell shows why a step runs, unless it is new: so are all steps of a first build.
func tell(j job, step *report.Step) {
	if len(step.Why) > 0 && step.Why[0].Kind != report.New {
		j.line.Note("runs: " + report.Short(step.Why))
	}
}

package automount

import (
	"context"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/containerd/platforms"
	"github.com/moby/buildkit/client/llb"
	"github.com/moby/buildkit/solver/pb"
	"github.com/moby/buildkit/util/apicaps"
	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

// Attached says what became of the cache mounts of one exec op.
type Attached struct {
	Vertex  digest.Digest // the op's, in the new definition
	Mounts  []Mount
	Skipped []Skipped
}

// Lines are for people, one for each mount that was attached or left out.
func (a Attached) Lines() []string {
	var out []string
	for _, m := range a.Mounts {
		out = append(out, "auto-mounts: "+m.Tool+" "+m.Target)
	}
	for _, n := range a.Skipped {
		where := n.Tool
		if n.Target != "" {
			where += " " + n.Target
		}
		out = append(out, "auto-mounts: not "+where+": "+n.Why)
	}
	return out
}

// Options are what Attach is to know of a build beside its definition.
type Options struct {
	Namespace string // the frontend's BUILDKIT_CACHE_MOUNT_NS, "" as a rule
	// Config is the config, JSON, of the image that comes out. Without one nothing is attached that the image may use when it runs.
	Config []byte
	// Occupied tells whether a source, the output of a definition of its own, has anything at a path but an empty directory. An error
	// leaves the mount out. Required.
	Occupied func(ctx context.Context, source *pb.Definition, path string) (bool, error)
}

// Attach gives a definition in which each exec op has the cache mounts that its command wants, beside its own, as
// RUN --mount=type=cache would have written them. It also says what it attached and what not, for the ops that want
// anything, inputs before users. The given definition stays as it is; attaching to what Attach gave changes nothing more.
// An error says that the definition is no valid LLB, or that ctx ended.
func Attach(ctx context.Context, def *pb.Definition, opt Options) (*pb.Definition, []Attached, error) {
	if def == nil || len(def.Def) == 0 {
		return def, nil, nil
	}
	g, err := decode(def)
	if err != nil {
		return nil, nil, err
	}
	g.def, g.opt, g.image, g.places = def, opt, parseConfig(opt.Config), map[place]found{}
	if err := g.wishes(ctx); err != nil {
		return nil, nil, err
	}
	r := newRewriter(def)
	var out []Attached
	for _, n := range g.nodes {
		if err := r.add(n, opt.Namespace); err != nil {
			return nil, nil, err
		}
		if n.exec != nil && len(n.grant)+len(n.exec.skipped) > 0 {
			a := Attached{Vertex: digest.Digest(r.digests[n.digest]), Skipped: n.exec.skipped}
			for _, w := range n.grant {
				a.Mounts = append(a.Mounts, w.Mount)
			}
			out = append(out, a)
		}
	}
	return r.done(), out, nil
}

// rewriter writes a definition anew. Vertices are named by digest, so those above a changed one change, too.
type rewriter struct {
	old, new *pb.Definition
	digests  map[string]string // of vertices, old to new
	have     map[string]bool   // vertices of the new definition
	// described: vertices with descriptions were added.
	described bool
}

func newRewriter(old *pb.Definition) *rewriter {
	r := &rewriter{old: old, digests: map[string]string{}, have: map[string]bool{}}
	r.new = &pb.Definition{Metadata: map[string]*pb.OpMetadata{}}
	if s := old.Source; s != nil {
		r.new.Source = &pb.Source{Infos: s.Infos, Locations: map[string]*pb.Locations{}}
	}
	return r
}

// add writes a node, whose inputs are written, with its mounts.
func (r *rewriter) add(n *node, namespace string) error {
	op, changed := n.op, false
	for i, in := range op.Inputs {
		d, ok := r.digests[in.Digest]
		if !ok {
			return fmt.Errorf("input %.80q of %s is missing", in.Digest, n.digest)
		}
		if d != in.Digest {
			if !changed {
				op, changed = op.CloneVT(), true
			}
			op.Inputs[i].Digest = d
		}
	}
	meta := r.old.Metadata[n.digest]
	if len(n.grant) > 0 {
		if !changed {
			op, changed = op.CloneVT(), true
		}
		meta = needs(meta, pb.CapExecMountCache, pb.CapExecMountCacheSharing)
		if err := r.mount(op, meta, n.grant, namespace); err != nil {
			return err
		}
	}
	raw := n.raw
	if changed {
		var err error
		if raw, err = marshal(op); err != nil {
			return err
		}
	}
	d := string(digest.FromBytes(raw))
	r.digests[n.digest] = d
	r.put(d, raw, meta)
	if s := r.old.Source; s != nil && s.Locations[n.digest] != nil {
		r.locate(d, s.Locations[n.digest])
	}
	return nil
}

// locate says where in the sources a vertex comes from, beside what is said already.
func (r *rewriter) locate(d string, add *pb.Locations) {
	all := &pb.Locations{Locations: slices.Clone(r.new.Source.Locations[d].GetLocations())}
	for _, l := range add.Locations {
		if !slices.ContainsFunc(all.Locations, l.EqualVT) {
			all.Locations = append(all.Locations, l)
		}
	}
	r.new.Source.Locations[d] = all
}

// put adds a vertex. What was two may have become the same.
func (r *rewriter) put(d string, raw []byte, meta *pb.OpMetadata) {
	if r.have[d] {
		return
	}
	r.have[d] = true
	r.new.Def = append(r.new.Def, raw)
	if meta != nil {
		r.new.Metadata[d] = meta
	}
}

// done adds what the old definition says of no vertex, and what the whole needs now.
func (r *rewriter) done() *pb.Definition {
	if r.described {
		end := string(digest.FromBytes(r.new.Def[len(r.new.Def)-1]))
		r.new.Metadata[end] = needs(r.new.Metadata[end], pb.CapMetaDescription)
	}
	for d, meta := range r.old.Metadata {
		if _, ok := r.digests[d]; !ok {
			r.new.Metadata[d] = meta
		}
	}
	return r.new
}

// needs gives metadata that names more capabilities.
func needs(meta *pb.OpMetadata, list ...apicaps.CapID) *pb.OpMetadata {
	if meta == nil {
		meta = &pb.OpMetadata{}
	}
	meta = meta.CloneVT()
	if meta.Caps == nil {
		meta.Caps = map[string]bool{}
	}
	for _, c := range list {
		meta.Caps[string(c)] = true
	}
	return meta
}

// mount adds mounts to an exec op. Mounts stand in the order of their places, secrets and agents behind them; inputs in
// the order of the mounts that use them.
func (r *rewriter) mount(op *pb.Op, meta *pb.OpMetadata, grant []wish, namespace string) error {
	type placed struct {
		*pb.Mount
		input *pb.Input
	}
	var list, last []placed
	for _, m := range op.GetExec().Mounts {
		p := placed{Mount: m}
		if m.Input >= 0 {
			p.input = op.Inputs[m.Input]
		}
		if m.MountType == pb.MountType_SECRET || m.MountType == pb.MountType_SSH {
			last = append(last, p)
		} else {
			list = append(list, p)
		}
	}
	for _, w := range grant {
		m := &pb.Mount{
			Input: int64(pb.Empty), Dest: w.Target, Output: int64(pb.SkipOutput), MountType: pb.MountType_CACHE,
			CacheOpt: &pb.CacheOpt{ID: namespace + "/" + w.ID, Sharing: w.Sharing},
		}
		var in *pb.Input
		if o := w.Owner; o != nil {
			st := llb.Scratch().File(llb.Mkdir("/cache", 0o755, llb.WithUIDGID(o.UID, o.GID)), llb.WithCustomName("[internal] setting cache mount permissions"))
			var err error
			if in, err = r.state(st, op.Platform); err != nil {
				return err
			}
			m.Selector = "/cache"
			meta.Caps[string(pb.CapExecMountSelector)] = true
		}
		list = append(list, placed{m, in})
		if f := w.Beside; f != nil {
			name := "/" + path.Base(f.Path)
			st := llb.Scratch().File(llb.Mkfile(name, 0o644, f.Data), llb.WithCustomName("[internal] keeping what "+w.Tool+" downloads"))
			in, err := r.state(st, op.Platform)
			if err != nil {
				return err
			}
			list = append(list, placed{&pb.Mount{Dest: f.Path, Output: int64(pb.SkipOutput), Selector: name, Readonly: true}, in})
			meta.Caps[string(pb.CapExecMountSelector)], meta.Caps[string(pb.CapExecMountBind)] = true, true
		}
	}
	slices.SortStableFunc(list, func(a, b placed) int { return strings.Compare(a.Dest, b.Dest) })
	op.Inputs, op.GetExec().Mounts = nil, nil
	for _, p := range append(list, last...) {
		if p.input != nil {
			i := slices.IndexFunc(op.Inputs, func(in *pb.Input) bool { return in.EqualVT(p.input) })
			if i < 0 {
				i = len(op.Inputs)
				op.Inputs = append(op.Inputs, p.input)
			}
			p.Mount.Input = int64(i)
		}
		op.GetExec().Mounts = append(op.GetExec().Mounts, p.Mount)
	}
	return nil
}

// state writes what a state consists of, and gives it as an input.
func (r *rewriter) state(st llb.State, p *pb.Platform) (*pb.Input, error) {
	platform := platforms.DefaultSpec()
	if p != nil {
		platform = ocispecs.Platform{OS: p.OS, Architecture: p.Architecture, Variant: p.Variant, OSVersion: p.OSVersion, OSFeatures: p.OSFeatures}
	}
	made, err := st.Marshal(context.Background(), llb.Platform(platform))
	if err != nil {
		return nil, err
	}
	def := made.ToPB()
	top := new(pb.Op)
	if err := top.UnmarshalVT(def.Def[len(def.Def)-1]); err != nil {
		return nil, err
	}
	for _, raw := range def.Def[:len(def.Def)-1] {
		d := string(digest.FromBytes(raw))
		r.put(d, raw, def.Metadata[d])
	}
	r.described = true
	return top.Inputs[0], nil
}

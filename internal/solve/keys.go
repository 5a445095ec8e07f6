package solve

import (
	"context"
	"fmt"

	"github.com/moby/buildkit/solver/pb"

	"larder/internal/fileop"
	"larder/internal/key"
	"larder/internal/layer"
	"larder/internal/record"
	"larder/internal/tree"
)

// layerKey is where the first layer of an identity is recorded. Times that the operation itself sets count: with
// SOURCE_DATE_EPOCH the frontend sets them, and a build under another epoch must not get them.
func layerKey(identity key.Digest, op *pb.FileOp) key.Digest {
	h := key.New("larder.layer.v1").Digest(identity)
	for _, a := range op.Actions { // -1 says that none is set, an action of another kind gives 0
		h.Int(a.GetMkdir().GetTimestamp()).Int(a.GetMkfile().GetTimestamp())
		h.Int(a.GetCopy().GetTimestamp()).Int(a.GetSymlink().GetTimestamp())
	}
	return h.Sum()
}

// fileKey is the exact key of file operations.
func fileKey(op *pb.FileOp, inputs []*layer.State) key.Digest {
	h := key.New("larder.file.exact.v1")
	raw, _ := op.MarshalVT() // fails only on values that the definition could not have been parsed from
	h.Raw(raw)
	h.Uint(uint64(len(inputs)))
	for _, in := range inputs {
		h.Digests(in.Identities())
	}
	return h.Sum()
}

// resolutionKey is where the destination resolution of file operations is recorded: their recipe, and what they write to. What they
// read from does not count (DESIGN section 3).
func resolutionKey(op *pb.FileOp, inputs []*layer.State) key.Digest {
	h := key.New("larder.file.destination.v1")
	raw, _ := op.MarshalVT() // as in fileKey
	h.Raw(raw)
	for _, st := range destinations(op, inputs) {
		h.Digests(st.Identities())
	}
	return h.Sum()
}

// destinations lists the states that an operation writes to or looks up owners in, in the order of the inputs.
func destinations(op *pb.FileOp, inputs []*layer.State) []*layer.State {
	var out []*layer.State
	for i, st := range inputs {
		if fileop.WritesTo(op, i) {
			out = append(out, st)
		}
	}
	return out
}

// origins lists the states that an operation copies from.
func origins(op *pb.FileOp, inputs []*layer.State) []*layer.State {
	var out []*layer.State
	for _, a := range op.Actions {
		if i := int(a.SecondaryInput); a.GetCopy() != nil && i >= 0 && i < len(inputs) {
			out = append(out, inputs[i])
		}
	}
	return out
}

// execKey is the exact key of a RUN step: its recipe, and what its mounts show of the inputs.
func (s *Solver) execKey(ctx context.Context, op *pb.ExecOp, platform *pb.Platform, inputs []*layer.State) (key.Digest, error) {
	h := key.New("larder.run.exact.v1")
	if err := recipe(h, op, platform); err != nil {
		return key.Digest{}, err
	}
	for _, m := range op.Mounts {
		if m.Input < 0 {
			continue
		}
		if int(m.Input) >= len(inputs) {
			return key.Digest{}, fmt.Errorf("a mount of input %d: %w", m.Input, ErrDefinition)
		}
		if err := s.input(ctx, h, m, inputs[m.Input]); err != nil {
			return key.Digest{}, err
		}
	}
	return h.Sum(), nil
}

// recipe hashes what a RUN step is by itself. It leaves out what BuildKit leaves out: proxies, the addresses of extra hosts, and where a cache
// mount's content is kept.
func recipe(h *key.Hasher, op *pb.ExecOp, platform *pb.Platform) error {
	recipe := op.CloneVT()
	if recipe.Meta == nil {
		return fmt.Errorf("a step without a command: %w", ErrDefinition)
	}
	recipe.Meta.ProxyEnv = nil
	for _, host := range recipe.Meta.ExtraHosts {
		host.IP = ""
	}
	for _, m := range recipe.Mounts {
		if m.CacheOpt != nil {
			m.CacheOpt.ID, m.CacheOpt.Sharing = "", 0
		}
		if selected(m) {
			m.Selector = ""
		}
	}
	raw, err := recipe.MarshalVT()
	if err != nil {
		return fmt.Errorf("%w: %w", ErrDefinition, err)
	}
	h.Raw(raw)
	h.Str(platform.GetOS()).Str(platform.GetArchitecture()).Str(platform.GetVariant()).Str(platform.GetOSVersion())
	return nil
}

// input hashes the identity of what a mount shows.
func (s *Solver) input(ctx context.Context, h *key.Hasher, m *pb.Mount, st *layer.State) error {
	if !selected(m) {
		h.Digests(st.Identities())
		return nil
	}
	d, err := s.subtree(ctx, st, m.Selector)
	if err == nil {
		h.Digest(d)
	}
	return err
}

// selected tells a mount that shows a part of its input and keeps nothing of what is written to it: its key is that part's
// identity, whatever else the input has.
func selected(m *pb.Mount) bool {
	return m.Input >= 0 && m.Selector != "" && m.Selector != "/" && m.Output < 0
}

// subtree is the identity of a part of a state. Where the state's trees are not on this machine, what an earlier build found is
// asked first.
func (s *Solver) subtree(ctx context.Context, st *layer.State, path string) (key.Digest, error) {
	here := s.here([]*layer.State{st})
	k := key.New("larder.subtree.v1").Digests(st.Identities()).Str(path).Sum()
	if !here {
		if rec, ok := s.opt.Records.Get(ctx, k); ok && len(rec.Data) == key.Size {
			s.used(rec, nil, false)
			return key.Digest(rec.Data), nil
		}
	}
	d, err := subtree(ctx, st, path)
	if err != nil || !hasPinned(st) {
		return d, err // of a context nobody need be told: whoever has its identity has its tree
	}
	rec, err := s.opt.Records.Put(ctx, &record.Record{Key: k, Created: now(), Data: d[:]})
	if err != nil {
		return d, err
	}
	s.used(rec, nil, false)
	return d, nil
}

func hasPinned(st *layer.State) bool {
	for ; st != nil; st = st.Parent() {
		if st.Top().Pinned {
			return true
		}
	}
	return false
}

func subtree(ctx context.Context, st *layer.State, path string) (key.Digest, error) {
	root, err := st.Merged(ctx)
	if err != nil {
		return key.Digest{}, err
	}
	_, n, err := tree.Resolve(root, path, true)
	if err != nil {
		return key.Digest{}, err
	}
	if n == nil {
		return key.New("larder.absent.v1").Sum(), nil
	}
	return n.Identity()
}

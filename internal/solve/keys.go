package solve

import (
	"context"
	"fmt"

	"github.com/moby/buildkit/solver/pb"

	"larder/internal/key"
	"larder/internal/layer"
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

// execKey is the exact key of a RUN step: its recipe, and what its mounts show of the inputs. The recipe leaves out
// what BuildKit leaves out: proxies, the addresses of extra hosts, and where a cache mount's content is kept.
func execKey(ctx context.Context, op *pb.ExecOp, platform *pb.Platform, inputs []*layer.State) (key.Digest, error) {
	h := key.New("larder.run.exact.v1")
	recipe := op.CloneVT()
	if recipe.Meta == nil {
		return key.Digest{}, fmt.Errorf("a step without a command: %w", ErrDefinition)
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
		return key.Digest{}, fmt.Errorf("%w: %w", ErrDefinition, err)
	}
	h.Raw(raw)
	h.Str(platform.GetOS()).Str(platform.GetArchitecture()).Str(platform.GetVariant()).Str(platform.GetOSVersion())
	for _, m := range op.Mounts {
		if m.Input < 0 {
			continue
		}
		if int(m.Input) >= len(inputs) {
			return key.Digest{}, fmt.Errorf("a mount of input %d: %w", m.Input, ErrDefinition)
		}
		in := inputs[m.Input]
		if !selected(m) {
			h.Digests(in.Identities())
			continue
		}
		d, err := subtree(ctx, in, m.Selector)
		if err != nil {
			return key.Digest{}, err
		}
		h.Digest(d)
	}
	return h.Sum(), nil
}

// selected tells a mount that shows a part of its input and keeps nothing of what is written to it: its key is that part's
// identity, whatever else the input has.
func selected(m *pb.Mount) bool {
	return m.Input >= 0 && m.Selector != "" && m.Selector != "/" && m.Output < 0
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

package frontend

import (
	"context"
	"errors"
	"fmt"
	"maps"

	"github.com/containerd/platforms"
	bkclient "github.com/moby/buildkit/client"
	"github.com/moby/buildkit/client/llb"
	"github.com/moby/buildkit/client/llb/sourceresolver"
	gwclient "github.com/moby/buildkit/frontend/gateway/client"
	"github.com/moby/buildkit/solver/pb"
	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

// session is the session that local sources are said to belong to. It enters the digests of LLB vertices, so it is the
// same in every build.
const session = "larder"

// gateway is what a frontend sees of larder. It is safe for concurrent use.
type gateway struct {
	req    *Request
	opts   map[string]string // never written to: BuildOpts gives copies
	inputs map[string]*pb.Definition

	configs configs
}

var _ gwclient.Client = (*gateway)(nil)

// BuildOpts implements gwclient.Client.
func (c *gateway) BuildOpts() gwclient.BuildOpts {
	list := c.req.Platforms
	if len(list) == 0 {
		list = []ocispecs.Platform{platforms.Normalize(platforms.DefaultSpec())}
	}
	return gwclient.BuildOpts{
		Opts:      maps.Clone(c.opts), // frontends write to it
		SessionID: session,
		Workers:   []gwclient.WorkerInfo{{ID: product, Platforms: list}},
		Product:   product,
		LLBCaps:   LLBCaps(),
		Caps:      gatewayCaps(),
	}
}

// Solve implements gwclient.Client. Like BuildKit's it does nothing yet, unless it is told to.
func (c *gateway) Solve(ctx context.Context, req gwclient.SolveRequest) (*gwclient.Result, error) {
	switch {
	case req.Frontend != "":
		return nil, fmt.Errorf("a frontend asked for another one, %.80q, which larder does not offer", req.Frontend)
	case len(req.CacheImports) > 0:
		return nil, errors.New("a frontend cannot bring caches of its own; name them with --cache-from")
	case len(req.SourcePolicies) > 0:
		return nil, errors.New("source policies are not supported")
	}
	res := gwclient.NewResult()
	if ref := c.reference(req.Definition); ref != nil {
		if req.Evaluate {
			if err := ref.Evaluate(ctx); err != nil {
				return nil, err
			}
		}
		res.SetRef(ref)
	}
	return res, nil
}

// reference makes a reference of a definition. That of scratch is nil, as frontends expect.
func (c *gateway) reference(def *pb.Definition) gwclient.Reference {
	if def == nil || len(def.Def) == 0 {
		return nil
	}
	return &reference{req: c.req, def: def}
}

// ResolveImageConfig implements gwclient.Client.
func (c *gateway) ResolveImageConfig(ctx context.Context, ref string, opt sourceresolver.Opt) (string, digest.Digest, []byte, error) {
	return c.configs.ResolveImageConfig(ctx, ref, opt)
}

// ResolveSourceMetadata implements gwclient.Client.
func (c *gateway) ResolveSourceMetadata(ctx context.Context, op *pb.SourceOp, opt sourceresolver.Opt) (*sourceresolver.MetaResponse, error) {
	if len(opt.SourcePolicies) > 0 {
		return nil, errors.New("source policies are not supported")
	}
	return c.req.Resolver.ResolveSourceMetadata(ctx, op, opt)
}

// Inputs implements gwclient.Client.
func (c *gateway) Inputs(context.Context) (map[string]llb.State, error) {
	states := make(map[string]llb.State, len(c.inputs))
	for name, def := range c.inputs {
		st, err := stateOf(def)
		if err != nil {
			return nil, fmt.Errorf("input %s: %w", name, err)
		}
		states[name] = st
	}
	return states, nil
}

// NewContainer implements gwclient.Client: frontends cannot run containers in larder.
func (c *gateway) NewContainer(context.Context, gwclient.NewContainerRequest) (gwclient.Container, error) {
	return nil, errors.New("a frontend asked for a container of its own, which larder does not offer")
}

// Warn implements gwclient.Client.
func (c *gateway) Warn(_ context.Context, vertex digest.Digest, msg string, opts gwclient.WarnOpts) error {
	if c.req.Warn != nil {
		c.req.Warn(&bkclient.VertexWarning{
			Vertex:     vertex,
			Level:      opts.Level,
			Short:      []byte(msg),
			Detail:     opts.Detail,
			URL:        opts.URL,
			SourceInfo: opts.SourceInfo,
			Range:      opts.Range,
		})
	}
	return nil
}

func stateOf(def *pb.Definition) (llb.State, error) {
	if def == nil || len(def.Def) == 0 {
		return llb.Scratch(), nil
	}
	op, err := llb.NewDefinitionOp(def)
	if err != nil {
		return llb.State{}, err
	}
	return llb.NewState(op), nil
}

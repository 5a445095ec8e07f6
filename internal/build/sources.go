package build

import (
	"context"
	"fmt"
	"strings"

	"github.com/containerd/platforms"
	"github.com/moby/buildkit/client/llb/sourceresolver"
	"github.com/moby/buildkit/solver/pb"
	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"larder/internal/cache"
	"larder/internal/fault"
	"larder/internal/key"
	"larder/internal/layer"
	"larder/internal/snapshot"
	"larder/internal/source/image"
	"larder/internal/tree"
)

// sources loads the source vertices of one build and answers the frontend's questions about images.
type sources struct {
	locals *locals
	images *image.Resolver
	layers *snapshot.Store

	session *cache.Session
}

// Load implements solve.Sources.
func (s *sources) Load(ctx context.Context, op *pb.SourceOp, platform *pb.Platform) (*layer.State, error) {
	scheme, rest, _ := strings.Cut(op.Identifier, "://")
	switch scheme {
	case "local":
		return s.locals.load(ctx, op)
	case "docker-image":
		img, err := s.images.Resolve(ctx, rest, platformOf(platform), image.Mode(op.Attrs[pb.AttrImageResolveMode]))
		if err != nil {
			return nil, err
		}
		return s.stack(img)
	case "oci-layout":
		img, err := s.layout(ctx, op.Attrs[pb.AttrOCILayoutStoreID], rest, platformOf(platform))
		if err != nil {
			return nil, err
		}
		return s.stack(img)
	case "git", "http", "https":
		return nil, fmt.Errorf("%s: sources from git and http(s) are not possible in this version; fetch it before the build and COPY it", op.Identifier)
	}
	return nil, fmt.Errorf("%s: a source of an unknown kind", op.Identifier)
}

func (s *sources) layout(ctx context.Context, store, ref string, platform *ocispecs.Platform) (*image.Image, error) {
	_, dgst, ok := strings.Cut(ref, "@")
	if !ok {
		return nil, fmt.Errorf("oci-layout://%s: its digest is missing", ref)
	}
	return s.images.ResolveLayout(ctx, store, digest.Digest(dgst), platform)
}

// stack makes a state of an image; nothing of its layers is fetched.
func (s *sources) stack(img *image.Image) (*layer.State, error) {
	var st *layer.State
	for _, blob := range img.Layers {
		id, err := key.FromOCI(blob.DiffID)
		if err != nil {
			return nil, fmt.Errorf("image %s: %w", img.Ref, err)
		}
		l, err := s.layers.FromBlob(blob, func(ctx context.Context) (*tree.Node, error) { return s.session.PinnedTree(ctx, id) })
		if err != nil {
			return nil, fmt.Errorf("image %s: %w", img.Ref, err)
		}
		s.session.Base(l)
		st = st.Push(l)
	}
	return st, nil
}

// ResolveSourceMetadata implements sourceresolver.MetaResolver for images.
func (s *sources) ResolveSourceMetadata(ctx context.Context, op *pb.SourceOp, opt sourceresolver.Opt) (*sourceresolver.MetaResponse, error) {
	scheme, rest, _ := strings.Cut(op.Identifier, "://")
	var img *image.Image
	var err error
	switch scheme {
	case "docker-image":
		var platform *ocispecs.Platform
		mode := ""
		if opt.ImageOpt != nil {
			platform, mode = opt.ImageOpt.Platform, opt.ImageOpt.ResolveMode
			if opt.ImageOpt.AttestationChain || len(opt.ImageOpt.ResolveAttestations) > 0 {
				return nil, fault.Errorf(fault.Build, "%s: attestations of base images are not read by this version", rest)
			}
		}
		img, err = s.images.Resolve(ctx, rest, platform, image.Mode(mode))
	case "oci-layout":
		if opt.OCILayoutOpt == nil {
			return nil, fmt.Errorf("%s: which layout it lies in is not said", op.Identifier)
		}
		img, err = s.layout(ctx, opt.OCILayoutOpt.Store.StoreID, rest, opt.OCILayoutOpt.Platform)
	default:
		return &sourceresolver.MetaResponse{Op: op}, nil
	}
	if err != nil {
		return nil, err
	}
	return &sourceresolver.MetaResponse{
		Op:    op,
		Image: &sourceresolver.ResolveImageResponse{Digest: img.Digest(), Config: img.Config},
	}, nil
}

func platformOf(p *pb.Platform) *ocispecs.Platform {
	if p == nil {
		return nil
	}
	spec := platforms.Normalize(ocispecs.Platform{
		OS: p.OS, Architecture: p.Architecture, Variant: p.Variant, OSVersion: p.OSVersion, OSFeatures: p.OSFeatures,
	})
	return &spec
}

package frontend

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"strconv"
	"time"

	bkclient "github.com/moby/buildkit/client"
	"github.com/moby/buildkit/client/llb/sourceresolver"
	"github.com/moby/buildkit/exporter/containerimage/exptypes"
	commonexptypes "github.com/moby/buildkit/exporter/exptypes"
	gwclient "github.com/moby/buildkit/frontend/gateway/client"
	"github.com/moby/buildkit/solver/pb"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"larder/internal/layer"
)

// Solver gives the state that a definition with one output describes; nil is scratch.
type Solver interface {
	Evaluate(ctx context.Context, def *pb.Definition) (*layer.State, error)
}

// Request is what the frontend is asked for.
type Request struct {
	// Opts are the Dockerfile frontend's options, in its own words: "filename", "target", "platform", "build-arg:NAME",
	// "label:NAME", "no-cache", "context:NAME", "requestid" and so on. They are not changed.
	Opts map[string]string
	// Inputs are definitions that stand for named contexts ("context:NAME=input:KEY"), or for the main context and the
	// Dockerfile under the keys "context" and "dockerfile"; see LocalInput and ArchiveInput.
	Inputs map[string]*pb.Definition
	// Solver evaluates what the frontend reads from: the Dockerfile, .dockerignore. Required.
	Solver Solver
	// Resolver finds images' configs. Required.
	Resolver sourceresolver.MetaResolver
	// Contents finds the contents of a layer that does not bring its own (layer.Layer.Contents is nil). Without it such a
	// layer's files cannot be read by the frontend.
	Contents func(ctx context.Context, l *layer.Layer) (layer.Source, error)
	// Platforms are those that steps can run on, the machine's own first; none means this machine's.
	Platforms []ocispecs.Platform
	// Warn hears what the frontend finds fault with in a Dockerfile that it accepts. It may be called concurrently. Nil
	// drops warnings.
	Warn func(*bkclient.VertexWarning)
	// Notice hears, in one line, where larder did not take the user at his word. Nil drops it.
	Notice func(msg string)
}

// Result is what the frontend made.
type Result struct {
	// Outputs has one entry per platform, in the order asked for. It is empty after a subrequest.
	Outputs []Output
	// Multi is set when an index was asked for, even if for one platform.
	Multi bool
	// Metadata holds all that the frontend said beside that. After a subrequest: "result.txt", "result.json", "version"
	// and, of a check, "result.statuscode".
	Metadata map[string][]byte
}

// Output is what to build for one platform.
type Output struct {
	ID         string // the platform as text, "linux/amd64"
	Platform   ocispecs.Platform
	Def        *pb.Definition // nil is scratch
	Config     []byte         // the image's config, JSON, without layers and history's times
	BaseConfig []byte         // the base image's config, nil without one
	Epoch      *time.Time     // SOURCE_DATE_EPOCH, nil without one
}

// Build runs the frontend. Errors about a place in the Dockerfile carry it: see Describe.
func Build(ctx context.Context, req Request) (*Result, error) {
	c := &gateway{req: &req, opts: maps.Clone(req.Opts), inputs: req.Inputs}
	if c.opts == nil {
		c.opts = map[string]string{}
	}
	c.configs.resolver = sourceresolver.NewImageMetaResolver(c)
	res, err := c.dockerfile(ctx)
	if err != nil {
		return nil, err
	}
	if res == nil { // a subrequest that had nothing to say
		return &Result{}, nil
	}
	return convert(res)
}

// explain adds the way out to an error that does not show it.
func (c *gateway) explain(err error) error {
	var missing *fs.PathError
	filename := c.opts["filename"]
	if filename == "" {
		filename = "Dockerfile"
	}
	if errors.As(err, &missing) && missing.Op == opOpen && missing.Path == filename && errors.Is(missing, fs.ErrNotExist) {
		return fmt.Errorf("there is no %s; name the Dockerfile with -f: %w", filename, err)
	}
	return err
}

// convert takes the frontend's result apart.
func convert(res *gwclient.Result) (*Result, error) {
	out := &Result{Metadata: res.Metadata, Multi: len(res.Refs) > 0}
	raw, ok := res.Metadata[exptypes.ExporterPlatformsKey]
	if !ok {
		return out, nil // a subrequest
	}
	var list exptypes.Platforms
	if err := json.Unmarshal(raw, &list); err != nil {
		return nil, fmt.Errorf("frontend's list of platforms: %w", err)
	}
	for _, p := range list.Platforms {
		suffix := ""
		if out.Multi {
			suffix = "/" + p.ID
		}
		ref, ok := res.FindRef(p.ID)
		if !ok {
			return nil, fmt.Errorf("frontend gave no result for %s", p.ID)
		}
		o := Output{
			ID:         p.ID,
			Platform:   p.Platform,
			Def:        definition(ref),
			Config:     res.Metadata[exptypes.ExporterImageConfigKey+suffix],
			BaseConfig: res.Metadata[exptypes.ExporterImageBaseConfigKey+suffix],
		}
		if text, ok := res.Metadata[commonexptypes.ExporterEpochKey+suffix]; ok {
			sec, err := strconv.ParseInt(string(text), 10, 64)
			if err != nil {
				return nil, fmt.Errorf("frontend's SOURCE_DATE_EPOCH: %w", err)
			}
			t := time.Unix(sec, 0).UTC()
			o.Epoch = &t
		}
		out.Outputs = append(out.Outputs, o)
	}
	return out, nil
}

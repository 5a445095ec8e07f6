package frontend

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"strings"

	"github.com/containerd/platforms"
	"github.com/moby/buildkit/client/llb"
	"github.com/moby/buildkit/frontend/dockerfile/dockerfile2llb"
	"github.com/moby/buildkit/frontend/dockerfile/linter"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
	"github.com/moby/buildkit/frontend/dockerui"
	gwclient "github.com/moby/buildkit/frontend/gateway/client"
	"github.com/moby/buildkit/frontend/subrequests/convertllb"
	"github.com/moby/buildkit/frontend/subrequests/lint"
	"github.com/moby/buildkit/frontend/subrequests/outline"
	"github.com/moby/buildkit/frontend/subrequests/targets"
	"github.com/moby/buildkit/solver/errdefs"
	"github.com/moby/buildkit/solver/pb"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

// dockerfile joins BuildKit's parts for a Dockerfile: options, reading, conversion to LLB. It stands in for
// frontend/dockerfile/builder.Build of v0.33.0, whose cache of image configs writes one field from several goroutines
// (builder/resolvecache.go:30: any Dockerfile with two images fails under the race detector), and which would run the
// image that a "# syntax" line names.
func (c *gateway) dockerfile(ctx context.Context) (*gwclient.Result, error) {
	ui, err := dockerui.NewClient(c)
	if err != nil {
		return nil, err
	}
	if err := c.supported(ui); err != nil {
		return nil, err
	}
	src, err := ui.ReadEntrypoint(ctx, "Dockerfile")
	if err != nil {
		return nil, c.explain(err)
	}
	res, err := c.convert(ctx, ui, src)
	return res, locate(err, src.SourceMap)
}

// supported refuses options that would otherwise be passed over.
func (c *gateway) supported(ui *dockerui.Client) error {
	if ui.SBOM != nil {
		return errors.New("SBOM attestations are not supported; leave --sbom and --attest type=sbom out")
	}
	if len(ui.CacheImports) > 0 {
		return errors.New("a frontend cannot bring caches of its own; name them with --cache-from")
	}
	for cap := range strings.SplitSeq(c.opts["frontend.caps"], ",") {
		name, _, _ := strings.Cut(cap, "+")
		switch strings.TrimPrefix(name, "moby.buildkit.frontend.") {
		case "", "inputs", "subrequests", "contexts", "contexts.zstd", "gitquerystring":
		default:
			return fmt.Errorf("the Dockerfile frontend cannot do %.80q", name)
		}
	}
	return nil
}

// convert answers a subrequest, or makes one result for each platform.
func (c *gateway) convert(ctx context.Context, ui *dockerui.Client, src *dockerui.Source) (*gwclient.Result, error) {
	if err := c.syntax(src.Data); err != nil {
		return nil, err
	}
	opt := dockerfile2llb.ConvertOpt{
		Config:       ui.Config,
		Client:       ui,
		SourceMap:    src.SourceMap,
		MetaResolver: &c.configs,
		Warn: func(rule, description, url, msg string, where []parser.Range) {
			line := 0
			if len(where) > 0 {
				line = where[0].Start.Line
			}
			src.Warn(ctx, linter.LintFormatShort(rule, msg, line), gwclient.WarnOpts{
				Level: 1, Detail: [][]byte{[]byte(description)}, URL: url, Range: ranges(where),
			})
		},
	}
	res, isSubrequest, err := ui.HandleSubrequest(ctx, dockerui.RequestHandler{
		Outline: func(ctx context.Context) (*outline.Outline, error) {
			return dockerfile2llb.Dockerfile2Outline(ctx, src.Data, opt)
		},
		ListTargets: func(ctx context.Context) (*targets.List, error) {
			return listTargets(ctx, src.Data)
		},
		Lint: func(ctx context.Context) (*lint.LintResults, error) {
			return dockerfile2llb.DockerfileLint(ctx, src.Data, opt)
		},
		ConvertLLB: func(ctx context.Context) (*convertllb.Result, error) {
			return dockerfile2llb.DockerfileConvertLLB(ctx, src.Data, opt)
		},
	})
	if err != nil || isSubrequest {
		return res, err
	}
	all, err := ui.Build(ctx, func(ctx context.Context, platform *ocispecs.Platform, i int) (*dockerui.BuildResult, error) {
		opt := opt
		opt.BuildArgs = maps.Clone(opt.BuildArgs)
		opt.TargetPlatform = platform
		if i > 0 {
			opt.Warn = nil // the same for every platform
		}
		return c.target(ctx, src.Data, opt)
	})
	if err != nil {
		return nil, err
	}
	return all.Finalize()
}

// target converts the Dockerfile for one platform.
func (c *gateway) target(ctx context.Context, data []byte, opt dockerfile2llb.ConvertOpt) (*dockerui.BuildResult, error) {
	made, err := dockerfile2llb.Dockerfile2LLB(ctx, data, opt)
	if err != nil {
		return nil, err
	}
	def, err := made.State.Marshal(ctx)
	if err != nil {
		p := platforms.DefaultSpec()
		if opt.TargetPlatform != nil {
			p = *opt.TargetPlatform
		}
		return nil, fmt.Errorf("write LLB for %s: %w", platforms.FormatAll(p), err)
	}
	return &dockerui.BuildResult{
		Reference: c.reference(def.ToPB()),
		Image:     made.Image,
		BaseImage: made.BaseImage,
		Epoch:     made.Epoch,
	}, nil
}

// locate adds the places in the Dockerfile that the parser or the converter noted in an error.
func locate(err error, m *llb.SourceMap) error {
	var located *parser.LocationError
	if !errors.As(err, &located) {
		return err
	}
	for _, where := range located.Locations {
		err = errdefs.WithSource(err, &errdefs.Source{
			Info: &pb.SourceInfo{
				Data:       m.Data,
				Filename:   m.Filename,
				Language:   m.Language,
				Definition: m.Definition.ToPB(),
			},
			Ranges: ranges(where),
		})
	}
	return err
}

func ranges(where []parser.Range) []*pb.Range {
	var out []*pb.Range
	for _, r := range where {
		out = append(out, &pb.Range{Start: position(r.Start), End: position(r.End)})
	}
	return out
}

func position(p parser.Position) *pb.Position {
	return &pb.Position{Line: int32(p.Line), Character: int32(p.Character)}
}

// check is a comment that says which rules of the linter are to be left out.
var check = regexp.MustCompile(`(?mi)^[ \t]*#[ \t]*check[ \t]*=.*$`)

// listTargets lists the stages of a Dockerfile. BuildKit v0.33.0 panics at a check comment above an instruction here, where it has no linter.
func listTargets(ctx context.Context, dockerfile []byte) (*targets.List, error) {
	list, err := dockerfile2llb.ListTargets(ctx, check.ReplaceAll(dockerfile, []byte("#")))
	if err == nil {
		list.Sources = [][]byte{dockerfile}
	}
	return list, err
}

package build

import (
	"context"
	"errors"

	"github.com/moby/buildkit/client/llb/sourceresolver"
	"github.com/moby/buildkit/solver/pb"

	"larder/internal/fault"
	"larder/internal/progress"
)

// announced shows each question to a registry as a line of the display.
type announced struct {
	*sources
	stream *progress.Stream
}

// ResolveSourceMetadata implements sourceresolver.MetaResolver.
func (a *announced) ResolveSourceMetadata(ctx context.Context, op *pb.SourceOp, opt sourceresolver.Opt) (*sourceresolver.MetaResponse, error) {
	name := opt.LogName
	if name == "" {
		name = "load metadata for " + op.Identifier
	}
	line := a.stream.Begin(name)
	res, err := a.sources.ResolveSourceMetadata(progress.With(ctx, line), op, opt)
	if ctx.Err() != nil {
		err = context.Canceled // the cause is some other question's, and told by it
	}
	line.Done(err)
	if err != nil && !errors.Is(err, context.Canceled) {
		err = fault.New(fault.Registry, err) // unless whoever saw it first knew better
	}
	return res, err
}

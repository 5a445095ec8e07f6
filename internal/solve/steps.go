package solve

import (
	"context"
	"errors"
	"fmt"

	"github.com/moby/buildkit/solver/pb"

	"larder/internal/layer"
	"larder/internal/progress"
	"larder/internal/record"
	"larder/internal/report"
)

// job is a vertex that a worker has: what to do, on which inputs.
type job struct {
	*node
	line   *progress.Vertex
	inputs []*layer.State
	result bool // see Use.Result
}

// done ends the line, unless the step goes back to one whose layer is gone: then it is done again, and has not failed.
func (j job) done(err error) {
	var gone *layer.GoneError
	if !errors.As(err, &gone) {
		j.line.Done(err)
	}
}

// outputs is how many outputs the step has.
func (j job) outputs() int {
	n := 0
	if x := j.op.GetExec(); x != nil {
		for _, m := range x.Mounts {
			n = max(n, int(m.Output)+1)
		}
	}
	if f := j.op.GetFile(); f != nil {
		for _, a := range f.Actions {
			n = max(n, int(a.Output)+1)
		}
	}
	return n
}

// do gives the outputs of a vertex. Its context is cancelled when nobody wants them any more.
func (s *Solver) do(ctx context.Context, j job) ([]*layer.State, error) {
	ctx = progress.With(ctx, j.line)
	switch op := j.op.Op.(type) {
	case *pb.Op_Source:
		return s.source(ctx, j, op.Source)
	case *pb.Op_File:
		return s.files(ctx, j, op.File)
	case *pb.Op_Exec:
		return s.exec(ctx, j, op.Exec)
	case *pb.Op_Merge:
		out, err := merge(ctx, op.Merge, j.inputs)
		j.done(err)
		return []*layer.State{out}, err
	case *pb.Op_Diff:
		out, err := diff(ctx, op.Diff, j.inputs)
		j.done(err)
		return []*layer.State{out}, err
	}
	err := fmt.Errorf("%q is an operation that this version does not know", j.name)
	j.line.Done(err)
	return nil, err
}

func (s *Solver) source(ctx context.Context, j job, op *pb.SourceOp) ([]*layer.State, error) {
	j.line.Start()
	st, err := s.opt.Sources.Load(ctx, op, j.op.Platform)
	j.line.Done(err)
	if err == nil {
		s.accountSource(j, op, st)
	} else if ctx.Err() == nil {
		s.accountFailed(j, report.Other)
	}
	return []*layer.State{st}, err
}

// used tells whoever wants to know that a record was used.
func (s *Solver) used(rec *record.Record, layers []*layer.Layer, result bool) {
	if s.opt.Used != nil {
		s.opt.Used(Use{Record: rec, Layers: layers, Result: result})
	}
}

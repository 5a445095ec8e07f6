package solve

import (
	"context"
	"errors"
	"fmt"

	"github.com/moby/buildkit/solver/pb"

	"larder/internal/key"
	"larder/internal/layer"
	"larder/internal/record"
	"larder/internal/tree"
)

// maxDifferences bounds the files that are named of one step.
const maxDifferences = 20

// Difference is a step whose result, made again, is another than its record says (--cache-verify).
type Difference struct {
	Step  string            `json:"step"`
	Key   key.Digest        `json:"key"`
	Files []tree.Difference `json:"files"` // the first ones
	More  int               `json:"more,omitempty"`
}

// Differences lists the hits that came out otherwise when they were run again.
func (s *Solver) Differences() []Difference {
	s.stats.Lock()
	defer s.stats.Unlock()
	return append([]Difference(nil), s.differences...)
}

// verify runs a step whose record was found and compares what comes out with it, file by file. The record counts either way.
func (s *Solver) verify(ctx context.Context, j job, op *pb.ExecOp, rec *record.Record, found []*layer.State) error {
	if err := s.slot(ctx); err != nil {
		return err
	}
	defer s.release()
	j.line.Start()
	res, err := s.run(ctx, j, op)
	if err != nil {
		j.line.Done(err)
		return err
	}
	diff := Difference{Step: j.label, Key: rec.Key}
	for i, o := range res.Outputs {
		if i >= len(found) || o.Base != rec.Outputs[i].Base {
			diff.Files = append(diff.Files, tree.Difference{What: "the step has other outputs than its record"})
			continue
		}
		was, err := own(ctx, found[i], len(rec.Outputs[i].Layers))
		var gone *layer.GoneError
		if errors.As(err, &gone) {
			j.line.Note(fmt.Sprintf("cannot be compared, what the cache has is not to be had: %v", gone.Err))
			return nil // whoever needs the layer will find that out, and have it made
		}
		if err != nil {
			return err
		}
		is, err := own(ctx, o.State, len(o.Layers))
		if err != nil {
			return err
		}
		list, more, err := tree.Compare(was, is, maxDifferences)
		if err != nil {
			return err
		}
		diff.Files = append(diff.Files, list...)
		diff.More += more
	}
	if len(diff.Files) == 0 {
		j.line.Note("verified: run again, it makes the same")
		return nil
	}
	for _, f := range diff.Files {
		j.line.Note(fmt.Sprintf("differs from the cache: /%s: %s", f.Path, f.What))
	}
	if diff.More > 0 {
		j.line.Note(fmt.Sprintf("and %d more", diff.More))
	}
	s.stats.Lock()
	defer s.stats.Unlock()
	s.differences = append(s.differences, diff)
	return nil
}

// own merges the upper n layers of a state: what a step itself made of it. Whiteouts that have nothing below them stay.
func own(ctx context.Context, st *layer.State, n int) (*tree.Node, error) {
	switch n {
	case 0:
		return tree.Empty(), nil
	case 1:
		return st.Top().Tree(ctx)
	}
	return nil, fmt.Errorf("a step made %d layers of one file system", n)
}

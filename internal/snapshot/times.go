package snapshot

import (
	"context"
	"fmt"

	"larder/internal/layer"
)

// Timed gives a state with the times that a step sees: those of the layers' directories, which may have been made for other layers of these
// identities, at other times than the trees at hand say. Layers that are not here are made. Those of base images stay as they are, as all makings
// of one have the same times. Those that served has are shown by their trees, and stay as well. What lies below the first layer whose tree
// is another is shared with state.
func (s *Store) Timed(ctx context.Context, state *layer.State, served map[*layer.Layer]bool) (*layer.State, error) {
	timed, err := s.timed(ctx, state, served)
	if err != nil {
		return nil, s.explain(fmt.Errorf("times of layers: %w", err))
	}
	return timed, nil
}

func (s *Store) timed(ctx context.Context, state *layer.State, served map[*layer.Layer]bool) (*layer.State, error) {
	if state == nil {
		return nil, nil
	}
	below, err := s.timed(ctx, state.Parent(), served)
	if err != nil {
		return nil, err
	}
	l := state.Top()
	if l.Blob == nil && !served[l] {
		e, err := s.current(ctx, l)
		if err != nil {
			return nil, err
		}
		root, err := l.Tree(ctx)
		if err != nil {
			return nil, err
		}
		if root != e.root {
			l = layer.New(l.Identity, l.Pinned, e.root, e)
		}
	}
	if l == state.Top() && below == state.Parent() {
		return state, nil
	}
	return below.Push(l), nil
}

// current is ensure for who needs the times that a directory has now: another process may have given it others since it was opened.
func (s *Store) current(ctx context.Context, l *layer.Layer) (*entry, error) {
	for {
		e, err := s.ensure(ctx, l)
		if err != nil {
			return nil, err
		}
		now, err := readMeta(e.dir)
		if err != nil {
			return nil, err
		}
		if now.Tree == e.Tree {
			return e, nil
		}
		if err := s.reopen(e); err != nil {
			return nil, err
		}
	}
}

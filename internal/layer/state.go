package layer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"larder/internal/key"
	"larder/internal/tree"
)

// State is an ordered stack of layers, the file system that a step sees (DESIGN section 2). States share what is below
// them; nil is the empty file system ("scratch"). Immutable to its users, safe for concurrent use.
type State struct {
	parent *State
	top    *Layer
	depth  int

	mu     sync.Mutex
	merged *tree.Node
	runs   []sameRun
	groups []Group
}

// Push gives the state with one more layer on top of s, which may be nil.
func (s *State) Push(l *Layer) *State {
	return &State{parent: s, top: l, depth: s.Depth() + 1}
}

// Stack makes a state of layers, the bottom one first.
func Stack(layers ...*Layer) *State {
	var s *State
	for _, l := range layers {
		s = s.Push(l)
	}
	return s
}

// Depth is the number of layers.
func (s *State) Depth() int {
	if s == nil {
		return 0
	}
	return s.depth
}

// Parent is the state below the top layer.
func (s *State) Parent() *State { return s.parent }

// Top is the uppermost layer.
func (s *State) Top() *Layer { return s.top }

// Layers lists the stack, the bottom layer first. The slice is the caller's.
func (s *State) Layers() []*Layer {
	out := make([]*Layer, s.Depth())
	for ; s != nil; s = s.parent {
		out[s.depth-1] = s.top
	}
	return out
}

// Identities lists the identities of the layers, the bottom one first: what enters an exact key.
func (s *State) Identities() []key.Digest {
	out := make([]key.Digest, s.Depth())
	for ; s != nil; s = s.parent {
		out[s.depth-1] = s.top.Identity
	}
	return out
}

// Merged gives the file system that a step sees: no whiteouts, no opaque marks. It is computed once per state.
func (s *State) Merged(ctx context.Context) (*tree.Node, error) {
	if s == nil {
		return tree.Empty(), nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.merged != nil {
		return s.merged, nil
	}
	lower, err := s.parent.Merged(ctx)
	if err != nil {
		return nil, err
	}
	upper, err := s.top.Tree(ctx)
	if err != nil {
		return nil, err
	}
	s.merged, err = tree.Apply(lower, upper)
	return s.merged, err
}

// Contents opens the contents of any file of the merged tree: the topmost layer that knows it gives it.
func (s *State) Contents() Source { return stateSource{s} }

type stateSource struct{ s *State }

// Open implements Source.
func (c stateSource) Open(ctx context.Context, d key.Digest, size int64) (io.ReadCloser, error) {
	for s := c.s; s != nil; s = s.parent {
		if s.top.Contents == nil {
			continue
		}
		rc, err := s.top.Contents.Open(ctx, d, size)
		if !errors.Is(err, ErrNoContent) {
			return rc, err
		}
	}
	return nil, fmt.Errorf("%s: %w", d, ErrNoContent)
}

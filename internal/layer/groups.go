package layer

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"larder/internal/key"
	"larder/internal/tree"
)

// Group is a run of neighbouring layers of a state that a RUN step is shown in one way.
type Group struct {
	Layers   []*Layer   // the bottom one first; not to be written to
	Observed bool       // what the step looks at in these layers is noted
	Why      string     // why observed layers of a pinned group cannot be, as Unobservable says it; empty where there is nothing to say
	Root     *tree.Node // of an observed group: its layers as one layer tree
	Contents Source     // opens every File of Root, from the topmost layer that has it; nil for a pinned group
}

// Groups lists the groups of a state, the bottom one first: observed layers next to each other, and pinned ones. Observed layers that
// together have nothing but directories count as pinned, as their identity says as much and costs no observation; so do those
// of which one is Unobservable. The slice is computed once and is the state's own: it is never written to. The trees of pinned layers
// are not asked for.
func (s *State) Groups(ctx context.Context) ([]Group, error) {
	if s == nil {
		return nil, nil
	}
	runs, err := s.sameRuns(ctx)
	if err != nil {
		return nil, fmt.Errorf("groups of layers: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.groups != nil {
		return s.groups, nil
	}
	var groups []Group
	for _, r := range runs {
		g, err := r.group()
		if err != nil {
			return nil, fmt.Errorf("groups of layers: %w", err)
		}
		if n := len(groups); n > 0 && !g.Observed && !groups[n-1].Observed {
			last := &groups[n-1]
			last.Layers, last.Why = slices.Concat(last.Layers, g.Layers), cmp.Or(last.Why, g.Why)
			continue
		}
		groups = append(groups, g)
	}
	s.groups = groups
	return groups, nil
}

// sameRun is a run of neighbouring layers that are all pinned or all observed.
type sameRun struct {
	layers []*Layer
	root   *tree.Node // of observed layers, as one layer tree; else nil
	why    string     // one of them is Unobservable
}

// sameRuns gives the layers of a state in as few runs as can be. It makes those of the states below on the way, which keep them.
func (s *State) sameRuns(ctx context.Context) ([]sameRun, error) {
	if s == nil {
		return nil, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.runs != nil {
		return s.runs, nil
	}
	below, err := s.parent.sameRuns(ctx)
	if err != nil {
		return nil, err
	}
	run := sameRun{layers: []*Layer{s.top}}
	if !s.top.Pinned {
		if run.root, err = s.top.Tree(ctx); err != nil {
			return nil, err
		}
		if run.why, err = Unobservable(run.root); err != nil {
			return nil, err
		}
	}
	if n := len(below) - 1; n >= 0 && (below[n].root == nil) == (run.root == nil) {
		last := below[n]
		if run.root != nil {
			if run.root, err = tree.Compose(last.root, run.root); err != nil {
				return nil, err
			}
		}
		run.layers, run.why = slices.Concat(last.layers, run.layers), cmp.Or(last.why, run.why)
		below = below[:n]
	}
	s.runs = append(slices.Clip(below), run)
	return s.runs, nil
}

func (r *sameRun) group() (Group, error) {
	if r.root == nil {
		return Group{Layers: r.layers}, nil
	}
	bare, err := onlyDirs(r.root)
	switch {
	case err != nil:
		return Group{}, err
	case bare:
		return Group{Layers: r.layers}, nil
	case r.why != "":
		return Group{Layers: r.layers, Why: r.why}, nil
	}
	return Group{Layers: r.layers, Observed: true, Root: r.root, Contents: layersSource(r.layers)}, nil
}

// onlyDirs tells whether a tree has nothing but directories.
func onlyDirs(n *tree.Node) (bool, error) {
	if n.Kind != tree.Dir {
		return false, nil
	}
	entries, err := n.Entries()
	if err != nil {
		return false, err
	}
	for _, e := range entries {
		if bare, err := onlyDirs(e.Node); err != nil || !bare {
			return false, err
		}
	}
	return true, nil
}

// aclPrefix begins the names of the attributes that the kernel's permission checks ask a file system for on ways of their own.
const aclPrefix = "system.posix_acl_"

// Unobservable says in a few words why a tree, merged or a layer's, cannot be served to a step such that what the step looks at is
// noted, and shows what its directory would: "it has POSIX ACLs". Empty where it can.
func Unobservable(root *tree.Node) (string, error) {
	if root.Opaque {
		return "it replaces the whole file system", nil // overlay does not heed the mark there
	}
	has, err := hasACL(root)
	if err != nil || !has {
		return "", err
	}
	return "it has POSIX ACLs", nil
}

func hasACL(n *tree.Node) (bool, error) {
	if slices.ContainsFunc(n.Xattrs, func(x tree.Xattr) bool { return strings.HasPrefix(x.Name, aclPrefix) }) {
		return true, nil
	}
	entries, err := n.Entries()
	if err != nil {
		return false, err
	}
	for _, e := range entries {
		if has, err := hasACL(e.Node); err != nil || has {
			return has, err
		}
	}
	return false, nil
}

// layersSource opens the files of layers, the bottom one first: the topmost that knows the contents gives them.
type layersSource []*Layer

// Open implements Source.
func (layers layersSource) Open(ctx context.Context, d key.Digest, size int64) (io.ReadCloser, error) {
	for _, l := range slices.Backward(layers) {
		if l.Contents == nil {
			continue
		}
		rc, err := l.Contents.Open(ctx, d, size)
		if !errors.Is(err, ErrNoContent) {
			return rc, err
		}
	}
	return nil, fmt.Errorf("%s: %w", d, ErrNoContent)
}

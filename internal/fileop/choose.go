package fileop

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/moby/buildkit/solver/pb"
	"github.com/moby/patternmatcher"

	"larder/internal/key"
	"larder/internal/tree"
)

// NotFoundError says that a path which an operation needs does not exist. It is an fs.ErrNotExist.
type NotFoundError struct {
	Path string
}

func (e *NotFoundError) Error() string { return fmt.Sprintf("%q: not found", e.Path) }

// Is makes errors.Is(err, fs.ErrNotExist) true.
func (e *NotFoundError) Is(target error) bool { return target == fs.ErrNotExist }

// chosen is one source of a copy: a match of its source path, with what the patterns leave of it.
type chosen struct {
	name  string // the path as the copy names it, whose last component the target may take
	clean string // where it is, links resolved
	node  *tree.Node
	// through holds the directories of node that no pattern includes: they are only there for what is below them.
	through map[*tree.Node]struct{}
}

// choose finds what a copy copies, in the order in which it does.
func choose(ctx context.Context, root *tree.Node, a *pb.FileActionCopy) ([]chosen, error) {
	src := cleanPath(a.Src)
	matches := []string{src}
	if a.AllowWildcard {
		var err error
		matches, err = resolveWildcards(treeFS{root}, src, a.FollowSymlink)
		if err != nil {
			return nil, sourceError(src, err)
		}
		if len(matches) == 0 && !a.AllowEmptyWildcard {
			return nil, fmt.Errorf("%s not found: %w", src, &NotFoundError{Path: src})
		}
	}
	f, err := newFilter(ctx, a)
	if err != nil {
		return nil, err
	}
	var out []chosen
	for _, m := range matches {
		clean, n, err := tree.Resolve(root, path.Join("/", m), a.FollowSymlink)
		if err == nil && n == nil {
			err = &NotFoundError{Path: path.Join("/", m)}
		}
		if err != nil {
			return nil, sourceError(src, err)
		}
		c := chosen{name: m, clean: clean, node: n}
		if f != nil && n.Kind == tree.Dir {
			c.through = map[*tree.Node]struct{}{}
			if c.node, err = f.root(n, c.through); err != nil {
				return nil, err
			}
		}
		out = append(out, c)
	}
	if f != nil || hasWildcards(a.Src) && a.AllowWildcard {
		return out, required(out, a.RequiredPaths)
	}
	return out, nil
}

// sourceError words a path that cannot be followed as BuildKit words a missing one.
func sourceError(src string, err error) error {
	if pe, ok := err.(*fs.PathError); ok {
		if errors.Is(pe.Err, syscall.ENOENT) || errors.Is(pe.Err, syscall.ENOTDIR) {
			return &NotFoundError{Path: path.Join("/", src)}
		}
		return fmt.Errorf("%s: %w", src, pe.Err)
	}
	return err
}

// required checks that every path that must be there, as a prefix, is among what was chosen.
func required(out []chosen, paths []string) error {
	for _, want := range paths {
		found := false
		for _, c := range out {
			err := tree.Walk(c.node, func(rel string, n *tree.Node) error {
				_, through := c.through[n]
				full := path.Join("/", c.name, rel)
				if !through && strings.HasPrefix(full, want) {
					found = true
				}
				if found || n.Kind == tree.Dir && !strings.HasPrefix(want, full) {
					return skipDir(n)
				}
				return nil
			})
			if err != nil {
				return err
			}
		}
		if !found {
			return &NotFoundError{Path: want}
		}
	}
	return nil
}

func skipDir(n *tree.Node) error {
	if n.Kind == tree.Dir {
		return tree.SkipDir
	}
	return nil
}

// sum adds what was chosen to a key.
func (c *chosen) sum(h *key.Hasher) error {
	id, err := c.node.Identity()
	if err != nil {
		return err
	}
	h.Str(path.Base(c.name)).Digest(id)
	return nil
}

// filter leaves of a directory what include and exclude patterns say, matching as the copy engine does: each path with
// its parent's result at hand.
type filter struct {
	ctx              context.Context
	include, exclude *patternmatcher.PatternMatcher
}

func newFilter(ctx context.Context, a *pb.FileActionCopy) (*filter, error) {
	if len(a.IncludePatterns) == 0 && len(a.ExcludePatterns) == 0 {
		return nil, nil
	}
	f := &filter{ctx: ctx}
	var err error
	if len(a.IncludePatterns) > 0 {
		if f.include, err = patternmatcher.New(a.IncludePatterns); err != nil {
			return nil, fmt.Errorf("invalid include patterns %q: %w", a.IncludePatterns, err)
		}
	}
	if len(a.ExcludePatterns) > 0 {
		if f.exclude, err = patternmatcher.New(a.ExcludePatterns); err != nil {
			return nil, fmt.Errorf("invalid exclude patterns %q: %w", a.ExcludePatterns, err)
		}
	}
	return f, nil
}

// matched is what the two matchers said of a directory.
type matched struct{ include, exclude patternmatcher.MatchInfo }

func (f *filter) root(n *tree.Node, through map[*tree.Node]struct{}) (*tree.Node, error) {
	out, _, err := f.dir("", n, matched{}, through)
	return out, err
}

// dir filters what a directory holds. kept says that anything was; the result is n itself where all of it was.
func (f *filter) dir(rel string, n *tree.Node, m matched, through map[*tree.Node]struct{}) (out *tree.Node, kept bool, err error) {
	if err := f.ctx.Err(); err != nil {
		return nil, false, err
	}
	entries, err := n.Entries()
	if err != nil {
		return nil, false, err
	}
	same := true
	var keep []tree.Entry
	for _, e := range entries {
		c, err := f.node(tree.Join(rel, e.Name), e.Node, m, through)
		if err != nil {
			return nil, false, err
		}
		if c != e.Node {
			same = false
		}
		if c != nil {
			keep = append(keep, tree.Entry{Name: e.Name, Node: c})
		}
	}
	if same {
		return n, len(entries) > 0, nil
	}
	out, err = tree.NewDir(n.Meta, false, keep)
	return out, len(keep) > 0, err
}

func (f *filter) node(rel string, n *tree.Node, parent matched, through map[*tree.Node]struct{}) (*tree.Node, error) {
	var m matched
	var err error
	include, excluded := true, false
	if f.include != nil {
		if include, m.include, err = f.include.MatchesUsingParentResults(rel, parent.include); err != nil {
			return nil, fmt.Errorf("match include patterns: %w", err)
		}
	}
	if f.exclude != nil {
		if excluded, m.exclude, err = f.exclude.MatchesUsingParentResults(rel, parent.exclude); err != nil {
			return nil, fmt.Errorf("match exclude patterns: %w", err)
		}
	}
	include = include && !excluded
	switch {
	case n.Kind != tree.Dir && include:
		return n, nil
	case n.Kind != tree.Dir:
		return nil, nil
	case excluded && !f.exclude.Exclusions():
		return nil, nil
	}
	out, kept, err := f.dir(rel, n, m, through)
	if err != nil || include {
		return out, err
	}
	if !kept {
		return nil, nil
	}
	out = out.WithMeta(out.Meta) // a node of its own, as the same directory may stand elsewhere, included
	through[out] = struct{}{}
	return out, nil
}

// cleanPath makes a path absolute and clean, but keeps a slash, or a slash and a dot, at its end.
func cleanPath(s string) string {
	clean := filepath.Join("/", s)
	end := ""
	switch {
	case strings.HasSuffix(s, "/."):
		end = "."
		if clean != "/" {
			end = "/."
		}
	case strings.HasSuffix(s, "/") && clean != "/":
		end = "/"
	}
	return clean + end
}

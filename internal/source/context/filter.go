package context

import (
	"fmt"
	"path"
	"strings"

	"github.com/tonistiigi/fsutil"
)

// patterns are the lists that a filter is made of: Options with FollowPaths resolved.
type patterns struct{ include, exclude []string }

// patterns resolves FollowPaths on the unfiltered directory and joins the result to the includes.
func (s *scan) patterns() (patterns, error) {
	p := patterns{exclude: s.opt.Exclude}
	p.include = append(p.include, s.opt.Include...)
	if s.opt.FollowPaths == nil {
		return p, nil
	}
	fs, err := fsutil.NewFS(s.dir)
	if err != nil {
		return p, err
	}
	follow := make([]string, len(s.opt.FollowPaths))
	for i, f := range s.opt.FollowPaths {
		// fsutil would look outside of the context for a path that starts with "..".
		follow[i] = path.Join(".", path.Clean("/"+f))
	}
	targets, err := fsutil.FollowLinks(fs, follow)
	if err != nil {
		return p, fmt.Errorf("resolve %q: %w", s.opt.FollowPaths, err)
	}
	if targets != nil { // nil: one of them is the whole directory
		p.include = dropNested(append(p.include, targets...))
	}
	return p, nil
}

// dropNested drops a path that stands right behind one that contains it, and everything when one path is the root:
// there is no filter then. The list is not sorted first, because fsutil does not either.
func dropNested(paths []string) []string {
	var out []string
	last := ""
	for _, p := range paths {
		if p == "." {
			return nil
		}
		if strings.HasPrefix(p, last+"/") {
			continue
		}
		out = append(out, p)
		last = p
	}
	return out
}

// verdict is what a filter says of a path.
type verdict uint8

const (
	keep  verdict = iota // it is in the layer
	enter                // it is not, but something below it may be
	prune                // neither it nor anything below it is
)

// matches is what a directory's patterns said, for its children's use. The zero value is the root's.
type matches struct{ include, exclude standing }

// filter decides about paths as fsutil's filtered walk does, with its short cuts: they are visible where a
// pattern excepts what lies below an excluded directory. It is not safe for concurrent use: matchers compile lazily.
type filter struct{ include, exclude *patternList } // nil where there is no pattern

func newFilter(p patterns) (*filter, error) {
	f := &filter{}
	var err error
	if len(p.include) > 0 {
		if f.include, err = newPatternList(p.include, false); err != nil {
			return nil, fmt.Errorf("invalid include patterns %q: %w", p.include, err)
		}
	}
	if len(p.exclude) > 0 {
		if f.exclude, err = newPatternList(p.exclude, true); err != nil {
			return nil, fmt.Errorf("invalid exclude patterns %q: %w; look into .dockerignore", p.exclude, err)
		}
	}
	return f, nil
}

// unfiltered tells that every path is kept.
func (f *filter) unfiltered() bool { return f.include == nil && f.exclude == nil }

// judge decides about one path. The matches it gives are for the children of a directory.
func (f *filter) judge(path string, isDir bool, parent matches) (verdict, matches, error) {
	var m matches
	v := keep
	if f.include != nil {
		ok, err := f.include.match(path, parent.include, &m.include)
		if err != nil {
			return prune, m, fmt.Errorf("match include patterns: %w", err)
		}
		if !ok {
			v = enter
			if isDir && f.include.ruledOut(path) {
				return prune, m, nil
			}
		}
	}
	if f.exclude != nil {
		ok, err := f.exclude.match(path, parent.exclude, &m.exclude)
		if err != nil {
			return prune, m, fmt.Errorf("match exclude patterns: %w; look into .dockerignore", err)
		}
		if ok {
			v = enter
			if isDir && f.exclude.ruledOut(path) {
				return prune, m, nil
			}
		}
	}
	if v == enter && !isDir {
		v = prune
	}
	return v, m, nil
}

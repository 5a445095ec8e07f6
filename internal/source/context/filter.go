package context

import (
	"fmt"
	"strings"

	"github.com/moby/patternmatcher"
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
	targets, err := fsutil.FollowLinks(fs, s.opt.FollowPaths)
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
type matches struct{ include, exclude patternmatcher.MatchInfo }

// filter decides about paths as fsutil's filtered walk does, with its short cuts: they are visible where a
// pattern excepts what lies below an excluded directory. It is not safe for concurrent use: matchers compile lazily.
type filter struct {
	include, exclude *patternmatcher.PatternMatcher // nil where there is no pattern
	includeRoots     []string                       // prefixes of the includes; nil when one has wildcards
	exceptionRoots   []string                       // the same of the exceptions to excludes
	includePlain     bool
	exceptionsPlain  bool
}

func newFilter(p patterns) (*filter, error) {
	f := &filter{}
	var err error
	if len(p.include) > 0 {
		if f.include, err = patternmatcher.New(p.include); err != nil {
			return nil, fmt.Errorf("invalid include patterns %q: %w", p.include, err)
		}
		f.includeRoots, f.includePlain = plainRoots(f.include, false)
	}
	if len(p.exclude) > 0 {
		if f.exclude, err = patternmatcher.New(p.exclude); err != nil {
			return nil, fmt.Errorf("invalid exclude patterns %q: %w; look into .dockerignore", p.exclude, err)
		}
		f.exceptionRoots, f.exceptionsPlain = plainRoots(f.exclude, true)
	}
	return f, nil
}

// plainRoots lists the patterns that are exceptions, or that are none, each without a "/*" or "/**" at its end and with
// a slash instead. plain is false when one of them has a wildcard elsewhere: anything may match then.
func plainRoots(m *patternmatcher.PatternMatcher, exceptions bool) (roots []string, plain bool) {
	for _, p := range m.Patterns() {
		if p.Exclusion() != exceptions {
			continue
		}
		root := strings.TrimSuffix(strings.TrimSuffix(p.String(), "/**"), "/*")
		if strings.ContainsAny(root, `*[]?^\`) {
			return nil, false
		}
		roots = append(roots, root+"/")
	}
	return roots, true
}

// unfiltered tells that every path is kept.
func (f *filter) unfiltered() bool { return f.include == nil && f.exclude == nil }

// judge decides about one path. The matches it gives are for the children of a directory.
func (f *filter) judge(path string, isDir bool, parent matches) (verdict, matches, error) {
	var m matches
	v := keep
	if f.include != nil {
		ok, info, err := f.include.MatchesUsingParentResults(path, parent.include)
		if err != nil {
			return prune, m, fmt.Errorf("match include patterns: %w", err)
		}
		m.include = info
		if !ok {
			v = enter
			if isDir && f.includePlain && !leadsTo(f.includeRoots, path) {
				return prune, m, nil
			}
		}
	}
	if f.exclude != nil {
		ok, info, err := f.exclude.MatchesUsingParentResults(path, parent.exclude)
		if err != nil {
			return prune, m, fmt.Errorf("match exclude patterns: %w", err)
		}
		m.exclude = info
		if ok {
			v = enter
			if isDir && f.exceptionsPlain && !leadsTo(f.exceptionRoots, path) {
				return prune, m, nil
			}
		}
	}
	if v == enter && !isDir {
		v = prune
	}
	return v, m, nil
}

// leadsTo reports whether one of the roots is the directory or lies below it.
func leadsTo(roots []string, dir string) bool {
	for _, r := range roots {
		if len(r) > len(dir) && r[len(dir)] == '/' && r[:len(dir)] == dir {
			return true
		}
	}
	return false
}

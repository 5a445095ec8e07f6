package context

import (
	"strings"

	"github.com/moby/patternmatcher"
)

// patternList is a list of patterns with what can be said of a path without asking the matcher, which takes a microsecond for
// each regular expression in it: on 50,000 files and ten patterns that was longer than all the rest of a scan.
type patternList struct {
	matcher  *patternmatcher.PatternMatcher
	guards   []guard  // of the patterns that are no exceptions
	excepted bool     // there are exceptions
	roots    []string // what ruledOut looks at, nil where anything may lie below any directory
	plain    bool     // roots is meant
}

// guard is what a path must start and end with for a pattern to match it.
type guard struct{ head, tail string }

// standing is what a list said of a directory.
type standing struct {
	info    patternmatcher.MatchInfo
	touched bool // some pattern may have matched the directory or one above it; else info holds no match
	settled bool // everything below matches
	known   bool // info is that of a call of the matcher
}

// newPatternList prepares a list; roots come from its exceptions or from its other patterns.
func newPatternList(list []string, rootsOfExceptions bool) (*patternList, error) {
	m, err := patternmatcher.New(list)
	if err != nil {
		return nil, err
	}
	l := &patternList{matcher: m, excepted: m.Exclusions()}
	l.roots, l.plain = plainRoots(m, rootsOfExceptions)
	for _, p := range m.Patterns() {
		if p.Exclusion() {
			continue
		}
		l.guards = append(l.guards, guardOf(p.String()))
		one, err := patternmatcher.New([]string{p.String()})
		if err == nil {
			_, err = one.MatchesOrParentMatches("x")
		}
		if err != nil {
			l.guards = append(l.guards, guard{}) // no path passes by: the matcher is to find the error
		}
	}
	return l, nil
}

// match asks whether the list matches a path, given what it said of the directory that the path is in, and notes in
// out what it says of the path.
func (l *patternList) match(path string, parent standing, out *standing) (bool, error) {
	if parent.settled {
		*out = parent
		return true, nil
	}
	possible := parent.touched || l.possible(path)
	if !possible && (parent.known || !l.excepted) {
		// No pattern matches, and exceptions are only asked about what a pattern before them has matched.
		*out = standing{info: parent.info, known: parent.known}
		return false, nil
	}
	// Without an info the matcher asks of each directory above whether it matches. Where there are exceptions that is
	// something else than an info of no match: they would count although nothing was there to except.
	ok, info, err := l.matcher.MatchesUsingParentResults(path, parent.info)
	*out = standing{info: info, touched: possible && (ok || l.excepted), settled: ok && !l.excepted, known: true}
	return ok, err
}

// possible reports whether some pattern may match a path.
func (l *patternList) possible(path string) bool {
	for _, g := range l.guards {
		if strings.HasPrefix(path, g.head) && strings.HasSuffix(path, g.tail) {
			return true
		}
	}
	return false
}

// ruledOut reports whether the list alone tells that nothing below a directory can make a difference.
func (l *patternList) ruledOut(dir string) bool {
	if !l.plain {
		return false
	}
	for _, r := range l.roots {
		if len(r) > len(dir) && r[len(dir)] == '/' && r[:len(dir)] == dir {
			return false
		}
	}
	return true
}

// guardOf takes the literal start and end of a pattern. They are ASCII only, since the matcher takes all broken UTF-8 for
// the same, and end where a character means something to patterns or, as "^" does, slips through unescaped into the regular
// expression that the matcher makes. Of those "|", "{" and "}" change what stands before them, and a backslash what
// stands behind it.
func guardOf(pattern string) guard {
	var g guard
	if strings.ContainsAny(pattern, "|{}") {
		return g
	}
	special := func(c byte) bool { return c >= 0x80 || strings.IndexByte(`*?[]\^`, c) >= 0 }
	for len(g.head) < len(pattern) && !special(pattern[len(g.head)]) {
		g.head = pattern[:len(g.head)+1]
	}
	if strings.Contains(pattern, `\`) {
		return g
	}
	for n := 1; n <= len(pattern) && !special(pattern[len(pattern)-n]); n++ {
		g.tail = pattern[len(pattern)-n:]
	}
	if g.head != pattern {
		g.tail = strings.TrimPrefix(g.tail, "/") // "**/a" matches "a"
	}
	return g
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

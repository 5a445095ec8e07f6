package layout

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"larder/internal/tree"
)

// pattern matches paths: its parts match names as path.Match does, a "**" at the end whatever follows, also nothing. "<n>" stands for n
// hexadecimal digits.
type pattern []string

func patterns(list ...string) []pattern {
	var out []pattern
	for _, s := range list {
		for _, n := range []int{2, 16, 64} {
			s = strings.ReplaceAll(s, fmt.Sprintf("<%d>", n), strings.Repeat("[0-9a-f]", n))
		}
		out = append(out, strings.Split(s, "/"))
	}
	return out
}

// nameMatches is path.Match; the patterns here are all well formed, as a test sees to.
func nameMatches(part, name string) bool {
	ok, _ := path.Match(part, name)
	return ok
}

// prefix gives the part of a path that a pattern matches, where the path may go on below it; "" for none.
func (p pattern) prefix(name string) string {
	end := 0
	for i, part := range p {
		if part == "**" {
			return name
		}
		if i > 0 {
			if end == len(name) {
				return ""
			}
			end++
		}
		length := strings.IndexByte(name[end:], '/')
		if length < 0 {
			length = len(name) - end
		}
		if !nameMatches(part, name[end:end+length]) {
			return ""
		}
		end += length
	}
	return name[:end]
}

// match tells whether a pattern matches the whole of a path.
func (p pattern) match(name string) bool {
	if last := len(p) - 1; p[last] == "**" {
		return p[:last].prefix(name) != ""
	}
	return p.prefix(name) == name
}

func matchAny(list []pattern, name string) bool {
	return slices.ContainsFunc(list, func(p pattern) bool { return p.match(name) })
}

// exists tells whether something in a directory matches a pattern, which has no "**".
func exists(dir *tree.Node, p pattern) (bool, error) {
	list, err := dir.Entries()
	if err != nil {
		return false, err
	}
	for _, e := range list {
		if !nameMatches(p[0], e.Name) {
			continue
		}
		if len(p) == 1 {
			return true, nil
		}
		if found, err := exists(e.Node, p[1:]); found || err != nil {
			return found, err
		}
	}
	return false, nil
}

func existsAny(dir *tree.Node, list []pattern) (bool, error) {
	for _, p := range list {
		if found, err := exists(dir, p); found || err != nil {
			return found, err
		}
	}
	return false, nil
}

// sample is how many names of a directory below the top are looked at: tools do not put two kinds of files in one.
const sample = 16

// conforms tells whether all that is in a directory is what patterns describe, as deep as they go.
func conforms(dir *tree.Node, list []pattern, most int) (bool, error) {
	entries, err := dir.Entries()
	if err != nil {
		return false, err
	}
	for _, e := range entries[:min(most, len(entries))] {
		var below []pattern
		fits := false
		for _, p := range list {
			if p[0] == "**" {
				return true, nil
			}
			if nameMatches(p[0], e.Name) {
				if fits = fits || len(p) == 1 || e.Node.Kind == tree.Dir; len(p) > 1 {
					below = append(below, p[1:])
				}
			}
		}
		if !fits {
			return false, nil
		}
		if e.Node.Kind == tree.Dir && len(below) > 0 {
			if ok, err := conforms(e.Node, below, sample); !ok || err != nil {
				return ok, err
			}
		}
	}
	return true, nil
}

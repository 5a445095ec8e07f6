package hints

import (
	"maps"
	"slices"
	"strings"

	"larder/internal/observation"
	"larder/internal/report"
	"larder/internal/tree"
)

// past is what is known of the RUNs of the last build, by their commands: with the shell that reads them, and without.
type past struct {
	full, bare map[string][]*report.Step
	documents  []*report.Step // that run a here-document as a file: its text is not in the recipe
}

func remember(b *report.Build) *past {
	p := &past{full: map[string][]*report.Step{}, bare: map[string][]*report.Step{}}
	if b == nil {
		return p
	}
	for i := range b.Steps {
		s := &b.Steps[i]
		args := s.Recipe.Args
		if s.Type != report.Run || len(args) == 0 {
			continue
		}
		full, bare := blanks(strings.Join(args, " ")), blanks(args[len(args)-1])
		p.full[full] = append(p.full[full], s)
		p.bare[bare] = append(p.bare[bare], s)
		if strings.HasPrefix(args[0], "/dev/pipes/") {
			p.documents = append(p.documents, s)
		}
	}
	return p
}

// of finds what is known of a RUN: one step for each platform. The Dockerfile may have changed since, so it is the command that says
// which step it was, and the line only which one of several.
func (p *past) of(r *run) []*report.Step {
	at := line(r)
	var found []*report.Step
	switch {
	case !r.PrependShell:
		found = p.full[blanks(strings.Join(r.CmdLine, " "))]
	case r.text == "":
		found = slices.DeleteFunc(slices.Clone(p.documents), func(s *report.Step) bool { return s.Line != at })
	default:
		found = p.bare[blanks(r.text)]
	}
	best := map[string]*report.Step{} // by platform
	for _, s := range found {
		if b := best[s.Platform]; b == nil || distance(s.Line, at) < distance(b.Line, at) {
			best[s.Platform] = s
		}
	}
	return slices.SortedFunc(maps.Values(best), func(a, b *report.Step) int { return strings.Compare(a.Platform, b.Platform) })
}

// blanks makes one blank of each row of them.
func blanks(s string) string { return strings.Join(strings.Fields(s), " ") }

func distance(a, b int) int { return max(a-b, b-a) }

// looked is what a step looked at in one group of layers.
type looked struct {
	place string // where the step has the group
	seen  []report.Seen
	root  *tree.Node // the group; nil where it is not to be had
	step  string     // which one made its topmost layer
	input report.Input
}

// looks lists what a step looked at; known tells that this is all of it.
func (c *checker) looks(s *report.Step) (list []looked, known bool) {
	known = s.Not == ""
	for _, in := range s.Inputs {
		for _, g := range in.Groups {
			if !g.Observed {
				continue
			}
			if g.Seen == nil {
				known = false
				continue
			}
			l := looked{place: in.Place, seen: g.Seen, root: c.group(in, g), input: in}
			if n := len(g.Layers); n > 0 {
				l.step = g.Layers[n-1].Step
			}
			list = append(list, l)
		}
	}
	if s.How == report.Exact && len(list) == 0 {
		known = false // nobody asks what can be observed of a step that is found by all of its layers
	}
	return list, known && len(s.Inputs) > 0
}

// group is a group of layers as one tree, nil where that is not to be had.
func (c *checker) group(in report.Input, g report.Group) *tree.Node {
	if g.Root != nil {
		return g.Root
	}
	var out *tree.Node
	for _, l := range g.Layers {
		n := l.Root
		if n == nil && c.files != nil && !l.Tree.IsZero() {
			n = c.files(l.Tree)
		}
		if n == nil {
			return nil
		}
		if out == nil {
			out = n
			continue
		}
		var err error
		if out, err = tree.Compose(out, n); err != nil {
			return nil
		}
	}
	return find(out, in.Source)
}

// find gives what is at a path; nil for nothing.
func find(n *tree.Node, path string) *tree.Node {
	for name := range strings.SplitSeq(path, "/") {
		if n == nil || name == "" {
			continue
		}
		var err error
		if n, err = n.Lookup(name); err != nil {
			return nil
		}
	}
	return n
}

// missing tells whether a look found nothing.
func missing(s report.Seen) bool {
	gone, err := observation.Values([]observation.Look{{Path: s.Path, Kind: s.Kind}}, tree.Empty())
	return err == nil && len(gone) == 1 && s.Path != "" && report.Value(gone[0][:len(s.Value)]) == s.Value
}

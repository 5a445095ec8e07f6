package report

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"

	"larder/internal/fault"
	"larder/internal/observation"
	"larder/internal/tree"
)

// Reads lists what a RUN step looked at in the files that were copied or mounted for it. what names the step: its number in its
// stage, "3" or "3/5", or a part of its name. What names none, several, or one that looks at nothing is an error that lists them.
func Reads(w io.Writer, b *Build, what string) error {
	s, err := b.step(what)
	if err != nil {
		return err
	}
	fmt.Fprintf(w, "%s\n", cut(clean(s.Name), longest))
	if s.Not != "" {
		_, err := fmt.Fprintf(w, "Its inputs were not observed: %s\n", clean(s.Not))
		return err
	}
	none := true
	for _, in := range s.Inputs {
		for _, g := range in.Groups {
			if !g.Observed {
				continue
			}
			none = false
			if err := group(w, in, g); err != nil {
				return err
			}
		}
	}
	if none && s.How == Exact && s.copied() {
		_, err = fmt.Fprintln(w, "What it looked at is not known here: it was found by all that it was given.")
	} else if none {
		_, err = fmt.Fprintln(w, "Nothing of what it was given could be observed: it counts as a whole.")
	}
	return err
}

// copied tells whether a step is given files that somebody chose: then what it looks at can be observed, as a rule.
func (s *Step) copied() bool {
	return slices.ContainsFunc(s.Inputs, func(in Input) bool {
		return slices.ContainsFunc(in.layers(), func(l Layer) bool { return l.Image == "" && !runsCommand(l.Step) })
	})
}

func (b *Build) step(what string) (*Step, error) {
	found := b.steps(what)
	switch {
	case strings.TrimSpace(what) == "" || len(found) == 0:
		return nil, fault.Errorf(fault.Usage, "build %s has no step %q; its RUN steps:%s", b.ID, what, names(b.runs()))
	case len(found) > 1:
		return nil, fault.Errorf(fault.Usage, "%q is in the names of %d steps, say which:%s", what, len(found), names(found))
	case found[0].Type != Run:
		return nil, fault.Errorf(fault.Usage, "%s is no RUN step: only those look at files; the RUN steps:%s", clean(found[0].Name), names(b.runs()))
	}
	return found[0], nil
}

// runs lists the RUN steps.
func (b *Build) runs() []*Step {
	var out []*Step
	for i := range b.Steps {
		if s := &b.Steps[i]; s.Type == Run && s.How != Kept {
			out = append(out, s)
		}
	}
	return out
}

func names(steps []*Step) string {
	var out strings.Builder
	for _, s := range steps {
		out.WriteString("\n  " + cut(clean(s.Name), longest))
	}
	if out.Len() == 0 {
		return " none"
	}
	return out.String()
}

// group lists the looks at one group.
func group(w io.Writer, in Input, g Group) error {
	var from []string
	for _, l := range g.Layers {
		from = append(from, l.subject())
	}
	fmt.Fprintf(w, "\nOf %s", strings.Join(from, ", "))
	if in.Place != "/" {
		fmt.Fprintf(w, " at %s", Quoted(in.Place))
	}
	switch {
	case g.Seen == nil:
		_, err := fmt.Fprintln(w, ": what it looked at is not known here. It was found by its inputs, or there was too much to keep.")
		return err
	case len(g.Seen) == 0:
		_, err := fmt.Fprintln(w, ": nothing")
		return err
	}
	fmt.Fprintln(w, ":")
	gone := values(g.Seen, tree.Empty())
	table := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	for i, s := range g.Seen {
		way := ways(s.Kind)
		if s.Path != "" && i < len(gone) && gone[i] == s.Value {
			way = "looked for, not there"
		}
		p := change{path: under(in.Place, s.Path), dir: s.Kind&observation.List != 0}
		fmt.Fprintf(table, "  %s\t%s\n", way, p.name())
	}
	return table.Flush()
}

// ways writes what was looked at.
func ways(k observation.Kind) string {
	var out []string
	for _, w := range []struct {
		kind observation.Kind
		text string
	}{
		{observation.Whole, "everything"}, {observation.Content, "read"}, {observation.List, "listed"},
	} {
		if k&w.kind != 0 {
			out = append(out, w.text)
		}
		if k&observation.Whole != 0 {
			break // it includes the rest
		}
	}
	if len(out) == 0 {
		return "looked at"
	}
	return strings.Join(out, ", ")
}

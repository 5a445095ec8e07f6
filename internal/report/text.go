package report

import (
	"bufio"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"
	"time"
)

// longest is how much of a step's name a line has, in characters.
const longest = 100

// Text explains a build to people: for each step whether it was spared or ran, and why. now is the time that ages count from.
func Text(w io.Writer, b *Build, now time.Time) error {
	out := bufio.NewWriter(w)
	fmt.Fprintf(out, "Build %s, %s", clean(b.ID), ago(now, b.Began))
	if b.Took > 0 {
		fmt.Fprintf(out, ", took %s", span(b.Took))
	}
	fmt.Fprintln(out)
	var of []string
	for _, part := range []struct{ name, value string }{{"", b.Dockerfile}, {"target ", b.Target}, {"context ", b.Context}} {
		if part.value != "" {
			of = append(of, part.name+clean(part.value))
		}
	}
	if len(of) > 0 {
		fmt.Fprintln(out, strings.Join(of, ", "))
	}
	fmt.Fprintln(out)
	for i := range b.Steps {
		if b.Steps[i].How != Kept {
			step(out, &b.Steps[i], now)
		}
	}
	fmt.Fprintf(out, "\n%s\n", summary(b))
	if b.Error != "" {
		fmt.Fprintf(out, "The build failed: %s\n", clean(b.Error))
	}
	return out.Flush()
}

func step(out *bufio.Writer, s *Step, now time.Time) {
	fmt.Fprint(out, cut(clean(s.Name), longest))
	if s.File != "" && s.Line > 0 {
		fmt.Fprintf(out, " (%s:%d)", clean(path.Base(s.File)), s.Line)
	}
	fmt.Fprintf(out, "\n    %s", fate(s, now))
	for i, c := range s.Why {
		if i == 0 {
			fmt.Fprintf(out, ": %s\n", clean(c.Text))
		} else {
			fmt.Fprintf(out, "      also: %s\n", clean(c.Text))
		}
	}
	if len(s.Why) == 0 {
		fmt.Fprintln(out)
	}
	if s.Not != "" {
		fmt.Fprintf(out, "      inputs not observed: %s\n", clean(s.Not))
	}
}

// spared tells whether a step was found.
func (s *Step) spared() bool { return s.How == Exact || s.How == Content || s.How == Observed }

// fate says what became of a step.
func fate(s *Step, now time.Time) string {
	took := ""
	if s.Took > 0 {
		took = " " + span(s.Took)
	}
	switch {
	case s.spared():
		text := fmt.Sprintf("hit, %s, ", s.How)
		if s.From == "" {
			text += "this machine"
		} else {
			text += "from " + clean(s.From)
		}
		if !s.Made.IsZero() {
			text += ", made " + ago(now, s.Made)
		}
		if took != "" {
			text += ", spared" + took
		}
		return text
	case s.How == Failed && took != "":
		return "failed after" + took
	case s.How == Failed:
		return "failed"
	case s.Type == File:
		return "done" + took
	case s.Type == Image || s.Type == Context:
		return "loaded" + took
	}
	return "ran" + took
}

// summary counts the steps of stages.
func summary(b *Build) string {
	var steps, hits, ran, failed int
	var spared, took time.Duration
	for i := range b.Steps {
		s := &b.Steps[i]
		if s.Type == Image || s.Type == Context || s.How == Kept {
			continue
		}
		steps++
		switch {
		case s.spared():
			hits++
			spared += s.Took
		case s.How == Failed:
			failed++
		default:
			ran++
			took += s.Took
		}
	}
	text := plural(steps, "step") + ": " + plural(hits, "hit")
	if spared > 0 {
		text += fmt.Sprintf(" (spared %s)", span(spared))
	}
	text += fmt.Sprintf(", %d ran", ran)
	if took > 0 {
		text += fmt.Sprintf(" (%s)", span(took))
	}
	if failed > 0 {
		text += fmt.Sprintf(", %d failed", failed)
	}
	return text
}

// Short gives the first cause in one line for the progress display, and how many more there are; empty for none.
func Short(causes []Cause) string {
	if len(causes) == 0 {
		return ""
	}
	text := cut(clean(causes[0].Text), 160)
	if n := len(causes) - 1; n > 0 {
		text += fmt.Sprintf(" (and %s)", plural(n, "other cause"))
	}
	return text
}

// steps finds the steps that a person means: by the number, "3" or "3/5", or by a part of the name.
func (b *Build) steps(what string) []*Step {
	var exact, parts []*Step
	for i := range b.Steps {
		s := &b.Steps[i]
		t := parseName(s.Name)
		switch {
		case s.How == Kept:
		case s.Name == what || t.place > 0 && (what == fmt.Sprint(t.place) || what == fmt.Sprintf("%d/%d", t.place, t.of)):
			exact = append(exact, s)
		case strings.Contains(strings.ToLower(s.Name), strings.ToLower(what)):
			parts = append(parts, s)
		}
	}
	found := exact
	if len(found) == 0 {
		found = parts
	}
	isRun := func(s *Step) bool { return s.Type == Run }
	if slices.ContainsFunc(found, isRun) { // only these look at anything
		found = slices.DeleteFunc(found, func(s *Step) bool { return !isRun(s) })
	}
	return found
}

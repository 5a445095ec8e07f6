package report

import (
	"slices"

	"larder/internal/key"
	"larder/internal/tree"
)

// ToldBy is the cause of a step that ran because the user wants it to, whatever is known of it: flag is "--no-cache" or the like.
// It stands alone, instead of Causes.
func ToldBy(flag string) []Cause { return []Cause{{Kind: Told, Text: "because of " + flag}} }

// Causes says why a step runs though it was looked for, by comparing it with the same step of an earlier build. The true cause
// comes first; there is always one. last may be nil. plan has the names of all steps of today's build, so that a step that was
// inserted is told from one that was changed; it may be nil. now has what is known of the step today, but for its looks: groups
// and layers with Root where that is at hand, and of a file operation that was done its Result and Root. files opens
// a tree that an earlier build stored, to name files, and gives nil where it is not to be had; it may be nil.
func Causes(last *Build, plan []string, now *Step, files func(key.Digest) *tree.Node) []Cause {
	then := last.match(plan, now)
	switch {
	case last == nil:
		return []Cause{{Kind: New, Text: "never seen before: no earlier build is known here"}}
	case then == nil:
		return []Cause{{Kind: New, Text: "never seen before: the build before had no such step"}}
	}
	c := &comparison{last: then, now: now, files: once(files)}
	if now.Type == File {
		c.result()
	}
	c.recipe = recipe(then, now)
	c.out = append(c.out, c.recipe...)
	for i, in := range now.Inputs {
		if i >= len(then.Inputs) || then.Inputs[i].Place != in.Place { // mounts were added or removed
			i = slices.IndexFunc(then.Inputs, func(o Input) bool { return o.Place == in.Place })
		}
		if i >= 0 {
			c.input(then.Inputs[i], in)
		}
	}
	failed := then.How == Failed
	if len(c.out) == 0 && !failed {
		c.add(c.nothing())
	}
	slices.SortStableFunc(c.out, func(a, b Cause) int { return slices.Index(order, a.Kind) - slices.Index(order, b.Kind) })
	if again := (Cause{Kind: Again, Text: "it failed the last time"}); failed && (len(c.out) == 0 || slices.Contains(edits, c.out[0].Kind)) {
		c.add(again) // it would have run anyway
	} else if failed {
		c.out = slices.Insert(c.out, 0, again)
	}
	return distinct(c.out)
}

// edits are the causes that somebody brought about.
var edits = []CauseKind{Base, Command, Variable, Shape, Files}

// order has the causes that explain others before those.
var order = []CauseKind{Told, New, Base, Command, Variable, Shape, Files, Before, Lost, Unknown}

// comparison is of a step with what it was in an earlier build.
type comparison struct {
	last, now *Step
	files     opener
	recipe    []Cause
	out       []Cause
}

func (c *comparison) add(cause Cause) { c.out = append(c.out, cause) }

// result compares what two file operations made.
func (c *comparison) result() {
	if c.last.Result == c.now.Result {
		return
	}
	layer := func(s *Step) Layer { return Layer{Tree: s.Tree, Root: s.Root} }
	changes := compare("", "/", c.files.tree(layer(c.last)), c.files.tree(layer(c.now)))
	if len(changes) > 0 {
		c.add(cause(Files, "", changes, ""))
	} else if c.last.Result != "" && c.now.Result != "" {
		c.add(Cause{Kind: Files, Text: "it makes other files than before"})
	}
}

// nothing is the cause where nothing is found to differ.
func (c *comparison) nothing() Cause {
	same := slices.EqualFunc(c.now.Inputs, c.last.Inputs, Input.agrees)
	switch {
	case c.now.Type == File && len(c.now.Inputs) == 0: // nobody notes what they are given
		return Cause{Kind: Unknown, Text: "an earlier step made another layer, or what it made is not here any more"}
	case same:
		return Cause{Kind: Lost, Text: "its result was pruned or could not be fetched"}
	}
	return Cause{Kind: Unknown, Text: "nothing is known of what changed"}
}

// distinct leaves out what was said before.
func distinct(causes []Cause) []Cause {
	var out []Cause
	for _, c := range causes {
		if !slices.ContainsFunc(out, func(o Cause) bool { return o.Text == c.Text }) {
			out = append(out, c)
		}
	}
	return out
}

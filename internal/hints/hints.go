// Package hints finds what defeats caching in a Dockerfile: in what it says, and in what its steps looked at when they ran last.
//
// RUN steps are keyed by what they look at, so the order of instructions is no fault here, and neither is a COPY of more than a step
// needs. What is left is what changes with each build whatever the files are (times, commits, build numbers), what looks at
// files that nobody meant it to, and what never changes although the world did (package lists, downloads of the latest). Where it is
// in doubt, it says nothing: a warning makes a check fail.
package hints

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/linter"
	"github.com/moby/buildkit/frontend/dockerfile/parser"

	"larder/internal/key"
	"larder/internal/report"
	"larder/internal/tree"
)

// maxCommands bounds the instructions of a Dockerfile that is looked at; the work grows with their square.
const maxCommands = 1000

// Request is what is to be checked.
type Request struct {
	Dockerfile []byte
	Target     string            // the stage that would be built; empty for all of them
	Args       map[string]string // values that the user gave to ARGs
	Contexts   []string          // names that the user gave to contexts: an image or stage of such a name is not what it seems
	// Rules is what BUILDKIT_DOCKERFILE_CHECK says, which counts instead of the Dockerfile's own "# check=" line; nil without it.
	Rules *string
	// Last is what is known of the last build of this Dockerfile, or of an earlier version of it. It may be nil.
	Last *report.Build
	// Files opens a tree that the last build stored, and gives nil where it is not to be had. It may be nil.
	Files func(key.Digest) *tree.Node
}

// Warning is one thing that defeats caching.
type Warning struct {
	Rule        string // "CacheTimestamp"
	Description string // of the rule
	URL         string
	Detail      string // what is wrong here, and the way out; one line
	Where       []parser.Range
}

// Findings are what a check found.
type Findings struct {
	Warnings []Warning // by line
	// Errors says that the Dockerfile wants warnings to be errors ("# check=error=true").
	Errors bool
}

// Check looks for what defeats caching. The error is that of a Dockerfile that cannot be read, or of check options that make no sense;
// BuildKit's own check has the same.
func Check(r Request) (Findings, error) {
	config, err := r.config()
	if err != nil {
		return Findings{}, err
	}
	found := Findings{Errors: config.ReturnAsError}
	f, err := r.read()
	if err != nil || f == nil {
		return found, err
	}
	config.Warn = func(rule, description, url, msg string, where []parser.Range) {
		found.Warnings = append(found.Warnings, Warning{Rule: rule, Description: description, URL: url, Detail: msg, Where: where})
	}
	c := &checker{file: f, lint: linter.New(config), past: remember(r.Last), files: r.Files}
	c.bases()
	c.arguments()
	for _, run := range f.runs {
		run.steps = c.past.of(run)
		c.timestamp(run)
		c.lists(run)
		c.downloads(run)
		if !c.observed(run) {
			c.git(run)
		}
		c.unobserved(run)
	}
	slices.SortStableFunc(found.Warnings, func(a, b Warning) int { return cmp.Compare(first(a.Where), first(b.Where)) })
	return found, nil
}

func first(where []parser.Range) int {
	if len(where) == 0 {
		return 0
	}
	return where[0].Start.Line
}

// config is what the user said about checks, as BuildKit reads it.
func (r Request) config() (*linter.Config, error) {
	text := ""
	if r.Rules != nil {
		text = *r.Rules
	} else {
		text, _, _, _ = parser.ParseDirective("check", r.Dockerfile)
	}
	config, err := linter.ParseLintOptions(text)
	if err != nil {
		return nil, fmt.Errorf("check options: %w", err)
	}
	return config, nil
}

// read parses the Dockerfile; nil for one that is too long.
func (r Request) read() (*file, error) {
	parsed, err := parser.Parse(bytes.NewReader(r.Dockerfile))
	if err != nil {
		return nil, err
	}
	deaf := linter.New(&linter.Config{}) // none at all fails at a "# check=" above an instruction
	stages, globals, err := instructions.Parse(parsed.AST, deaf)
	if err != nil {
		return nil, err
	}
	n := len(stages) + len(globals)
	for _, s := range stages {
		n += len(s.Commands)
	}
	if n > maxCommands {
		return nil, nil
	}
	f := &file{
		lines: strings.Split(string(r.Dockerfile), "\n"), escape: parsed.EscapeToken, contexts: r.Contexts,
		globals: variables{}, known: map[*instructions.RunCommand]*run{},
	}
	f.setGlobals(globals, r.Args)
	f.addStages(stages)
	f.reach(r.Target)
	return f, nil
}

// checker goes through a Dockerfile.
type checker struct {
	file  *file
	lint  *linter.Linter
	past  *past
	files func(key.Digest) *tree.Node
}

// warn says something about an instruction, unless the user does not want to hear it.
func (c *checker) warn(r *rule, comments []string, where []parser.Range, format string, args ...any) {
	c.lint.WithMergedConfigFromComments(comments).Run(r, where, fmt.Sprintf(format, args...))
}

package report

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// recipe says what changed in a step's own definition.
func recipe(last, now *Step) []Cause {
	var out []Cause
	add := func(kind CauseKind, text string) { out = append(out, Cause{Kind: kind, Text: text}) }
	was, is := last.Recipe, now.Recipe
	if a, b := last.command(), now.command(); a != b {
		add(Command, commandChange(a, b))
	}
	out = append(out, variables(was, is)...)
	for _, f := range []struct{ name, was, is, none string }{
		{"its working directory", was.Cwd, is.Cwd, "/"},
		{"its user", was.User, is.User, "root"},
		{"its network", was.Network, is.Network, "the default"},
		{"its security mode", was.Security, is.Security, "the default"},
	} {
		if f.was != f.is {
			add(Command, fmt.Sprintf("%s changed from %s to %s", f.name, short(cmp.Or(f.was, f.none)), short(cmp.Or(f.is, f.none))))
		}
	}
	if gone, won := without(was.Mounts, is.Mounts), without(is.Mounts, was.Mounts); len(gone)+len(won) > 0 {
		if len(won) > 0 {
			add(Command, "it has another mount: "+list(won))
		}
		if len(gone) > 0 {
			add(Command, "it has a mount no more: "+list(gone))
		}
	} else if !slices.Equal(was.Mounts, is.Mounts) {
		add(Command, "its mounts are in another order")
	}
	if was.Other != is.Other {
		add(Command, "an option of it changed")
	}
	return out
}

// commandChange says where two commands differ.
func commandChange(was, is string) string {
	_, gone, won := apart(strings.Fields(was), strings.Fields(is))
	a, b := short(strings.Join(gone, " ")), short(strings.Join(won, " "))
	switch {
	case a == "" && b == "":
		return "its command changed in blanks or line ends"
	case a == "":
		return fmt.Sprintf("its command has %q now", b)
	case b == "":
		return fmt.Sprintf("its command has %q no more", a)
	case a == b: // both cut
		return "its command changed"
	}
	return fmt.Sprintf("its command changed: %q became %q", a, b)
}

// variables names the ones that differ, never a value of one.
func variables(was, is Recipe) []Cause {
	var changed, won, gone []string
	name := func(r Recipe, name string) string {
		if slices.Contains(r.BuildArgs, name) {
			return "ARG " + clean(name)
		}
		return "ENV " + clean(name)
	}
	for _, k := range slices.Sorted(maps.Keys(is.Env)) {
		if old, ok := was.Env[k]; !ok {
			won = append(won, name(is, k))
		} else if old != is.Env[k] {
			changed = append(changed, name(is, k))
		}
	}
	for _, k := range slices.Sorted(maps.Keys(was.Env)) {
		if _, ok := is.Env[k]; !ok {
			gone = append(gone, name(was, k))
		}
	}
	var out []Cause
	for _, v := range []struct {
		names     []string
		one, many string
	}{{changed, " changed", " changed"}, {won, " was added", " were added"}, {gone, " was removed", " were removed"}} {
		verb := v.many
		if len(v.names) == 1 {
			verb = v.one
		}
		if len(v.names) > 0 {
			slices.SortStableFunc(v.names, cmp.Compare) // ARG stands before ENV: it is what is given from outside
			out = append(out, Cause{Kind: Variable, Text: list(v.names) + verb})
		}
	}
	return out
}

// without gives what is in a and not in b.
func without(a, b []string) []string {
	var out []string
	for _, s := range a {
		if !slices.Contains(b, s) {
			out = append(out, short(s))
		}
	}
	return out
}

package automount

import (
	"path"
	"regexp"
	"slices"
	"strings"
)

var (
	// harmless do nothing to a directory that a mount on it would change.
	harmless = []string{"mkdir", "echo", "printf", "ls", "du", "test", "[", "stat", "true", "set", "export"}
	// changing commands may remove or change what lies below a directory that they are given.
	changing = []string{"rm", "rmdir", "mv", "chown", "chgrp", "chmod", "setfacl", "shred"}

	braces = regexp.MustCompile(`\{[^{}]*\}`)
)

// says tells whether a path occurs in the text as it stands.
func (s *script) says(p string) bool {
	return slices.ContainsFunc(s.words, func(w string) bool { return mentions(w, p) })
}

// mentions finds a path in a text: with nothing before or behind it that makes it another one.
func mentions(text, p string) bool {
	for at := 0; ; {
		i := strings.Index(text[at:], p)
		if i < 0 {
			return false
		}
		start, end := at+i, at+i+len(p)
		before, behind := start == 0 || !part(text[start-1]), end == len(text) || !part(text[end])
		if before && behind {
			return true
		}
		at = start + 1
	}
}

// part tells whether a byte beside a path makes it another path.
func part(c byte) bool {
	return c == '-' || c == '_' || c == '.' || '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
}

// touches gives the command, of those that are none of the tools, that would do something else with a mount at target,
// or to it, than with a plain directory; "" if there is none. stock: see wish.
func (s *script) touches(target string, stock bool) string {
	for _, c := range s.calls {
		name := path.Base(c.args[0])
		if slices.Contains(harmless, name) {
			continue
		}
		if why := c.takes(target, stock); why != "" {
			return why
		}
		for _, a := range c.args[1:] {
			at, above := c.names(a, target)
			switch {
			case at:
			case above && slices.Contains(changing, name):
			case name == "find" && c.finds(a, target):
			default:
				continue
			}
			return name + " " + clip(a)
		}
	}
	return ""
}

// refers gives the command by which another RUN says that it wants what is at target in the image; "" if none does.
func (s *script) refers(target string, stock bool) string {
	if s.opaque {
		if slices.ContainsFunc(s.words, func(text string) bool { return tells(text, target) }) {
			return "its text"
		}
		return ""
	}
	for _, c := range s.calls {
		name := path.Base(c.args[0])
		if name == "mkdir" {
			continue
		}
		if why := c.takes(target, stock); why != "" {
			return why
		}
		for _, a := range c.args[1:] {
			if at, _ := c.names(a, target); at {
				return name + " " + clip(a)
			}
		}
	}
	return ""
}

// names tells whether an argument names the target or what lies in it, or a directory above it other than the root.
func (c call) names(arg, target string) (at, above bool) {
	if mentions(arg, target) {
		return true, false
	}
	if _, value, ok := strings.Cut(arg, "="); ok && strings.HasPrefix(arg, "-") {
		arg = value
	}
	if arg == "" || arg[0] == '-' || !known(arg) {
		return false, false
	}
	if !path.IsAbs(arg) {
		if !known(c.cwd) || !plausible(arg) {
			return false, false
		}
		arg = c.cwd + "/" + arg
	}
	p := path.Clean(arg)
	if p == "/" {
		return false, false
	}
	return matches(p, target)
}

// matches compares a pattern of names with the target: whether it names it or what lies in it, or a directory above it.
func matches(p, target string) (at, above bool) {
	pattern, parts := split(strings.ReplaceAll(braces.ReplaceAllString(p, "*"), "[!", "[^")), split(target)
	for i := range min(len(pattern), len(parts)) {
		if ok, err := path.Match(pattern[i], parts[i]); err != nil || !ok {
			return false, false
		}
	}
	return len(pattern) >= len(parts), len(pattern) < len(parts)
}

// plausible tells whether a word without a slash at its beginning looks like a path at all.
func plausible(arg string) bool { return !strings.ContainsAny(arg, " \n:;|&()") }

// finds tells whether find, starting at a directory, would change what lies in target.
func (c call) finds(dir, target string) bool {
	if !slices.ContainsFunc(c.args, func(a string) bool { return a == "-delete" || a == "-exec" || a == "-execdir" }) {
		return false
	}
	_, above := c.names(dir, target)
	return above || path.Clean(dir) == "/"
}

func split(p string) []string { return strings.Split(strings.Trim(p, "/"), "/") }

// clip shortens a word for a note.
func clip(s string) string {
	s = strings.ReplaceAll(strings.ReplaceAll(s, hole, "…"), "\n", " ")
	if r := []rune(s); len(r) > 60 {
		return string(r[:60]) + "…"
	}
	return s
}

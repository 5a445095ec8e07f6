package automount

import (
	"slices"
	"strings"
)

// line is a command line taken apart: options wherever they stand, and what is none.
type line struct {
	words   []string // that are no options; the first is the sub-command
	options map[string]string
}

// parse takes arguments apart. valued names the options that take the next word, separated by spaces. A word that is
// not known may be anything, so it is left out.
func parse(args []string, valued string) line { return head(args, valued, len(args)) }

// head parses up to the nth word that is no option: what follows is another command's.
func head(args []string, valued string, n int) line {
	l := line{options: map[string]string{}}
	takes := strings.Fields(valued)
	for i := 0; i < len(args) && len(l.words) < n; i++ {
		a := args[i]
		name, value, joined := strings.Cut(a, "=")
		switch {
		case a == "--":
			return l
		case len(a) > 1 && a[0] == '-':
			if !joined && slices.Contains(takes, a) && i+1 < len(args) {
				i++
				value = args[i]
			}
			l.options[name] = value
		case a != "" && known(a):
			l.words = append(l.words, a)
		}
	}
	return l
}

// has tells whether one of the options is there.
func (l line) has(names ...string) bool {
	return slices.ContainsFunc(names, func(n string) bool { _, ok := l.options[n]; return ok })
}

// word gives the nth word that is no option, "" if there are fewer.
func (l line) word(n int) string {
	if n < len(l.words) {
		return l.words[n]
	}
	return ""
}

// is tells whether the nth word is one of the given, separated by spaces.
func (l line) is(n int, any string) bool {
	w := l.word(n)
	return w != "" && slices.Contains(strings.Fields(any), w)
}

// truthy reads what an environment variable switches on.
func truthy(s string) bool {
	switch strings.ToLower(s) {
	case "", "0", "false", "no", "off", "n", "f":
		return false
	}
	return true
}

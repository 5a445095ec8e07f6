package hints

import (
	"slices"
	"strings"
)

// wrappers are commands that run the one that their words end with: options of them that take a word, and how many words besides
// stand before it.
var wrappers = map[string]struct {
	valued string
	skip   int
}{
	"env":     {valued: "-u --unset -C --chdir"},
	"sudo":    {valued: "-u --user -g --group -h -p -C -D -R"},
	"exec":    {valued: "-a"},
	"command": {}, "builtin": {}, "nohup": {}, "setsid": {}, "chronic": {}, "fakeroot": {}, "eatmydata": {},
	"time":    {valued: "-o -f --output --format"},
	"nice":    {valued: "-n --adjustment"},
	"ionice":  {valued: "-c -n"},
	"timeout": {valued: "-k -s --kill-after --signal", skip: 1},
	"gosu":    {skip: 1}, "su-exec": {skip: 1},
	"xargs": {valued: "-I -n -P -L -d -a -E -s"},
}

// Programs, by what they do with a word or an input that has the time in it.
var (
	// printing: they print it.
	printing = strings.Fields("echo printf cat tac tr sed awk gawk mawk cut head tail sort uniq grep md5sum sha1sum sha256sum sha512sum " +
		"base64 xxd od rev fold expr bc basename dirname envsubst jq tee seq date gdate")
	// harmless: it leaves no trace in what they write, but for downloads of which it is to make the server think.
	harmless = strings.Fields(": true false test [ [[ rm rmdir find curl wget sleep kill wait exit return logger read cd pushd popd ls set " +
		"unset shift trap local let pgrep pkill stat diff cmp")
)

// simple looks at one command, and tells whether what it prints has the time in it.
func (r *reader) simple(words []value, in value) bool {
	if len(r.calls) >= maxCalls {
		r.opaque = true
	}
	if r.opaque || len(words) == 0 {
		return false
	}
	args := texts(words)
	name := args[0]
	if prints, ok := r.functions[name]; ok {
		return prints
	}
	if w, ok := wrappers[name]; ok {
		return r.wrapped(words, strings.Fields(w.valued), w.skip, in)
	}
	r.calls = append(r.calls, args)
	timed := in.timed
	written := slices.ContainsFunc(words[1:], func(v value) bool { return v.timed })
	switch {
	case isShell(name):
		return r.shell(words, in)
	case name == "eval":
		return r.nested(strings.Join(args[1:], " "), written)
	case name == "date" || name == "gdate":
		return isNow(args)
	case asksClock(args):
		return true
	case name == "tee":
		r.stamped = r.stamped || timed && slices.ContainsFunc(args[1:], func(a string) bool { return !strings.HasPrefix(a, "-") && isKept(a) })
		return timed
	case slices.Contains(printing, name):
		if written && name == "sed" && slices.ContainsFunc(args[1:], inPlace) {
			r.stamped = true
		}
		// What echo is given on its standard input, it does not read.
		return written || timed && name != "echo" && name != "printf"
	case slices.Contains(harmless, name), name == "touch" && setsTime(args):
		return false
	}
	r.stamped = r.stamped || written || r.exported && !args.setsUp()
	return false
}

func inPlace(option string) bool {
	return strings.HasPrefix(option, "--in-place") || strings.HasPrefix(option, "-") && !strings.HasPrefix(option, "--") && strings.Contains(option, "i")
}

// setsTime tells whether touch sets times, which are no part of what a layer is keyed by.
func setsTime(args call) bool {
	return slices.ContainsFunc(args[1:], func(a string) bool {
		return strings.HasPrefix(a, "-d") || strings.HasPrefix(a, "-t") || strings.HasPrefix(a, "--date")
	})
}

// isNow tells whether date prints the time of day, not that of a file or one that it is given.
func isNow(args call) bool {
	relative := func(s string) bool {
		s = strings.ToLower(s)
		return slices.ContainsFunc([]string{"now", "today", "yesterday", "tomorrow", "ago", "next", "last", "hour", "day", "week", "month"},
			func(word string) bool { return strings.Contains(s, word) }) && !strings.ContainsAny(s, "@"+hole)
	}
	for i, a := range args[1:] {
		rest := strings.Join(args[min(i+2, len(args)):], " ")
		if long, ok := strings.CutPrefix(a, "--"); ok {
			switch name, value, joined := strings.Cut(long, "="); {
			case name == "reference" || name == "set" || name == "file" || name == "help" || name == "version":
				return false
			case name == "date" && joined:
				return relative(value)
			case name == "date":
				return relative(rest)
			}
			continue
		}
		if !strings.HasPrefix(a, "-") {
			continue
		}
	letters:
		for j, option := range a {
			switch option {
			case 'r', 's', 'f':
				return false
			case 'd':
				return relative(a[j+1:] + rest)
			case '-', 'u', 'R':
			default: // the rest is its word
				break letters
			}
		}
	}
	return true
}

// asksClock tells whether a line of Python, JavaScript and the like prints the time of day.
func asksClock(args call) bool {
	name := strings.TrimRight(args[0], "0123456789.")
	if !slices.Contains([]string{"python", "node", "ruby", "perl", "php"}, name) || len(args) < 3 {
		return false
	}
	at := slices.IndexFunc(args, func(a string) bool { return slices.Contains([]string{"-c", "-e", "-p", "-r", "--eval", "--print"}, a) })
	if at < 0 || at+1 >= len(args) {
		return false
	}
	return slices.ContainsFunc([]string{"datetime.now(", ".utcnow(", "time.time()", "new Date()", "Date.now()", "Time.now", "strftime("},
		func(s string) bool { return strings.Contains(args[at+1], s) })
}

// wrapped looks at the command that a wrapper runs.
func (r *reader) wrapped(words []value, valued []string, skip int, in value) bool {
	name := words[0].text
	words = words[1:]
	for len(words) > 0 {
		a := words[0]
		if (name == "command") && (a.text == "-v" || a.text == "-V") {
			return false
		}
		if v, value, ok := strings.Cut(a.text, "="); ok && !strings.HasPrefix(a.text, "-") && !strings.Contains(v, "/") {
			if a.timed && isMoving(v) && value != "" {
				r.stamped = r.stamped || !texts(words[1:]).setsUp()
			}
			words = words[1:]
			continue
		}
		if len(a.text) < 2 || a.text[0] != '-' {
			break
		}
		words = words[1:]
		if slices.Contains(valued, a.text) && len(words) > 0 {
			words = words[1:]
		}
	}
	words = words[min(skip, len(words)):]
	if name == "xargs" && len(words) > 0 {
		words = append(slices.Clone(words), value{hole, in.timed})
	}
	return r.simple(words, in)
}

// shell follows sh -c, and what a shell reads from a here-document. A script that is a file says nothing.
func (r *reader) shell(words []value, in value) bool {
	for i, w := range words[1:] {
		if strings.HasPrefix(w.text, "-") && !strings.HasPrefix(w.text, "--") && strings.Contains(w.text, "c") {
			rest := words[i+2:]
			for len(rest) > 0 && (strings.HasPrefix(rest[0].text, "-") || rest[0].text == "pipefail") { // bash -ec -o pipefail TEXT
				rest = rest[1:]
			}
			if len(rest) == 0 {
				return false
			}
			return r.nested(rest[0].text, rest[0].timed)
		}
		if !strings.HasPrefix(w.text, "-") && w.text != "pipefail" { // a file, with words of its own
			r.stamped = r.stamped || slices.ContainsFunc(words[i+1:], func(v value) bool { return v.timed }) || r.exported
			return false
		}
	}
	if in.text != "" && in.text != hole {
		return r.nested(in.text, in.timed)
	}
	return false
}

// nested reads text that an outer shell made. What that put into it is not known but for whether the time is in it.
func (r *reader) nested(text string, timed bool) bool {
	const filled = "larder_filled"
	r.vars[filled] = value{hole, timed}
	return r.run(strings.ReplaceAll(text, hole, "${"+filled+"}"))
}

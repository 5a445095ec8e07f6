package automount

import (
	"cmp"
	"path"
	"slices"
	"strings"
	"unicode"
)

var (
	// copying commands take what lies below a directory that they are given somewhere else, or put something there.
	copying = []string{"cp", "mv", "tar", "gtar", "bsdtar", "rsync", "ln", "zip", "install", "cpio", "pax", "dd", "docker", "podman", "buildah", "crane",
		"scp", "7z", "7za", "unzip", "mksquashfs"}
	// placing commands put what they are given into what stands last.
	placing = []string{"cp", "mv", "ln", "install", "rsync", "scp"}
	// interpreters are programs whose arguments or input are texts in a language that is not read here.
	interpreters = []string{"awk", "gawk", "mawk", "nawk", "perl", "ruby", "node", "nodejs", "deno", "bun", "lua", "tclsh", "expect", "xargs", "parallel",
		"script", "Rscript", "guile", "jshell", "groovy"}
)

// takes gives the command if it may take what lies at target, or put something there, in words that are not all known; "" if it does not.
func (c call) takes(target string, stock bool) string {
	name := path.Base(c.args[0])
	switch {
	case c.inside(target):
		return name + " in " + clip(c.cwd)
	case c.interprets(name):
		text := strings.Join(append([]string{c.text}, c.args[1:]...), "\n")
		if tells(text, target) || c.means(text, target) {
			return clip(name) + " with a text that names it"
		}
	}
	if !slices.Contains(copying, name) {
		return ""
	}
	extracts := c.extracts(name)
	for i, a := range c.args[1:] {
		if extracts && !stock && !path.IsAbs(value(a)) {
			continue // what it reads
		}
		if !c.reaches(a, target) {
			continue
		}
		if path.Clean(value(a)) == "/" && (extracts && !stock || !extracts && i == len(c.args)-2 && i > 0 && !c.spreads(target)) {
			continue
		}
		return name + " " + clip(a)
	}
	if c.listed(name) {
		return name + " of a list of files"
	}
	return ""
}

// inside tells whether a command works in the target.
func (c call) inside(target string) bool {
	dir, _, partly := strings.Cut(c.cwd, hole)
	if partly {
		return strings.HasPrefix(dir, target+"/")
	}
	return within(target, c.cwd)
}

func (c call) interprets(name string) bool {
	return slices.Contains(interpreters, name) || slices.Contains(shells, name) || pythonName.MatchString(name) || phpName.MatchString(name) || name == "source" || name == "."
}

// value takes the option off a word: --directory=/go, -C/go, if=/go.
func value(arg string) string {
	if name, v, ok := strings.Cut(arg, "="); ok && (strings.HasPrefix(arg, "-") || name == "if" || name == "of") {
		return v
	}
	if strings.HasPrefix(arg, "-") {
		if i := strings.IndexAny(arg, "/"+hole); i >= 0 && !strings.HasPrefix(arg, "--") {
			return arg[i:]
		}
	}
	return arg
}

// reaches tells whether an argument of a copying command may name the target, what lies in it or a directory above it. What is not
// known of it may be anything, slashes too. Only where it ends a name it is taken for the rest of that name, and for what lies below.
func (c call) reaches(arg, target string) bool {
	if mentions(arg, target) {
		return true
	}
	arg = value(arg)
	if arg == "" || arg[0] == '-' {
		return false
	}
	if !path.IsAbs(arg) && !strings.HasPrefix(arg, hole) {
		if known(arg) && !plausible(arg) {
			return false
		}
		arg = c.cwd + "/" + arg
	}
	before, _, partly := strings.Cut(arg, hole)
	if !partly {
		p := path.Clean(arg)
		if p == "/" {
			return true
		}
		at, above := matches(p, target)
		return at || above
	}
	if before == "" || strings.HasSuffix(before, "/") || strings.ContainsAny(before, "*?[{") {
		return true
	}
	dir := path.Clean(path.Dir(before))
	return within(target, dir) || strings.HasPrefix(target, strings.TrimSuffix(dir, "/")+"/"+path.Base(before))
}

// spreads tells whether a command that puts things into the root directory may put some at target: what is no plain file or directory
// of another name.
func (c call) spreads(target string) bool {
	for _, a := range c.args[1 : len(c.args)-1] {
		name := path.Base(a)
		if strings.HasPrefix(a, "-") {
			continue
		}
		if !known(a) || strings.HasSuffix(a, "/") || strings.HasSuffix(a, "/.") || a == "." || strings.ContainsAny(name, "*?[{") || name == split(target)[0] {
			return true
		}
	}
	return false
}

// extracts tells whether an archiver unpacks: where it does, it reads no directory.
func (c call) extracts(name string) bool {
	switch name {
	case "unzip":
		return true
	case "7z", "7za":
		return len(c.args) > 1 && (c.args[1] == "x" || c.args[1] == "e")
	case "tar", "gtar", "bsdtar", "cpio", "pax":
	default:
		return false
	}
	letters := ""
	for i, a := range c.args[1:] {
		switch {
		case a == "--extract" || a == "--get":
			letters += "x"
		case a == "--create" || a == "--append" || a == "--update":
			letters += "c"
		case strings.HasPrefix(a, "--"):
		case strings.HasPrefix(a, "-"), i == 0 && strings.HasSuffix(name, "tar"):
			if path.IsAbs(value(a)) {
				a = a[:2]
			}
			letters += a
		}
	}
	switch name {
	case "cpio":
		return strings.Contains(letters, "i")
	case "pax":
		return strings.Contains(letters, "r") && !strings.Contains(letters, "w")
	}
	return strings.Contains(letters, "x") && !strings.ContainsAny(letters, "cru")
}

// listed tells whether a command is told what to take by a list that it reads.
func (c call) listed(name string) bool {
	switch name {
	case "cpio", "pax":
		return !c.extracts(name)
	case "zip":
		return slices.Contains(c.args, "-@")
	}
	return slices.ContainsFunc(c.args[1:], func(a string) bool {
		return strings.HasPrefix(a, "--files-from") || strings.HasPrefix(a, "--files0-from") || name != "cp" && (a == "-T" || strings.HasPrefix(a, "-T")) && strings.HasSuffix(name, "tar")
	})
}

// means tells whether a text has the name of a variable that holds the target, a directory above it or one in it,
// or a path that begins in the home directory.
func (c call) means(text, target string) bool {
	if c.vars == nil {
		return false
	}
	home := cmp.Or(c.vars.get("HOME"), "/root")
	if strings.Contains(text, "~/") && tells(strings.ReplaceAll(text, "~/", home+"/"), target) {
		return true
	}
	words := strings.FieldsFunc(text, func(r rune) bool { return r != '_' && !unicode.IsLetter(r) && !unicode.IsDigit(r) })
	return slices.ContainsFunc(words, func(name string) bool {
		v := c.vars.m[name]
		if name == "HOME" {
			v = home
		}
		return path.IsAbs(v) && path.Clean(v) != "/" && overlap(path.Clean(v), target)
	})
}

// tells tells whether a text of any language names the target, or a directory above it as such. The root is one in a text that also names
// a copying command.
func tells(text, target string) bool {
	if mentions(text, target) {
		return true
	}
	for p := path.Dir(target); p != "/"; p = path.Dir(p) {
		if ends(text, p) {
			return true
		}
	}
	words := strings.FieldsFunc(text, func(r rune) bool { return !('a' <= r && r <= 'z' || r == '/' || r == '7') })
	return slices.Contains(words, "/") && slices.ContainsFunc(words, func(w string) bool { return slices.Contains(copying, path.Base(w)) })
}

// ends finds a path in a text with nothing below it behind it but patterns.
func ends(text, p string) bool {
	for at := 0; ; {
		i := strings.Index(text[at:], p)
		if i < 0 {
			return false
		}
		start := at + i
		behind := strings.TrimLeft(text[start+len(p):], "/")
		slash := len(behind) < len(text)-start-len(p)
		if (start == 0 || !part(text[start-1])) && (behind == "" || !part(behind[0]) || behind[0] == '.' && slash) {
			return true
		}
		at = start + 1
	}
}

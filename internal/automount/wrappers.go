package automount

import (
	"path"
	"slices"
	"strings"
)

// wrapper is a command that runs another one, given behind its options.
type wrapper struct {
	valued string // options that take a word of their own, separated by spaces
	skip   int    // words before the command that are no options
	assign bool   // NAME=value may stand before the command
}

var wrappers = map[string]wrapper{
	"env":       {valued: "-u --unset -C --chdir -S --split-string", assign: true},
	"sudo":      {valued: "-u --user -g --group -h --host -p --prompt -C -T -D -R -r -t", assign: true},
	"doas":      {valued: "-u -C"},
	"exec":      {valued: "-a"},
	"command":   {},
	"builtin":   {},
	"time":      {valued: "-o --output -f --format"},
	"nice":      {valued: "-n --adjustment"},
	"ionice":    {valued: "-c -n --class --classdata"},
	"nohup":     {},
	"setsid":    {},
	"timeout":   {valued: "-k --kill-after -s --signal", skip: 1},
	"stdbuf":    {valued: "-i -o -e --input --output --error"},
	"eatmydata": {},
	"fakeroot":  {valued: "-l -s -i -b"},
	"chronic":   {},
	"unbuffer":  {},
	"xvfb-run":  {valued: "-e -f -n -p -s -w"},
	"tini":      {valued: "-p -e"},
	"dumb-init": {valued: "-r --rewrite"},
	"cross-env": {assign: true},
	"corepack":  {},
	"xargs":     {valued: "-I -n -P -L -d -a -E -s --max-args --max-procs --max-lines --delimiter --arg-file --replace"},
	"gosu":      {skip: 1},
	"su-exec":   {skip: 1},
	"setpriv":   {valued: "--reuid --regid --groups --inh-caps --bounding-set"},
	"runuser":   {valued: "-u --user -g --group -G -s --shell"},
}

// others are the wrappers that change the user to one who is not root, as a rule.
var others = []string{"gosu", "su-exec", "setpriv", "runuser"}

// environments are files that are read for a PATH, and name no cache: those of virtual environments, nvm, Rust and the
// system's name.
var environments = []string{"activate", "nvm.sh", "env", "os-release"}

// simple looks at one command: it may run another, or be one of the tools. input is what it reads from a here-document.
func (w *walker) simple(args []string, input string) {
	if w.budget--; w.budget < 0 {
		w.opaque = true
	}
	if w.opaque || len(args) == 0 || w.functions[args[0]] {
		return
	}
	if !known(args[0]) {
		w.note(args, input)
		return
	}
	name := path.Base(args[0])
	switch {
	case slices.Contains(shells, name):
		w.shell(args, input)
	case name == "busybox" && len(args) > 1:
		w.simple(args[1:], input)
	case name == "eval":
		w.run(strings.Join(args[1:], " "))
	case name == "cd", name == "chdir":
		w.chdir(args)
	case name == "pushd", name == "popd":
		w.cwd = hole
	case name == "source", name == ".":
		if len(args) > 1 && !known(args[1]) {
			w.note(args, strings.Join(w.words, "\n"))
		}
		if len(args) < 2 || !slices.Contains(environments, path.Base(args[1])) {
			w.vars.sourced = true
		}
	case name == "unset":
		for _, n := range args[1:] {
			delete(w.vars.m, n)
		}
	case name == "read":
		for _, n := range args[1:] {
			w.vars.set(n, hole)
		}
	case name == "su":
		w.su(args)
	case name == "find":
		w.note(args, input)
		w.find(args)
	default:
		if wr, ok := wrappers[name]; ok {
			w.wrapped(name, wr, args[1:], input)
			return
		}
		w.tool(name, args, input)
	}
}

// shell follows sh -c, and what a shell reads from a here-document. A script that is a file says nothing.
func (w *walker) shell(args []string, input string) {
	text, ok, stdin := shellText(args)
	switch {
	case stdin:
		text = input
		if w.caller.piped != "" {
			w.note(args[:1], "")
			w.overhear(w.caller.piped)
		}
	case !ok:
		if !known(text) || strings.HasPrefix(text, "/dev/") { // a script that this command makes
			w.note(args[:1], strings.Join(w.words, "\n"))
		}
		return
	}
	in := *w
	in.vars = w.vars.clone()
	in.run(text)
}

// su runs a text as somebody else.
func (w *walker) su(args []string) {
	for i, a := range args {
		if (a == "-c" || a == "--command") && i+1 < len(args) {
			in := *w
			in.vars = w.vars.clone()
			in.caller.other = true
			in.run(args[i+1])
		}
	}
}

// find runs commands for what it finds: as if it were the directory that it starts at.
func (w *walker) find(args []string) {
	starts := args[1:]
	if end := slices.IndexFunc(starts, func(s string) bool { return s == "" || s[0] == '-' || s[0] == '(' || s[0] == '!' }); end >= 0 {
		starts = starts[:end]
	}
	if len(starts) == 0 {
		starts = []string{"."}
	}
	for i, a := range args {
		if !slices.Contains([]string{"-exec", "-execdir", "-ok", "-okdir"}, a) {
			continue
		}
		rest := args[i+1:]
		if end := slices.IndexFunc(rest, func(s string) bool { return s == ";" || s == "+" }); end >= 0 {
			rest = rest[:end]
		}
		in := *w
		if strings.HasSuffix(a, "dir") {
			in.cwd = hole
		}
		for _, dir := range starts {
			if !path.IsAbs(dir) && known(dir) {
				dir = w.cwd + "/" + dir
			}
			run := slices.Clone(rest)
			for n := range run {
				run[n] = strings.ReplaceAll(run[n], "{}", dir)
			}
			in.simple(run, "")
		}
	}
}

// wrapped looks at the command that a wrapper runs.
func (w *walker) wrapped(name string, wr wrapper, args []string, input string) {
	in := *w
	in.vars = w.vars.clone()
	valued := strings.Fields(wr.valued)
	for len(args) > 0 {
		a := args[0]
		if name == "command" && (a == "-v" || a == "-V") {
			return
		}
		if a == "--" {
			args = args[1:]
			break
		}
		if len(a) > 1 && a[0] == '-' {
			switch option, value, _ := strings.Cut(a, "="); {
			case name == "env" && (a == "-i" || a == "-" || a == "--ignore-environment"):
				in.vars = newVars(nil)
			case name == "sudo" && (strings.HasPrefix(a, "-u") || option == "--user"):
				in.caller.other = in.caller.other || !isRoot(a, value, args)
			}
			args = args[1:]
			if slices.Contains(valued, a) && len(args) > 0 {
				args = args[1:]
			}
			continue
		}
		if n, value, ok := strings.Cut(a, "="); wr.assign && ok {
			in.vars.set(n, value)
			args = args[1:]
			continue
		}
		break
	}
	args = args[min(wr.skip, len(args)):]
	in.caller.sudo = in.caller.sudo || name == "sudo" || name == "doas"
	in.caller.other = in.caller.other || slices.Contains(others, name)
	if name == "corepack" && (len(args) == 0 || !slices.Contains([]string{"npm", "npx", "yarn", "yarnpkg", "pnpm", "pnpx"}, args[0])) {
		return
	}
	if name == "xargs" && len(args) > 0 {
		w.note([]string{name}, input)
		args = append(slices.Clone(args), hole) // what it reads
	}
	in.simple(args, input)
	if name == "command" || name == "builtin" {
		w.cwd = in.cwd
	}
}

// isRoot tells whether sudo's -u names root.
func isRoot(option, joined string, args []string) bool {
	switch {
	case joined != "":
		return joined == "root" || joined == "#0"
	case option == "-u" || option == "--user":
		return len(args) > 1 && (args[1] == "root" || args[1] == "#0")
	}
	return option == "-uroot"
}

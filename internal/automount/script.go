package automount

import (
	"path"
	"slices"
	"strconv"
	"strings"
)

const (
	maxText  = 32 << 10 // bytes of shell text that are read; no nesting in it takes the parser more than a second
	maxDepth = 8        // of sh -c in sh -c
	maxCalls = 10_000   // commands that are looked at, those in repeated texts counted each time
)

// script is what a RUN's command says.
type script struct {
	who who

	wishes  []wish
	skipped []Skipped
	cleared map[string]bool // tools that the command empties, or asks for their cache's place
	calls   []call          // commands that are none of the tools
	words   []string        // all arguments, as they came
	opaque  bool            // the text could not be read; nothing is attached

	settings  []string // what tools' own configuration was set to, as NAME=value
	programs  []string // what it compiles: absolute, with a slash at the end for a directory of programs
	functions map[string]bool
	budget    int
}

// call is one simple command.
type call struct {
	args       []string // [0] without its directory; words or parts of words that are not known have a hole
	vars       *vars
	cwd        string
	text       string // what it reads, as far as that is known: a here-document, or the words of the commands that pipe into it
	sudo       bool   // as root, by sudo
	other      bool   // as somebody else
	substitute bool   // for its output, $(...)
}

// who runs a command.
type who struct {
	name    string // as the instruction says
	root    bool
	numeric bool
	owner   Owner
}

func user(name string) who {
	u, g, _ := strings.Cut(name, ":")
	w := who{name: name}
	if u == "" || u == "root" {
		u = "0"
	}
	if g == "root" || g == "" {
		g = "0"
	}
	uid, err1 := strconv.ParseUint(u, 10, 31)
	gid, err2 := strconv.ParseUint(g, 10, 31)
	w.root = err1 == nil && uid == 0
	w.numeric = err1 == nil && err2 == nil
	w.owner = Owner{int(uid), int(gid)}
	return w
}

// scan reads a command.
func scan(args, env []string, username, cwd string) *script {
	s := &script{who: user(username), cleared: map[string]bool{}, functions: map[string]bool{}, budget: maxCalls, words: args}
	if !path.IsAbs(cwd) {
		cwd = "/" + cwd
	}
	v := newVars(env)
	v.set("PWD", path.Clean(cwd))
	w := walker{script: s, vars: v, cwd: path.Clean(cwd), caller: caller{}}
	w.simple(slices.Clone(args), "")
	if s.opaque {
		s.wishes = nil
	}
	return s
}

// shells are the programs whose -c is read.
var shells = []string{"sh", "bash", "dash", "ash", "ksh", "zsh"}

// shellText finds what a shell is to run: the text behind -c. stdin tells that there is none and that it reads its
// standard input.
func shellText(args []string) (text string, ok, stdin bool) {
	command := false
	i := 1
	for ; i < len(args); i++ {
		a := args[i]
		if a == "--" {
			i++
			break
		}
		if strings.HasPrefix(a, "--") {
			if a == "--rcfile" || a == "--init-file" {
				i++
			}
			continue
		}
		if len(a) < 2 || a[0] != '-' && a[0] != '+' {
			break
		}
		if strings.ContainsRune(a, 'c') && a[0] == '-' {
			command = true
		}
		if strings.ContainsAny(a, "oO") { // takes a word of its own, wherever it stands among others
			i++
		}
	}
	switch {
	case i >= len(args):
		return "", false, !command
	case args[i] == "-" && !command:
		return "", false, true
	}
	return args[i], command, false
}

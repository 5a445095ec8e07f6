package hints

import (
	"path"
	"slices"
	"strings"

	"mvdan.cc/sh/v3/syntax"
)

const (
	maxText  = 32 << 10  // bytes of shell text that are read; no nesting in it takes the parser more than a second
	maxRead  = 128 << 10 // the same with all texts in texts counted
	maxDepth = 8         // of sh -c in sh -c
	maxWord  = 16 << 10  // bytes that variables make of a word
	maxCalls = 5000      // simple commands that are looked at
)

// hole stands for what is known only when the command runs. No argument of a process holds this byte.
const hole = "\x00"

// script is what the shell text of a RUN does.
type script struct {
	calls  []call
	opaque bool // the text could not be read, or not all of it
	// stamped says that a time goes into a file, or to a program that may put it into one.
	stamped bool
	epoch   bool // SOURCE_DATE_EPOCH is heeded
}

// call is a simple command: its words, the first one without its directory. Words have holes.
type call []string

// subcommand gives the first word behind the name that is no option; valued are options that take a word of their own.
func (c call) subcommand(valued ...string) (string, call) {
	for i := 1; i < len(c); i++ {
		switch {
		case slices.Contains(valued, c[i]):
			i++
		case !strings.HasPrefix(c[i], "-"):
			return c[i], c[i+1:]
		}
	}
	return "", nil
}

// value is a word of a command, or what one prints.
type value struct {
	text  string // with holes
	timed bool   // the time of day is in it
}

// reader goes through shell text in the order in which it runs, and follows the time of day from date to where it is written.
type reader struct {
	*script
	vars      map[string]value
	exported  bool            // a variable that looks like a build's time is in the environment of what follows
	functions map[string]bool // whether what they print has the time in it
	depth     int
	read      int // bytes
}

// shells are the programs whose scripts are read.
var shells = []string{"sh", "bash", "dash", "ash", "ksh", "zsh"}

func readScript(text string) *script {
	s := &script{epoch: strings.Contains(text, "SOURCE_DATE_EPOCH")}
	r := &reader{script: s, vars: map[string]value{}, functions: map[string]bool{}}
	r.run(text)
	return s
}

// run reads a text and tells whether what it prints has the time in it.
func (r *reader) run(text string) bool {
	if r.read += len(text); r.depth >= maxDepth || len(text) > maxText || r.read > maxRead || r.opaque {
		r.opaque = true
		return false
	}
	f, err := syntax.NewParser(syntax.Variant(syntax.LangBash)).Parse(strings.NewReader(text), "")
	if err != nil {
		f, err = syntax.NewParser(syntax.Variant(syntax.LangPOSIX)).Parse(strings.NewReader(text), "")
	}
	if err != nil {
		r.opaque = true
		return false
	}
	r.depth++
	defer func() { r.depth-- }()
	return r.stmts(f.Stmts, value{})
}

func (r *reader) stmts(list []*syntax.Stmt, in value) (timed bool) {
	for _, st := range list {
		timed = r.stmt(st, in) || timed
	}
	return timed
}

// stmt goes through a statement that reads in, and tells whether what it prints has the time in it.
func (r *reader) stmt(st *syntax.Stmt, in value) (timed bool) {
	if st == nil || r.opaque {
		return false
	}
	var targets []string
	for _, d := range st.Redirs {
		own := d.N == nil || d.N.Value == "1"
		switch d.Op {
		case syntax.Hdoc, syntax.DashHdoc:
			in = r.word(d.Hdoc)
		case syntax.WordHdoc:
			in = r.word(d.Word)
		case syntax.RdrOut, syntax.AppOut, syntax.RdrClob, syntax.RdrAll, syntax.AppAll:
			to := r.word(d.Word)
			if r.stamped = r.stamped || to.timed; own || d.Op == syntax.RdrAll || d.Op == syntax.AppAll {
				targets = append(targets, to.text)
			}
		case syntax.DplOut:
			if own {
				targets = append(targets, "/dev/stderr")
			}
		default:
			r.word(d.Word)
		}
	}
	timed = r.command(st.Cmd, in)
	if len(targets) == 0 {
		return timed
	}
	r.stamped = r.stamped || timed && slices.ContainsFunc(targets, isKept)
	return false
}

// isKept tells whether what is written to a path stays in the image.
func isKept(path string) bool {
	return !strings.HasPrefix(path, "/dev/") && !strings.HasPrefix(path, "/proc/")
}

func (r *reader) command(c syntax.Command, in value) (timed bool) {
	switch c := c.(type) {
	case *syntax.CallExpr:
		return r.call(c, in)
	case *syntax.DeclClause:
		r.assign(c.Args, c.Variant.Value == "export")
	case *syntax.Block:
		return r.stmts(c.Stmts, in)
	case *syntax.Subshell:
		return r.stmts(c.Stmts, in)
	case *syntax.BinaryCmd:
		if c.Op == syntax.Pipe || c.Op == syntax.PipeAll {
			return r.stmt(c.Y, value{hole, r.stmt(c.X, in)})
		}
		timed = r.stmt(c.X, in)
		return r.stmt(c.Y, in) || timed
	case *syntax.IfClause:
		for ; c != nil; c = c.Else {
			timed = r.stmts(c.Cond, in) || timed
			timed = r.stmts(c.Then, in) || timed
		}
	case *syntax.WhileClause:
		timed = r.stmts(c.Cond, in)
		return r.stmts(c.Do, in) || timed
	case *syntax.ForClause:
		if it, ok := c.Loop.(*syntax.WordIter); ok && it.Name != nil {
			v := value{text: hole}
			for _, w := range it.Items {
				v.timed = r.word(w).timed || v.timed
			}
			r.vars[it.Name.Value] = v
		}
		return r.stmts(c.Do, in)
	case *syntax.CaseClause:
		r.word(c.Word)
		for _, item := range c.Items {
			timed = r.stmts(item.Stmts, in) || timed
		}
	case *syntax.FuncDecl:
		prints := r.stmt(c.Body, value{})
		if c.Name != nil {
			r.functions[c.Name.Value] = prints
		}
	case *syntax.TimeClause:
		return r.stmt(c.Stmt, in)
	case *syntax.TestClause, *syntax.ArithmCmd, *syntax.LetClause:
		syntax.Walk(c, func(n syntax.Node) bool {
			sub, ok := n.(*syntax.CmdSubst)
			if ok {
				r.stmts(sub.Stmts, value{})
			}
			return !ok
		})
	}
	return timed
}

// unescaped takes backslashes out of text.
var unescaped = strings.NewReplacer("\\\n", "", `\`, "")

// word expands a word without splitting it.
func (r *reader) word(w *syntax.Word) value {
	if w == nil {
		return value{}
	}
	return r.parts(w.Parts)
}

func (r *reader) parts(parts []syntax.WordPart) value {
	var b strings.Builder
	timed := false
	for _, p := range parts {
		v := value{text: hole}
		switch p := p.(type) {
		case *syntax.Lit:
			v.text = unescaped.Replace(p.Value)
		case *syntax.SglQuoted:
			v.text = p.Value
		case *syntax.DblQuoted:
			v = r.parts(p.Parts)
		case *syntax.ParamExp:
			v = r.param(p)
		case *syntax.CmdSubst:
			v.timed = r.stmts(p.Stmts, value{})
		case *syntax.ProcSubst:
			v.timed = r.stmts(p.Stmts, value{})
		case *syntax.ArithmExp: // a duration, or a number of the kind
		}
		timed = timed || v.timed
		if b.Len()+len(v.text) > maxWord {
			return value{hole, timed}
		}
		b.WriteString(v.text)
	}
	return value{b.String(), timed}
}

func (r *reader) param(p *syntax.ParamExp) value {
	v := value{text: hole}
	if p.Param != nil {
		if set, ok := r.vars[p.Param.Value]; ok {
			v = set
		}
	}
	if p.Exp != nil {
		v = value{hole, r.word(p.Exp.Word).timed || v.timed}
	}
	return v
}

// assign sets variables.
func (r *reader) assign(list []*syntax.Assign, export bool) {
	for _, a := range list {
		v := value{text: hole}
		if a.Value != nil {
			v = r.word(a.Value)
		}
		if a.Name == nil {
			continue
		}
		name := a.Name.Value
		if a.Naked {
			v = r.vars[name]
		} else {
			if a.Append {
				v = value{hole, v.timed || r.vars[name].timed}
			}
			r.vars[name] = v
		}
		if v.timed && name == "SOURCE_DATE_EPOCH" {
			r.epoch = false
		}
		if export && v.timed && isMoving(name) {
			r.exported = true
		}
	}
}

// call runs a simple command.
func (r *reader) call(c *syntax.CallExpr, in value) bool {
	if len(c.Args) == 0 {
		r.assign(c.Assigns, false)
		return false
	}
	words := make([]value, 0, len(c.Args))
	size := 0
	for _, w := range c.Args {
		v := r.word(w)
		if size += len(v.text); size > maxText {
			r.opaque = true
			return false
		}
		if p := w.Parts; len(p) == 1 && v.text != hole { // a bare variable: the shell splits it
			if _, bare := p[0].(*syntax.ParamExp); bare {
				for _, f := range strings.Fields(v.text) {
					words = append(words, value{f, v.timed})
				}
				continue
			}
		}
		words = append(words, v)
	}
	if len(words) == 0 {
		return false
	}
	exported := r.exported
	r.assign(c.Assigns, true)
	timed := r.simple(words, in)
	r.exported = exported
	return timed
}

// texts are the words of a call as text.
func texts(words []value) call {
	out := make(call, len(words))
	for i, w := range words {
		out[i] = w.text
	}
	if len(out) > 0 {
		out[0] = path.Base(out[0])
	}
	return out
}

package automount

import (
	"path"
	"strings"

	"mvdan.cc/sh/v3/syntax"
)

// walker goes through a shell's text in the order in which it runs, as far as that is known.
type walker struct {
	*script
	vars   *vars
	cwd    string // has a hole where it is not known
	caller caller
	depth  int
}

// caller says on whose behalf commands run, beside the RUN's user.
type caller struct {
	sudo, other, substitute bool
	piped                   string // the words of the commands that pipe into them
}

// run reads a text. What is no shell text makes the whole command unreadable.
func (w *walker) run(text string) {
	if w.opaque {
		return
	}
	if w.depth >= maxDepth {
		return
	}
	if !known(text) {
		w.note([]string{"sh", text}, strings.Join(w.words, "\n"))
		w.overhear(text)
		return
	}
	if len(text) > maxText {
		w.opaque = true
		return
	}
	f, err := syntax.NewParser(syntax.Variant(syntax.LangBash)).Parse(strings.NewReader(text), "")
	if err != nil {
		f, err = syntax.NewParser(syntax.Variant(syntax.LangPOSIX)).Parse(strings.NewReader(text), "")
	}
	if err != nil {
		w.opaque = true
		return
	}
	w.depth++
	w.stmts(f.Stmts)
	w.depth--
}

func (w *walker) stmts(list []*syntax.Stmt) {
	for _, st := range list {
		w.stmt(st)
	}
}

func (w *walker) stmt(st *syntax.Stmt) {
	if w.budget--; w.budget < 0 {
		w.opaque = true
	}
	if st == nil || w.opaque {
		return
	}
	input := ""
	for _, r := range st.Redirs {
		switch text := w.word(r.Word); {
		case r.Hdoc != nil:
			input = w.word(r.Hdoc)
		case r.Op == syntax.WordHdoc:
			input = text
		default:
			w.note([]string{">", text}, "")
		}
	}
	switch c := st.Cmd.(type) {
	case *syntax.CallExpr:
		w.call(c, input)
	case *syntax.DeclClause:
		w.assign(c.Args)
	case *syntax.Block:
		w.stmts(c.Stmts)
	case *syntax.Subshell:
		w.subshell(c.Stmts, false)
	case *syntax.BinaryCmd:
		switch c.Op {
		case syntax.Pipe, syntax.PipeAll:
			before := len(w.calls)
			w.subshell([]*syntax.Stmt{c.X}, false)
			in := *w
			in.caller.piped = spoken(w.calls[before:])
			w.budget -= len(in.caller.piped) / 64 // it is kept with each command that it is piped into
			in.subshell([]*syntax.Stmt{c.Y}, false)
		case syntax.OrStmt:
			w.stmt(c.X)
			w.maybe(func() { w.stmt(c.Y) })
		default:
			w.stmt(c.X)
			w.stmt(c.Y)
		}
	case *syntax.IfClause:
		for ; c != nil; c = c.Else {
			w.stmts(c.Cond)
			w.maybe(func() { w.stmts(c.Then) })
		}
	case *syntax.WhileClause:
		w.maybe(func() { w.stmts(c.Cond); w.stmts(c.Do) })
	case *syntax.ForClause:
		if it, ok := c.Loop.(*syntax.WordIter); ok && it.Name != nil {
			w.fields(it.Items)
			w.vars.set(it.Name.Value, hole)
		}
		w.maybe(func() { w.stmts(c.Do) })
	case *syntax.CaseClause:
		w.word(c.Word)
		for _, item := range c.Items {
			w.maybe(func() { w.stmts(item.Stmts) })
		}
	case *syntax.FuncDecl:
		if c.Name != nil {
			w.functions[c.Name.Value] = true
		}
		w.maybe(func() { w.stmt(c.Body) })
	case *syntax.TimeClause:
		w.stmt(c.Stmt)
	case *syntax.CoprocClause:
		w.subshell([]*syntax.Stmt{c.Stmt}, false)
	case *syntax.TestClause:
		w.inside(c)
	}
}

// inside looks at the commands in words of what is itself none.
func (w *walker) inside(n syntax.Node) {
	syntax.Walk(n, func(n syntax.Node) bool {
		if sub, ok := n.(*syntax.CmdSubst); ok {
			w.subshell(sub.Stmts, true)
			return false
		}
		return true
	})
}

// maybe goes through what may not run: which variables it sets is not known afterwards.
func (w *walker) maybe(f func()) {
	before, cwd := w.vars.clone(), w.cwd
	f()
	w.vars.doubt(before)
	if w.cwd != cwd {
		w.cwd = hole
	}
}

// subshell goes through what has variables of its own.
func (w *walker) subshell(list []*syntax.Stmt, substitute bool) {
	in := *w
	in.vars = w.vars.clone()
	in.caller.substitute = w.caller.substitute || substitute
	in.stmts(list)
}

func (w *walker) call(c *syntax.CallExpr, input string) {
	if len(c.Args) == 0 {
		w.assign(c.Assigns)
		return
	}
	args := w.fields(c.Args)
	if w.opaque || len(args) == 0 {
		return
	}
	if len(c.Assigns) == 0 {
		w.simple(args, input)
		return
	}
	in := *w
	in.vars = w.vars.clone()
	in.assign(c.Assigns)
	in.simple(args, input)
	if args[0] == "cd" {
		w.cwd = in.cwd
	}
}

// assign sets variables. All count as exported: a variable of the same name in the environment is as a rule what is
// meant.
func (w *walker) assign(list []*syntax.Assign) {
	for _, a := range list {
		switch {
		case a.Name == nil:
			w.word(a.Value) // an option, or what only the shell can expand
		case a.Naked:
		case a.Append || a.Array != nil || a.Index != nil:
			w.word(a.Value)
			w.vars.set(a.Name.Value, hole)
		default:
			w.vars.set(a.Name.Value, w.word(a.Value))
		}
	}
}

// chdir follows cd.
func (w *walker) chdir(args []string) {
	args = args[1:]
	for len(args) > 0 && len(args[0]) > 1 && args[0][0] == '-' {
		args = args[1:]
	}
	switch {
	case len(args) == 0:
		w.cwd = w.home()
	case args[0] == "-":
		w.cwd = hole
	case path.IsAbs(args[0]):
		w.cwd = path.Clean(args[0])
	case !known(w.cwd):
		w.cwd = hole
	default:
		w.cwd = path.Join(w.cwd, args[0])
	}
	// One directory of which a part is known is not above itself.
	if first, last, ok := strings.Cut(w.cwd, hole); w.cwd == "" || ok && (first == "" || strings.HasSuffix(first, "/") || strings.ContainsAny(last, "/"+hole)) {
		w.cwd = hole
	}
	w.vars.set("PWD", w.cwd)
}

// note keeps a command that is none of the tools.
func (w *walker) note(args []string, input string) {
	w.calls = append(w.calls, call{args: args, vars: w.vars, cwd: w.cwd, text: w.caller.piped + input})
}

// spoken joins the words of commands.
func spoken(calls []call) string {
	var b strings.Builder
	for _, c := range calls {
		for _, a := range append([]string{c.text}, c.args...) {
			if b.Len()+len(a) > maxText {
				return b.String()
			}
			b.WriteString(a + "\n")
		}
	}
	return b.String()
}

// overhear goes through a text that may run, or something like it: what it does to places counts, not what it wants.
func (w *walker) overhear(text string) {
	own := *w.script
	own.calls, own.opaque = nil, false
	in := *w
	in.script, in.vars = &own, w.vars.clone()
	const unknown = "larder_unknown"
	in.vars.set(unknown, hole)
	in.run(strings.ReplaceAll(text, hole, "${"+unknown+"}"))
	w.calls = append(w.calls, own.calls...)
	w.budget = own.budget
}

package automount

import (
	"maps"
	"path"
	"strings"

	"mvdan.cc/sh/v3/syntax"
)

// hole stands for what is known only when the command runs. No argument or variable of a process holds this byte.
const hole = "\x00"

// maxWord bounds what variables make of a word, in bytes.
const maxWord = 16 << 10

func known(s string) bool { return !strings.Contains(s, hole) }

// vars are a shell's variables.
type vars struct {
	m map[string]string
	// sourced: a file was read that may have set any variable.
	sourced bool
}

func newVars(env []string) *vars {
	v := &vars{m: map[string]string{}}
	for _, e := range env {
		if name, value, ok := strings.Cut(e, "="); ok {
			v.m[name] = value
		}
	}
	return v
}

func (v *vars) clone() *vars { return &vars{maps.Clone(v.m), v.sourced} }

func (v *vars) set(name, value string) {
	if len(value) > maxWord {
		value = hole
	}
	v.m[name] = value
}

// get gives a variable's value, "" if it is not set.
func (v *vars) get(name string) string {
	value, ok := v.m[name]
	if !ok && v.sourced {
		return hole
	}
	return value
}

// first gives the first variable that has a value.
func (v *vars) first(names ...string) string {
	for _, n := range names {
		if value := v.get(n); value != "" {
			return value
		}
	}
	return ""
}

// doubt makes unknown what differs from before: what ran in between may not run.
func (v *vars) doubt(before *vars) {
	for name, value := range v.m {
		if old, ok := before.m[name]; !ok || old != value {
			v.m[name] = hole
		}
	}
	for name := range before.m {
		if _, ok := v.m[name]; !ok {
			v.m[name] = hole
		}
	}
	v.sourced = v.sourced || before.sourced
}

// fields expands words as arguments of a command.
func (w *walker) fields(words []*syntax.Word) []string {
	var out []string
	size := 0
	for _, word := range words {
		text := w.word(word)
		list := []string{text}
		if len(word.Parts) == 1 {
			if _, bare := word.Parts[0].(*syntax.ParamExp); bare && known(text) {
				list = strings.Fields(text) // unquoted: the shell splits it
			}
		}
		for _, f := range list {
			if size += len(f) + 1; size > maxText {
				w.opaque = true
				return nil
			}
			out = append(out, f)
		}
	}
	return out
}

// word expands one word without splitting it. Commands in it are looked at.
func (w *walker) word(word *syntax.Word) string {
	if word == nil {
		return ""
	}
	text := w.parts(word.Parts, false)
	if rest, ok := strings.CutPrefix(text, "~"); ok && (rest == "" || rest[0] == '/') {
		if lit, ok := word.Parts[0].(*syntax.Lit); ok && strings.HasPrefix(lit.Value, "~") {
			home := w.home()
			if home == "" {
				home = hole
			}
			return home + rest
		}
	}
	return text
}

func (w *walker) parts(parts []syntax.WordPart, quoted bool) string {
	var b strings.Builder
	for _, p := range parts {
		var s string
		switch p := p.(type) {
		case *syntax.Lit:
			s = unescape(p.Value, quoted)
		case *syntax.SglQuoted:
			if s = p.Value; p.Dollar && strings.Contains(s, `\`) {
				s = hole
			}
		case *syntax.DblQuoted:
			s = w.parts(p.Parts, true)
		case *syntax.ParamExp:
			s = w.param(p)
		case *syntax.CmdSubst:
			w.subshell(p.Stmts, true)
			s = hole
		case *syntax.ProcSubst:
			w.subshell(p.Stmts, true)
			s = hole
		default:
			s = hole
		}
		if b.Len()+len(s) > maxWord {
			return hole
		}
		b.WriteString(s)
	}
	return b.String()
}

// unescape takes the backslashes out of a literal.
func unescape(s string, quoted bool) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+1 < len(s) && (!quoted || strings.IndexByte("$`\"\\\n", s[i+1]) >= 0) {
			i++
			if s[i] == '\n' {
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// param expands $NAME, ${NAME} and ${NAME:-default}; anything else is not known.
func (w *walker) param(p *syntax.ParamExp) string {
	plain := p.Param != nil && !p.Excl && !p.Length && !p.Width && !p.IsSet && p.Flags == nil && p.Index == nil &&
		p.Slice == nil && p.Repl == nil && p.Names == 0 && p.NestedParam == nil && len(p.Modifiers) == 0
	if !plain || !syntax.ValidName(p.Param.Value) {
		if p.Exp != nil {
			w.word(p.Exp.Word)
		}
		return hole
	}
	name := p.Param.Value
	value := w.vars.get(name)
	if value == "" && name == "HOME" {
		if value = w.home(); value == "" {
			return hole
		}
	}
	if p.Exp == nil {
		return value
	}
	other := w.word(p.Exp.Word)
	_, isSet := w.vars.m[name]
	isSet = isSet || name == "HOME"
	if !known(value) {
		return hole
	}
	switch p.Exp.Op {
	case syntax.DefaultUnsetOrNull, syntax.AssignUnsetOrNull:
		if value == "" {
			value = other
		}
	case syntax.DefaultUnset, syntax.AssignUnset:
		if !isSet {
			value = other
		}
	case syntax.ErrorUnset, syntax.ErrorUnsetOrNull:
	case syntax.AlternateUnsetOrNull:
		if value != "" {
			value = other
		}
	case syntax.AlternateUnset:
		if isSet {
			value = other
		}
	default:
		return hole
	}
	return value
}

// home is the home directory of whoever runs the command, "" if nothing says which it is.
func (w *walker) home() string { return home(w.vars, w.who, w.caller) }

func home(v *vars, u who, c caller) string {
	switch {
	case c.other, c.sudo && !u.root:
		return ""
	case v.get("HOME") != "":
		return v.get("HOME")
	case u.root:
		return "/root"
	}
	return ""
}

// under joins a path below a directory that may be unknown ("").
func under(dir string, elem ...string) string {
	if dir == "" {
		return ""
	}
	return path.Join(append([]string{dir}, elem...)...)
}

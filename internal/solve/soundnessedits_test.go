package solve_test

import (
	"fmt"
	"math/rand/v2"
	"path"
	"slices"
	"strings"
)

// edit is a change between two builds. It says what, not how it was before, so that it can be done to what a shrunken scenario has
// left: where there is nothing to edit, nothing happens.
type edit struct {
	op       string
	in, into int // the context, and for "move" the other one; -1 is the base image
	at, to   string
	obj      *object
	step     string // the step that is split, or before which one is added
	add      *step
}

func (e *edit) String() string {
	s := fmt.Sprintf("%s context %d %q", e.op, e.in, e.at)
	switch e.op {
	case "split", "copy":
		return fmt.Sprintf("%s at %s %q: %v", e.op, e.step, e.at, e.add)
	case "rename", "swap", "unlink":
		s += fmt.Sprintf(" %q", e.to)
	case "move":
		s += fmt.Sprintf(" to context %d %q", e.into, e.to)
	}
	if e.obj != nil {
		s += ": " + e.obj.String()
	}
	return s
}

// ops are the edits of files, those that matter most more than once.
var ops = []string{
	"content", "content", "content", "size", "size", "add", "add", "add", "remove", "remove", "rename", "rename", "chmod", "chmod", "chown",
	"retarget", "kind", "kind", "touch", "xattr", "xattr", "swap", "move", "unlink", "exec",
}

// drawEdit makes an edit that does something to a scenario as it stands.
func drawEdit(rnd *rand.Rand, sc *scenario) *edit {
	if chance(rnd, 12) {
		return drawStepEdit(rnd, sc)
	}
	e := &edit{op: pick(rnd, ops), in: rnd.IntN(len(sc.contexts))}
	if chance(rnd, 40) {
		e.in = -1
	}
	f := *sc.forest(e.in)
	if len(f) == 0 {
		e.op = "add"
	} else {
		e.at = pick(rnd, f.paths())
	}
	other := func(of forest) string {
		if len(of) > 0 && !chance(rnd, 3) {
			return pick(rnd, of.paths())
		}
		return path.Join(path.Dir(e.at), pick(rnd, slices.Concat(fileNames, dirNames)))
	}
	switch e.op {
	case "content", "size", "exec", "unlink":
		if files := f.files(); len(files) > 0 {
			e.at = pick(rnd, files)
		}
	case "add":
		at := forest{}
		e.at = at.plant(rnd, pick(rnd, append(f.dirs(), "")), links(sc))
		e.obj = at[e.at]
	case "rename", "swap":
		e.to = other(f)
	case "kind", "chmod", "chown", "xattr":
		e.obj = sprout(rnd, f[e.at].kind != 'd', f, links(sc))
	case "retarget":
		for _, p := range f.paths() {
			if f[p].kind == 'l' {
				e.at = p
			}
		}
		e.to = pick(rnd, append(links(sc), "a", "b", "../a", "d"))
	case "move":
		e.into = rnd.IntN(len(sc.contexts))
		e.to = other(*sc.forest(e.into))
	}
	return e
}

func (f forest) dirs() []string {
	return slices.DeleteFunc(f.paths(), func(p string) bool { return f[p].kind != 'd' })
}

// drawStepEdit makes an edit of the Dockerfile.
func drawStepEdit(rnd *rand.Rand, sc *scenario) *edit {
	st := pick(rnd, pick(rnd, sc.stages))
	e := &edit{op: "copy", step: st.name, add: drawCopy(rnd, sc, "added"+fmt.Sprint(rnd.IntN(1000)), 0)}
	if st.kind == "copy" && !chance(rnd, 3) {
		e.op, e.at = "split", pick(rnd, []string{"a", "b", "c", "d", "e", "lib"})
	}
	return e
}

// do changes a scenario.
func (e *edit) do(sc *scenario) {
	switch e.op {
	case "split", "copy":
		e.doStep(sc)
		return
	}
	f := *sc.forest(e.in)
	o := f[e.at]
	if e.op == "add" {
		if f.holds(path.Dir(e.at)) {
			f.put(e.at, forest{"": e.obj})
		}
		return
	}
	if o == nil {
		return
	}
	switch e.op {
	case "content":
		if o.kind == 'f' && o.text != "" {
			o.text = string(o.text[0]^1) + o.text[1:]
		}
	case "size":
		if o.kind == 'f' {
			o.text += "more\n"
		}
	case "exec":
		o.mode ^= 0o111
	case "unlink":
		for _, p := range f.paths() { // the names of a file come to be files
			if f[p].kind == 'h' && f[p].text == e.at {
				c := *o
				f[p] = &c
				return
			}
		}
	case "remove":
		f.remove(e.at)
	case "rename":
		if f.holds(path.Dir(e.to)) && !within(e.to, e.at) {
			f.put(e.to, f.take(e.at))
		}
	case "swap":
		if f[e.to] != nil && !within(e.to, e.at) && !within(e.at, e.to) {
			was := f.take(e.at)
			f.put(e.at, f.take(e.to))
			f.put(e.to, was)
		}
	case "move":
		to := *sc.forest(e.into)
		if e.in != e.into && to.holds(path.Dir(e.to)) {
			to.put(e.to, f.take(e.at))
		}
	case "retarget":
		if o.kind == 'l' {
			o.text = e.to
		}
	case "kind":
		f.put(e.at, forest{"": e.obj})
	case "chmod":
		if o.kind != 'l' {
			o.mode = e.obj.mode
		}
	case "chown":
		o.uid, o.gid = e.obj.uid, e.obj.gid
	case "xattr":
		o.xattrs = e.obj.xattrs
	}
}

func within(p, dir string) bool { return p == dir || strings.HasPrefix(p, dir+"/") }

func (e *edit) doStep(sc *scenario) {
	for i, stage := range sc.stages {
		at := slices.IndexFunc(stage, func(st *step) bool { return st.name == e.step })
		if at < 0 {
			continue
		}
		if e.op == "copy" {
			c := *e.add
			c.last = i
			sc.stages[i] = slices.Insert(slices.Clone(stage), at, &c)
			return
		}
		if stage[at].kind != "copy" || stage[at].only != "" {
			return
		}
		rest, one := *stage[at], *stage[at]
		rest.without, one.only = e.at, e.at
		one.name += "b"
		sc.stages[i] = slices.Replace(slices.Clone(stage), at, at+1, &rest, &one)
		return
	}
}

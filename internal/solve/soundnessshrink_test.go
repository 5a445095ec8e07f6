package solve_test

import (
	"slices"
	"testing"
	"time"
)

// effort bounds how long a scenario is made smaller.
const effort = 90 * time.Second

// shrink takes away what a scenario can do without and still come out wrong.
func shrink(t *testing.T, k *kit, top string, sc *scenario, wrong []string) (*scenario, []string) {
	t.Helper()
	until := time.Now().Add(effort)
	for again := true; again; {
		again = false
		for i := 0; time.Now().Before(until); i++ {
			less := sc.deep()
			n := 0
			if !less.cut(func() bool { n++; return n-1 == i }) {
				break
			}
			if w, _ := try(t, k, top, less, &tally{}); len(w) > 0 {
				sc, wrong, again = less, w, true
				i--
			}
		}
	}
	return sc, wrong
}

// deep copies all that cut changes.
func (sc *scenario) deep() *scenario {
	c := sc.clone()
	c.edits = nil
	for _, list := range sc.edits {
		c.edits = append(c.edits, slices.Clone(list))
	}
	c.stages = nil
	for _, stage := range sc.stages {
		var out []*step
		for _, st := range stage {
			s := *st
			s.binds, s.script = slices.Clone(st.binds), copyScript(st.script)
			out = append(out, &s)
		}
		c.stages = append(c.stages, out)
	}
	return c
}

func copyScript(list []*stmt) []*stmt {
	var out []*stmt
	for _, s := range list {
		c := *s
		c.then, c.alt = copyScript(s.then), copyScript(s.alt)
		out = append(out, &c)
	}
	return out
}

// cut takes away the one thing for which this says so, and tells whether there was one. Large things come first.
func (sc *scenario) cut(this func() bool) bool {
	for i := range sc.stages {
		if len(sc.stages) > 1 && i == 0 && this() {
			sc.stages[0] = nil
			return true
		}
		for j := range sc.stages[i] {
			if this() {
				sc.stages[i] = slices.Delete(sc.stages[i], j, j+1)
				return true
			}
		}
	}
	for i := range sc.edits {
		for j := range sc.edits[i] {
			if this() {
				sc.edits[i] = slices.Delete(sc.edits[i], j, j+1)
				return true
			}
		}
		if len(sc.edits) > 1 && this() {
			sc.edits = slices.Delete(sc.edits, i, i+1)
			return true
		}
	}
	for _, stage := range sc.stages {
		for _, st := range stage {
			if st.cut(this) {
				return true
			}
		}
	}
	for i := -1; i < len(sc.contexts); i++ {
		f := *sc.forest(i)
		for _, p := range f.paths() {
			if this() {
				f.remove(p)
				return true
			}
		}
	}
	return false
}

func (st *step) cut(this func() bool) bool {
	for i := range st.binds {
		if this() {
			st.binds = slices.Delete(st.binds, i, i+1)
			return true
		}
	}
	for _, simpler := range []struct {
		may bool
		do  func()
	}{
		{st.user != 0, func() { st.user = 0 }}, {st.cwd != "", func() { st.cwd = "" }}, {st.link, func() { st.link = false }},
		{st.chown != "", func() { st.chown = "" }}, {st.mode >= 0 && st.kind == "copy", func() { st.mode = -1 }},
	} {
		if simpler.may && this() {
			simpler.do()
			return true
		}
	}
	return cutScript(&st.script, this)
}

// cutScript takes a statement away, or puts what is in it in its place.
func cutScript(list *[]*stmt, this func() bool) bool {
	for i, s := range *list {
		if this() {
			*list = slices.Delete(*list, i, i+1)
			return true
		}
		if s.open == "then" && this() {
			*list = slices.Replace(*list, i, i+1, slices.Concat(s.then, s.alt)...)
			return true
		}
		if cutScript(&s.then, this) || cutScript(&s.alt, this) {
			return true
		}
	}
	return false
}

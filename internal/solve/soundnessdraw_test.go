package solve_test

import (
	"fmt"
	"math/rand/v2"
	"path"
	"strings"
	"unicode/utf8"
)

// tops are where copies go and links lead.
var tops = []string{"/x", "/x", "/x/d", "/y", "/y/lib", "/", "/x/new"}

// drawScenario makes the scenario of a seed.
func drawScenario(seed uint64) *scenario {
	rnd := rand.New(rand.NewPCG(seed, 5))
	sc := &scenario{seed: seed}
	sc.base = forest{"x": {kind: 'd', mode: 0o755}}
	for p, o := range grow(rnd, rnd.IntN(6), links(sc)) {
		sc.base[path.Join("x", p)] = o
	}
	for range 1 + rnd.IntN(2) {
		sc.contexts = append(sc.contexts, grow(rnd, 3+rnd.IntN(10), links(sc)))
	}
	stages, runs := 1, 1+rnd.IntN(3)
	if chance(rnd, 3) {
		stages = 2
	}
	for i := range stages {
		var stage []*step
		name := func() string { return fmt.Sprintf("s%d.%d", i, len(stage)) }
		n := runs
		if i < stages-1 {
			n = rnd.IntN(2)
		}
		if chance(rnd, 4) {
			stage = append(stage, &step{name: name(), kind: "workdir", dst: pick(rnd, tops)})
		}
		for r := range n + 1 {
			copies := rnd.IntN(3)
			if r == 0 {
				copies++
			}
			for range copies {
				stage = append(stage, drawCopy(rnd, sc, name(), i))
			}
			if r < n {
				stage = append(stage, &step{name: name(), kind: "run", last: i})
			}
		}
		sc.stages = append(sc.stages, stage)
	}
	for range 1 + rnd.IntN(5)/4 {
		var list []*edit
		at := sc.versions()
		for range 1 + rnd.IntN(3) {
			list = append(list, drawEdit(rnd, at[len(at)-1]))
		}
		sc.edits = append(sc.edits, list)
	}
	sc.author(rnd)
	return sc
}

func links(*scenario) []string {
	return []string{"/x", "/x/d", "/x/a", "/y/lib", "/y/d/a", "/etc/passwd", "/mnt/m1/a"}
}

// drawCopy makes a COPY for a stage.
func drawCopy(rnd *rand.Rand, sc *scenario, name string, stage int) *step {
	st := &step{name: name, kind: "copy", last: stage, from: rnd.IntN(len(sc.contexts)), src: ".", dst: pick(rnd, tops), mode: -1}
	if !chance(rnd, 3) {
		if paths := sc.contexts[st.from].named(); len(paths) > 0 {
			st.src = pick(rnd, paths)
			if last := len(st.src) - 1; st.src[last] < utf8.RuneSelf && !chance(rnd, 5) {
				st.src = st.src[:last] + "[" + st.src[last:] + "]" // a pattern, which may match nothing
			}
		}
	}
	if stage > 0 && chance(rnd, 3) {
		st.from, st.src = builder, pick(rnd, []string{"/", "/x", "/w", "/out"})
	}
	if chance(rnd, 2) {
		st.dst += "/"
	}
	st.link = chance(rnd, 5)
	if chance(rnd, 8) {
		st.chown = pick(rnd, []string{"1000", "7"})
	}
	if chance(rnd, 10) {
		st.mode = pick(rnd, []int{0o600, 0o777})
	}
	return st
}

// author writes the scripts of all RUNs, about what lies there in any version.
func (sc *scenario) author(rnd *rand.Rand) {
	a := &author{rnd: rnd, dirs: []string{"/x", "/y", "/x/d"}, places: []string{"/x/a", "/x/d/a", "/y/b"}}
	for _, v := range append(sc.versions(), sc) {
		for p, o := range inOrder(v.base) {
			a.known(p, o.kind == 'd')
		}
		for _, stage := range v.stages {
			for _, st := range stage {
				if st.kind == "copy" && st.from >= 0 {
					a.lay(v.contexts[st.from], st.src, st.dst)
				}
			}
		}
	}
	for i, stage := range sc.stages {
		for _, st := range stage {
			if st.kind != "run" {
				continue
			}
			st.binds = sc.drawBinds(rnd, i, a)
			if chance(rnd, 6) {
				st.user = 1000
			}
			if chance(rnd, 4) {
				st.cwd = pick(rnd, a.dirs)
			}
			st.script = a.block(2 + rnd.IntN(7))
		}
	}
}

// lay notes where a context's files come to lie.
func (a *author) lay(f forest, src, dst string) {
	if src = strings.NewReplacer("[", "", "]", "").Replace(src); src == "." {
		src = ""
	}
	for p, o := range inOrder(f) {
		if src == "" || within(p, src) {
			a.known(path.Join(dst, p[len(src):]), o.kind == 'd')
		}
	}
}

// inOrder lists what can be named.
func inOrder(f forest) func(yield func(string, *object) bool) {
	return func(yield func(string, *object) bool) {
		for _, p := range f.named() {
			if !yield(p, f[p]) {
				return
			}
		}
	}
}

func (sc *scenario) drawBinds(rnd *rand.Rand, stage int, a *author) []bind {
	var out []bind
	for n := range 2 {
		if !chance(rnd, 3) {
			continue
		}
		b := bind{from: rnd.IntN(len(sc.contexts)), src: ".", at: fmt.Sprint("/mnt/m", n+1), write: chance(rnd, 2)}
		f := sc.contexts[b.from]
		if paths := f.named(); len(paths) > 0 && chance(rnd, 3) {
			if b.src = pick(rnd, paths); f[b.src].kind == 'h' || f[b.src].kind == 'l' {
				b.src = "."
			} else if f[b.src].kind != 'd' {
				b.at = fmt.Sprint("/mnt/f", n+1)
			}
		}
		if stage > 0 && chance(rnd, 3) {
			b.from, b.src = builder, pick(rnd, []string{"/", "/x", "/w"})
		} else {
			a.lay(f, b.src, b.at)
		}
		if chance(rnd, 8) {
			b.at = path.Join("/x/d", path.Base(b.at))
		}
		a.known(b.at, true)
		out = append(out, b)
	}
	return out
}

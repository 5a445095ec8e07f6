package observation

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"strings"

	"larder/internal/tree"
)

// dice makes random models, edits of them, and looks at them.
type dice struct{ *rand.Rand }

func newDice(seed uint64) dice { return dice{rand.New(rand.NewPCG(seed, 7))} }

// cases is how many random cases a test tries.
func cases(short, soak int) int {
	if os.Getenv("LARDER_SOAK") != "" {
		return soak
	}
	return short
}

func pick[T any](d dice, of ...T) T { return of[d.IntN(len(of))] }

func (d dice) one(in int) bool { return d.IntN(in) == 0 }

// names sort before, at and behind the slash that separates them in paths.
func (d dice) name() string { return pick(d, "a", "a-", "a.b", "a0", "b") }

func (d dice) object() object {
	o := object{mode: pick[uint32](d, 0o755, 0o644, 0o4755), uid: pick[uint32](d, 0, 0, 1000), gid: pick[uint32](d, 0, 0, 7)}
	o.mtime = d.Int64N(3)
	if d.one(8) {
		o.xattr = pick(d, "1", "2")
	}
	o.kind = pick(d, tree.File, tree.File, tree.File, tree.Dir, tree.Dir, tree.Dir, tree.Dir, tree.Symlink, tree.Char, tree.Block,
		tree.Fifo, tree.Whiteout, tree.Socket)
	switch o.kind {
	case tree.File:
		o.content = pick(d, "", "x", "y", "long")
	case tree.Symlink:
		o.link = pick(d, "a", "../b")
	case tree.Char, tree.Block:
		o.rdev = pick[uint64](d, 0, 0x103)
	case tree.Dir:
		o.opaque, o.implied = d.one(10), d.one(10)
	case tree.Whiteout:
		o = object{kind: tree.Whiteout}
	}
	return o
}

func (d dice) model() model {
	m := model{"": object{kind: tree.Dir, mode: 0o755}}
	for range d.IntN(22) {
		m.put(d, m.path(d), d.object())
	}
	for range d.IntN(6) {
		m.link(d)
	}
	return m
}

// path draws one that may or may not be there, mostly near what is.
func (m model) path(d dice) string {
	p := pick(d, m.paths()...)
	for range d.IntN(3) {
		p = tree.Join(p, d.name())
	}
	return p
}

// put places an object where there is a directory to hold it.
func (m model) put(d dice, path string, o object) {
	dir, _ := split(path)
	if path == "" && o.kind != tree.Dir || path != "" && m[dir].kind != tree.Dir {
		return
	}
	if o.kind != tree.Dir || d.one(4) {
		m.remove(path)
	}
	m[path] = o
}

func (m model) remove(path string) {
	for p := range m {
		if p != path && within(p, path) {
			delete(m, p)
		}
	}
	if path != "" {
		delete(m, path)
	}
}

// link makes one name a hard link of another.
func (m model) link(d dice) {
	from, to := pick(d, m.paths()...), m.path(d)
	o := m[from]
	if o.kind == tree.Dir || o.kind == tree.Whiteout || from == to {
		return
	}
	if o.group == 0 {
		o.group = 1 + d.IntN(1<<30)
		m[from] = o
	}
	m.put(d, to, o)
}

// set changes an object, and with it its other names.
func (m model) set(path string, change func(*object)) {
	group := m[path].group
	for p, o := range m {
		if p == path || group != 0 && o.group == group {
			change(&o)
			m[p] = o
		}
	}
}

// edited gives m with some changes.
func (m model) edited(d dice) model {
	m = maps.Clone(m)
	for range 1 + d.IntN(3) {
		p := pick(d, m.paths()...)
		if d.one(6) {
			p = m.path(d)
		}
		o, ok := m[p]
		switch d.IntN(9) {
		case 0:
			m.remove(p)
		case 1, 2:
			m.put(d, m.path(d), d.object())
		case 3:
			m.link(d)
		case 4: // one name gets a file of its own
			if o.group != 0 {
				o.group = 0
				m[p] = o
			}
		case 5:
			m.move(d, p)
		default:
			if ok && o.kind != tree.Whiteout {
				n, what := d.object(), d.IntN(8)
				m.set(p, func(o *object) { o.alter(n, what) })
			}
		}
	}
	return m
}

// alter takes one property over from n.
func (o *object) alter(n object, what int) {
	switch what {
	case 0:
		o.mode = n.mode
	case 1:
		o.uid, o.gid = n.uid, n.gid
	case 2:
		o.xattr = n.xattr
	case 3:
		o.mtime = n.mtime
	case 4:
		if o.kind == tree.Dir {
			o.opaque = !o.opaque
		}
	default:
		switch o.kind {
		case tree.Dir:
			o.implied = !o.implied
		case tree.File:
			o.content = map[string]string{"": "x", "x": "y", "y": "long"}[o.content]
		case tree.Symlink:
			o.link += "x"
		case tree.Char, tree.Block:
			o.rdev++
		}
	}
}

// move renames what is at from.
func (m model) move(d dice, from string) {
	to := m.path(d)
	dir, _ := split(to)
	if from == "" || to == "" || within(to, from) || within(from, to) || m[dir].kind != tree.Dir {
		return
	}
	m.remove(to)
	for p, o := range maps.Clone(m) {
		if within(p, from) {
			delete(m, p)
			m[to+strings.TrimPrefix(p, from)] = o
		}
	}
}

// looks are those of a few programs, and some that no program makes.
func (d dice) looks(m model) []Look {
	var out []Look
	for range d.IntN(5) {
		out = append(out, m.visit(d)...)
	}
	for range d.IntN(6) {
		l := Look{m.path(d), pick(d, Entry, Entry, List, Content, Entry|List, Entry|Content)}
		switch {
		case d.one(6):
			l.Kind = Whole
		case d.one(20):
			l.Kind |= Whole
		}
		out = append(out, l)
	}
	d.Shuffle(len(out), func(i, j int) { out[i], out[j] = out[j], out[i] })
	return out
}

// visit is what a program looks at that goes to some path and then reads it, lists it, or everything below.
func (m model) visit(d dice) []Look {
	var out []Look
	to := m.path(d)
	for i := range len(to) {
		if to[i] == '/' {
			out = append(out, Look{to[:i], Entry})
		}
	}
	out = append(out, Look{"", Entry}, Look{to, Entry})
	read := !d.one(3) // or only found
	switch d.IntN(5) {
	case 0:
		out = append(out, Look{to, Content})
	case 1:
		out = append(out, Look{to, List})
	case 2: // by a handle of its directory
		return []Look{{to, Content}}
	case 3, 4:
		for _, p := range m.paths() {
			if within(p, to) {
				out = append(out, Look{p, Entry})
				if m[p].kind == tree.Dir {
					out = append(out, Look{p, List})
				} else if m[p].kind == tree.File && read {
					out = append(out, Look{p, Content})
				}
			}
		}
		if len(out) > 0 && d.one(4) {
			i := d.IntN(len(out))
			out = append(out[:i], out[i+1:]...)
		}
	}
	return out
}

// dump is for the messages of failing tests.
func (m model) dump() string {
	var b strings.Builder
	for _, p := range m.paths() {
		fmt.Fprintf(&b, "  %q %+v\n", p, m[p])
	}
	return b.String()
}

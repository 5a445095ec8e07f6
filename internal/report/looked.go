package report

import (
	"cmp"
	"slices"
	"strings"

	"larder/internal/observation"
	"larder/internal/tree"
)

// Ways in which a step had to do with what changed, those first that say most.
const (
	read = iota
	stated
	listed
	whole
)

// felt is a change that the step could see, and how.
type felt struct {
	change
	way int
	at  string // of listed and whole: the directory
	who string // who brought it; empty where that is not known
}

// looks compares what the step looked at in the observed groups of an input with what it would see there now. The inputs have as
// many of them.
func (c *comparison) looks(was, is Input) {
	a, b := observed(was), observed(is)
	var all []felt
	for i := range min(len(a), len(b)) {
		all = append(all, c.group(is, a[i], b[i])...)
	}
	c.feel(all)
}

func observed(in Input) []Group {
	return slices.DeleteFunc(slices.Clone(in.Groups), func(g Group) bool { return !g.Observed })
}

// group finds what the step could see of the changes in one group.
func (c *comparison) group(in Input, was, is Group) []felt {
	if is.Root == nil {
		return nil
	}
	differ, _ := changedLooks(was.Seen, is.Root)
	if len(differ) == 0 {
		return nil
	}
	old := c.composed(was)
	if in.Source != "" && old != nil {
		old = find(old, in.Source)
	}
	var out []felt
	for _, s := range differ {
		for _, f := range c.look(in, s, old, is.Root) {
			f.who = c.who(in, was, is, f)
			out = append(out, f)
		}
	}
	return out
}

// changedLooks gives the looks that see something else in a tree than they saw; not ok where it cannot be loaded.
func changedLooks(seen []Seen, root *tree.Node) (out []Seen, ok bool) {
	now := values(seen, root)
	for i, v := range now {
		if v != seen[i].Value {
			out = append(out, seen[i])
		}
	}
	return out, now != nil
}

// values gives what looks see in a tree; nil where it cannot be loaded.
func values(seen []Seen, root *tree.Node) []Value {
	looks := make([]observation.Look, len(seen))
	for i, s := range seen {
		looks[i] = observation.Look{Path: s.Path, Kind: s.Kind}
	}
	digests, err := observation.Values(looks, root)
	if err != nil {
		return nil
	}
	out := make([]Value, len(digests))
	for i, d := range digests {
		out[i] = Value(d[:len(Value{})])
	}
	return out
}

// composed is an earlier group as one tree; nil where one of its layers' is not to be had.
func (c *comparison) composed(g Group) *tree.Node {
	var out *tree.Node
	for _, l := range g.Layers {
		n := c.files.tree(l)
		if n == nil {
			return nil
		}
		if out == nil {
			out = n
			continue
		}
		var err error
		if out, err = tree.Compose(out, n); err != nil {
			return nil
		}
	}
	return out
}

// look says what changed for one look that sees something else than it saw. was is the earlier tree, nil where it is not at hand.
func (c *comparison) look(in Input, s Seen, was, is *tree.Node) []felt {
	n := find(is, s.Path)
	place := under(in.Place, s.Path)
	one := func(v verb, way int) []felt {
		return []felt{{change: change{path: place, verb: v, dir: n != nil && n.Kind == tree.Dir}, way: way, at: place}}
	}
	if was == nil {
		switch gone := values([]Seen{s}, tree.Empty()); {
		case absent(n):
			return one(removed, strongest(s.Kind))
		case s.Path != "" && len(gone) == 1 && gone[0] == s.Value:
			return one(added, strongest(s.Kind))
		}
		return one(changed, strongest(s.Kind))
	}
	o := find(was, s.Path)
	var out []felt
	add := func(way int, changes []change) {
		for _, ch := range changes {
			out = append(out, felt{change: ch, way: way, at: place})
		}
	}
	d := &trees{place: in.Place}
	if s.Kind&observation.Whole != 0 && o != nil && n != nil {
		add(whole, compare(s.Path, in.Place, o, n))
	} else {
		if d.self(s.Path, orNothing(o), orNothing(n)); len(d.out) > 0 {
			add(strongest(s.Kind), d.out)
		}
		if s.Kind&observation.List != 0 && o != nil && n != nil {
			l := &trees{place: in.Place}
			l.names(s.Path, o, n, func(p string, a, b *tree.Node) {
				if a.Kind != b.Kind {
					l.self(p, a, b)
				}
			})
			add(listed, l.out)
		}
	}
	if len(out) == 0 { // hard links, marks of layers
		return one(changed, strongest(s.Kind))
	}
	return out
}

// orNothing stands for what is not there.
func orNothing(n *tree.Node) *tree.Node {
	if n == nil {
		return &tree.Node{Kind: tree.Whiteout}
	}
	return n
}

func strongest(k observation.Kind) int {
	switch {
	case k&observation.Content != 0:
		return read
	case k&observation.Whole != 0:
		return whole
	case k&observation.List != 0:
		return listed
	}
	return stated
}

// who names the step whose layer has a path, the topmost one: of today's layers, or of the earlier ones for what is gone.
func (c *comparison) who(in Input, was, is Group, f felt) string {
	layers := is.Layers
	if f.verb == removed {
		layers = was.Layers
	}
	if len(layers) == 1 {
		return layers[0].subject()
	}
	p := strings.TrimPrefix(strings.TrimPrefix(f.path, under(in.Place, "")), "/")
	for _, l := range slices.Backward(layers) {
		n := c.files.tree(l)
		if n == nil {
			break
		}
		if found := find(n, tree.Join(in.Source, p)); found != nil {
			return l.subject()
		}
	}
	return ""
}

// feel adds the causes that changes make: one for each way in which the step saw those of one step. A path counts once, in the
// way that says most.
func (c *comparison) feel(all []felt) {
	slices.SortStableFunc(all, func(a, b felt) int { return cmp.Or(a.way-b.way, strings.Compare(a.path, b.path)) })
	told := map[string]bool{}
	type together struct {
		way     int
		absent  bool
		at, who string
	}
	var sorted []together
	groups := map[together][]change{}
	for _, f := range all {
		if told[f.path] {
			continue
		}
		told[f.path] = true
		t := together{way: f.way, who: f.who}
		if f.way == listed || f.way == whole {
			t.at = f.at
		} else {
			t.absent = f.verb == added
		}
		if groups[t] == nil {
			sorted = append(sorted, t)
		}
		groups[t] = append(groups[t], f.change)
	}
	for _, t := range sorted {
		c.add(cause(Files, t.who, groups[t], did(t.way, t.absent, t.at, len(groups[t]) == 1)))
	}
}

// did says what the step has to do with the changes.
func did(way int, absent bool, at string, one bool) string {
	it := "them"
	if one {
		it = "it"
	}
	at = change{path: at, dir: true}.name()
	switch {
	case absent:
		return "this step looked for " + it
	case way == read:
		return "this step read " + it
	case way == listed:
		return "this step lists " + at
	case way == whole:
		return "this step looks at all of " + at
	}
	return "this step looked at " + it
}

// layer says what changed in a layer that counts as a whole.
func (c *comparison) layer(in Input, was, is placed) {
	if c.now.Type == File {
		switch {
		case c.last.Result != c.now.Result: // what it makes of those files says more
		case parseName(is.Step).place == 0 && c.now.Result == "":
			c.add(Cause{Kind: Files, Text: is.subject() + " changed"})
		case parseName(is.Step).place == 0:
			c.add(Cause{Kind: Files, Text: "other files of " + is.subject() + " changed, none that it copies"})
		default:
			c.before(is)
		}
		return
	}
	who := is.subject()
	old, root := c.files.tree(was.Layer), c.files.tree(is.Layer)
	if in.Source != "" {
		old, root = find(old, in.Source), find(root, in.Source)
	}
	out := Cause{Kind: Files, Text: who + " made another layer"}
	if changes := compare("", in.Place, old, root); len(changes) > 0 {
		out = cause(Files, "", changes, "")
		out.Text = who + " made another layer: " + out.Text
	}
	switch {
	case is.observed && c.last.Not != "":
		out.Text += "; its last run was not observed"
	case is.observed && c.now.Not == "":
		out.Text += "; what this step looked at is not known any more"
	}
	c.add(out)
}

package report

import (
	"slices"

	"larder/internal/key"
)

// Carry takes into now what last, the build before, knew and now did not learn: what a step that was found by its inputs looked at
// when it ran, where its inputs agree; how long it took, and its trees. A build that failed also keeps the steps that it did not reach,
// so that the next one is compared with them. last may be nil.
func Carry(now, last *Build) {
	if last == nil {
		return
	}
	met := make([]bool, len(last.Steps))
	for i := range now.Steps {
		s := &now.Steps[i]
		j := last.find(s)
		if j < 0 {
			if j = last.edited(s); j >= 0 {
				met[j] = true
			}
			continue
		}
		met[j] = true
		if s.spared() {
			s.take(&last.Steps[j])
		}
	}
	if now.Error != "" {
		now.keep(last, met)
	}
}

// keep takes over the steps of an earlier build that are not met, one for each place, "3/5": however often somebody edits a Dockerfile that
// fails, no more is kept than it has places. Those that the last build reached go before what it had kept itself.
func (b *Build) keep(last *Build, met []bool) {
	type slot struct {
		kind            Type
		platform, stage string
		place, of       int
		name            string // of what is in no stage
	}
	taken := map[slot]bool{}
	drop := make([]bool, len(last.Steps))
	for _, again := range []bool{false, true} {
		for j := range last.Steps {
			s := &last.Steps[j]
			if met[j] || (s.How == Kept) != again {
				continue
			}
			t := parseName(s.Name)
			at := slot{kind: s.Type, platform: s.Platform, stage: t.stage, place: t.place, of: t.of}
			if t.place == 0 {
				at.name = s.Name
			}
			drop[j] = taken[at]
			taken[at] = true
		}
	}
	for j, s := range last.Steps {
		if !met[j] && !drop[j] && len(b.Steps) < maxSteps {
			s.How, s.Why = Kept, nil
			b.Steps = append(b.Steps, s)
		}
	}
}

// edited gives the place of a step that stood where s stands and failed, so that s is what became of it; -1 for none.
func (b *Build) edited(s *Step) int {
	at := parseName(s.Name)
	return slices.IndexFunc(b.Steps, func(o Step) bool {
		return o.How == Failed && at.place > 0 && parseName(o.Name).place == at.place && o.beside(s)
	})
}

// take takes over what an earlier build knew of the step.
func (s *Step) take(old *Step) {
	for i := range s.Inputs {
		s.Inputs[i].trees(old)
	}
	if len(recipe(old, s)) > 0 {
		return
	}
	s.regroup(old)
	if len(s.Inputs) != len(old.Inputs) {
		return
	}
	for i := range s.Inputs {
		if !s.Inputs[i].agrees(old.Inputs[i]) {
			return
		}
	}
	for i := range s.Inputs {
		for j := range s.Inputs[i].Groups {
			if g := &s.Inputs[i].Groups[j]; g.Observed && g.Seen == nil {
				g.Seen = old.Inputs[i].Groups[j].Seen
			}
		}
	}
	if s.How == Exact && s.Not == "" {
		s.Not = old.Not
	}
	if s.Result == "" {
		s.Result = old.Result
	}
	if s.Tree.IsZero() && s.Result == old.Result {
		s.Tree = old.Tree
	}
	if s.Took == 0 {
		s.Took = old.Took
	}
	if s.Made.IsZero() {
		s.Made = old.Made
	}
}

// regroup gives a step the groups of an earlier build where its inputs are the same: nobody asks for groups who finds a step by all of its
// layers.
func (s *Step) regroup(old *Step) {
	is := slices.DeleteFunc(slices.Clone(s.Inputs), empty)
	was := slices.DeleteFunc(slices.Clone(old.Inputs), empty)
	if s.How != Exact || s.observed() || len(is) != len(was) {
		return
	}
	for i, in := range is {
		o := was[i]
		layers := in.layers()
		if in.Place != o.Place || !slices.EqualFunc(layers, o.layers(), sameLayer) {
			return
		}
		// The recipe leaves out which part of an input is mounted; the name says it.
		if o.Source != in.Source && (in.Source != "" || withoutDigest(parseName(s.Name).command) != withoutDigest(parseName(old.Name).command)) {
			return
		}
		is[i].Source, is[i].Groups = o.Source, slices.Clone(o.Groups)
		for j := range is[i].Groups {
			g := &is[i].Groups[j]
			n := len(g.Layers)
			g.Layers, layers = layers[:n:n], layers[n:] // with the names that steps have today
		}
	}
	s.Inputs = is
}

func empty(in Input) bool { return len(in.layers()) == 0 }

func (in Input) layers() []Layer {
	var out []Layer
	for _, g := range in.Groups {
		out = append(out, g.Layers...)
	}
	return out
}

func sameLayer(a, b Layer) bool { return a.Identity == b.Identity }

// observed tells whether something of what a step is given is known to be observed.
func (s *Step) observed() bool {
	return slices.ContainsFunc(s.Inputs, func(in Input) bool { return len(observed(in)) > 0 })
}

// trees takes over where the trees of layers are stored.
func (in *Input) trees(old *Step) {
	known := map[key.Digest]key.Digest{}
	for _, o := range old.Inputs {
		for _, g := range o.Groups {
			for _, l := range g.Layers {
				known[l.Identity] = l.Tree
			}
		}
	}
	for _, g := range in.Groups {
		for i := range g.Layers {
			if l := &g.Layers[i]; l.Tree.IsZero() {
				l.Tree = known[l.Identity]
			}
		}
	}
}

// agrees tells whether a step could not tell two inputs apart: they are the same, or what it looked at is.
func (in Input) agrees(old Input) bool {
	if in.Place != old.Place || in.Source != old.Source || len(in.Groups) != len(old.Groups) {
		return false
	}
	for i, g := range in.Groups {
		o := old.Groups[i]
		if g.Observed != o.Observed {
			return false
		}
		if slices.EqualFunc(g.Layers, o.Layers, sameLayer) {
			continue
		}
		if !g.Observed || o.Seen == nil || g.Root == nil {
			return false
		}
		if differ, ok := changedLooks(o.Seen, g.Root); !ok || len(differ) > 0 {
			return false
		}
	}
	return true
}

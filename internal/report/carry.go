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
			continue
		}
		met[j] = true
		if s.spared() {
			s.take(&last.Steps[j])
		}
	}
	for j, s := range last.Steps {
		if now.Error != "" && !met[j] && len(now.Steps) < maxSteps {
			s.How, s.Why = Kept, nil
			now.Steps = append(now.Steps, s)
		}
	}
}

// take takes over what an earlier build knew of the step.
func (s *Step) take(old *Step) {
	for i := range s.Inputs {
		s.Inputs[i].trees(old)
	}
	if len(recipe(old, s)) > 0 || len(s.Inputs) != len(old.Inputs) {
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
		if slices.EqualFunc(g.Layers, o.Layers, func(a, b Layer) bool { return a.Identity == b.Identity }) {
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

package report

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"larder/internal/key"
)

// TestCarry finds a step three times by its inputs, and still knows afterwards what it looked at.
func TestCarry(t *testing.T) {
	s, st := shelf{}, bundle()
	last := st.built(t, s)
	last.Steps[0].Took, last.Steps[0].Made = 7*time.Second, now
	for range 3 {
		step := st.today(t, s)
		step.How = Exact
		step.Name = "[builder 7/7] RUN npm run build"
		next := &Build{Steps: []Step{*step}}
		Carry(next, last)
		last = next
	}
	got := last.Steps[0]
	if got.looks() != 11 || got.Took != 7*time.Second || !got.Made.Equal(now) {
		t.Errorf("%d looks, took %s, made %s", got.looks(), got.Took, got.Made)
	}
	st.edit(3, "app/src/main.js other")
	if text := Short(st.causes(t, s, last)); text != "COPY . . changed /app/src/main.js; this step read it" {
		t.Error(text)
	}
}

// blanket makes of a step what the solver knows of one that is found by its exact key: one group for each input, without trees.
func blanket(s *Step) {
	s.How = Exact
	for i := range s.Inputs {
		in := &s.Inputs[i]
		g := Group{Layers: in.layers()}
		for j := range g.Layers {
			g.Layers[j].Root, g.Layers[j].Tree = nil, key.Digest{}
		}
		in.Source, in.Groups = "", []Group{g}
	}
}

// TestCarryOverExactHits knows after builds without changes what the step looked at when it ran.
func TestCarryOverExactHits(t *testing.T) {
	for name, c := range map[string]struct {
		was, is func(*story)
		looks   int
	}{
		"nothing changed":   {nil, nil, 13},
		"files that differ": {nil, func(s *story) { s.edit(3, "app/README.md x") }, 0},
		"a command":         {nil, func(s *story) { s.step = renamed(s.step, "npm run build x") }, 0},
		"another part":      {nil, func(s *story) { s.step.Name = "[builder 6/6] RUN --mount=source=other npm run build" }, 0},
		"not observed":      {func(s *story) { s.step.Not = "no FUSE" }, func(s *story) { s.step.Not = "" }, 0},
	} {
		s, st := shelf{}, bundle()
		mount(&st, "x")
		if c.was != nil {
			c.was(&st)
		}
		last := st.built(t, s)
		if c.was == nil {
			last.Steps[0].Inputs[1].Groups[0].Seen = []Seen{{Path: "go.mod", Kind: content}}
		}
		ran := last.Steps[0]
		if c.is != nil {
			c.is(&st)
		}
		for range 3 {
			step := st.today(t, s)
			blanket(step)
			step.Inputs = append(step.Inputs, Input{Place: "/empty", Groups: []Group{{}}}) // a mount of scratch
			next := &Build{Steps: []Step{*step}}
			Carry(next, last)
			last = next
		}
		got := last.Steps[0]
		if got.looks() != c.looks || got.Not != ran.Not {
			t.Errorf("%s: %d looks, not observed: %q", name, got.looks(), got.Not)
		}
		if c.looks > 0 && (got.Inputs[1].Source != "sub" || len(got.Inputs[0].Groups) != 3 || got.Inputs[0].Groups[1].Layers[0].Tree.IsZero()) {
			t.Errorf("%s: %+v", name, got.Inputs)
		}
	}
}

// TestReadsOfExactHit does not say of files that they could not be observed where nobody asked.
func TestReadsOfExactHit(t *testing.T) {
	step := bundle().today(t, shelf{})
	blanket(step)
	var out strings.Builder
	if err := Reads(&out, &Build{Steps: []Step{*step}}, "npm"); err != nil || !strings.Contains(out.String(), "not known here") {
		t.Errorf("%v %s", err, out.String())
	}
}

// TestCarryOnlyWhatAgrees takes over no looks of another state of the inputs: not of one in which what was looked at is another,
// nor where that cannot be told.
func TestCarryOnlyWhatAgrees(t *testing.T) {
	for name, c := range map[string]struct {
		edit           func(*story)
		rootless, want bool
	}{
		"the same":                     {func(*story) {}, true, true},
		"a file that was not read":     {func(s *story) { s.edit(3, "app/README.md x") }, false, true},
		"the same, which is not known": {func(s *story) { s.edit(3, "app/README.md x") }, true, false},
		"a file that was read":         {func(s *story) { s.edit(3, "app/src/main.js x") }, false, false},
		"an earlier step":              {func(s *story) { s.edit(4, "app/node_modules/x y") }, false, false},
		"a variable":                   {func(s *story) { s.env("VERSION", "b2") }, false, false},
		"a layer more":                 {func(s *story) { s.layers = append(s.layers, laid{step: "RUN x", pinned: true}) }, false, false},
	} {
		s, st := shelf{}, bundle()
		last := st.built(t, s)
		c.edit(&st)
		step := st.today(t, s)
		step.How = Exact
		for j := range step.Inputs[0].Groups {
			if c.rootless {
				step.Inputs[0].Groups[j].Root = nil
			}
		}
		b := &Build{Steps: []Step{*step}}
		if Carry(b, last); (b.Steps[0].looks() > 0) != c.want {
			t.Errorf("%s: %d looks", name, b.Steps[0].looks())
		}
	}
	var none Build
	Carry(&none, nil)
	Carry(&none, &Build{})
}

// TestCarryEdits keeps no more than a Dockerfile has steps while somebody edits one that fails, and adds and removes others.
func TestCarryEdits(t *testing.T) {
	last := &Build{Steps: runs("[2/4] RUN a", "[3/4] RUN b", "[4/4] RUN c")}
	for n := range 40 {
		steps := []string{"[2/4] RUN a", fmt.Sprintf("[3/4] RUN b%d", n)}
		if n%3 == 1 {
			steps = []string{"[2/5] RUN a", fmt.Sprintf("[3/5] RUN new%d", n), fmt.Sprintf("[4/5] RUN b%d", n)}
		}
		next := &Build{Steps: runs(steps...), Error: "exit 1"}
		next.Steps[len(next.Steps)-1].How = Failed
		Carry(next, last)
		last = next
		if last.find(&runs("[4/4] RUN c")[0]) < 0 {
			t.Fatalf("after %d builds the step that none of them reached is forgotten: %+v", n+1, last.Steps)
		}
	}
	if n := len(last.Steps); n > 3+4 {
		t.Errorf("%d steps of a Dockerfile that has 3 or 4", n)
	}
	failed := func(name string) *Build {
		b := &Build{Steps: runs("[2/3] RUN a", name), Error: "exit 1"}
		b.Steps[1].How = Failed
		return b
	}
	b := failed("[3/3] RUN new")
	if Carry(b, failed("[3/3] RUN old")); len(b.Steps) != 2 {
		t.Errorf("the step that was edited is kept: %+v", b.Steps)
	}
}

// TestCarryFailed keeps the steps that a build did not reach, until one does.
func TestCarryFailed(t *testing.T) {
	s, st := shelf{}, bundle()
	last := st.built(t, s)
	for range 2 {
		next := &Build{Steps: []Step{{Name: "[builder 2/6] WORKDIR /app", Type: File, How: Failed}}, Error: "no space"}
		Carry(next, last)
		last = next
	}
	if len(last.Steps) != 2 || last.Steps[1].How != Kept {
		t.Fatalf("%+v", last.Steps)
	}
	st.edit(3, "app/src/main.js other")
	if text := Short(st.causes(t, s, last)); text != "COPY . . changed /app/src/main.js; this step read it" {
		t.Error(text)
	}
	next := &Build{Steps: []Step{{Name: "[builder 2/6] WORKDIR /app", Type: File, How: Ran}}}
	if Carry(next, last); len(next.Steps) != 1 {
		t.Errorf("a build that was not about them keeps steps: %+v", next.Steps)
	}
}

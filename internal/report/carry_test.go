package report

import (
	"testing"
	"time"
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

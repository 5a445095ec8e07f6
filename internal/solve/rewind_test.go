package solve

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/moby/buildkit/client/llb"

	"larder/internal/layer"
)

// vanish makes the layers of some states gone though their records stay.
func (w *world) vanish(names ...string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, n := range names {
		w.gone[w.layer(n).Identity] = true
	}
	w.ran = nil
}

func TestAStepGoesBackToTheOneWhoseLayerIsGone(t *testing.T) {
	w := newWorld(t)
	base := llb.Image("base")
	chain := run(run(run(base, "make a"), "make b"), "make c")
	if _, err := w.solver(0).Evaluate(t.Context(), definition(t, chain)); err != nil {
		t.Fatal(err)
	}
	w.vanish("a", "c")
	// d is new: it needs a, b and c. b is there, and stays.
	st, err := w.solver(0).Evaluate(t.Context(), definition(t, run(chain, "make d")))
	if err != nil {
		t.Fatal(err)
	}
	if got, want := contents(t, st), "docker-image://docker.io/library/base:latest | a | b | c | d"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	if got := w.commands(); !slices.Equal(got, []string{"make a", "make c", "make d"}) {
		t.Errorf("ran %q", got)
	}
}

// TestWhatComesOutOtherwiseIsBuiltUpon: a step that is taken back makes something else this time; what stood on its old result
// is done again as well.
func TestWhatComesOutOtherwiseIsBuiltUpon(t *testing.T) {
	w := newWorld(t)
	chain := run(run(llb.Image("base"), "vary a"), "make b")
	if _, err := w.solver(0).Evaluate(t.Context(), definition(t, chain)); err != nil {
		t.Fatal(err)
	}
	w.vanish("a1")
	st, err := w.solver(0).Evaluate(t.Context(), definition(t, run(chain, "make c")))
	if err != nil {
		t.Fatal(err)
	}
	if got, want := contents(t, st), "docker-image://docker.io/library/base:latest | a2 | b | c"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	if got := w.commands(); !slices.Equal(got, []string{"make b", "make c", "vary a"}) {
		t.Errorf("ran %q", got)
	}
}

// TestRewindAfterEvaluate: the layer turns out to be gone when the image is exported.
func TestRewindAfterEvaluate(t *testing.T) {
	w := newWorld(t)
	def := definition(t, run(run(llb.Image("base"), "make a"), "make b"))
	if _, err := w.solver(0).Evaluate(t.Context(), def); err != nil {
		t.Fatal(err)
	}
	w.vanish("a")
	s := w.solver(0)
	for try := 0; ; try++ {
		st, err := s.Evaluate(t.Context(), def)
		if err != nil {
			t.Fatal(err)
		}
		err = w.want(st)
		if err == nil {
			break
		}
		var gone *layer.GoneError
		if try > 0 || !errors.As(err, &gone) || !s.Rewind(t.Context(), gone) {
			t.Fatalf("try %d: %v", try, err)
		}
	}
	if got := w.commands(); !slices.Equal(got, []string{"make a"}) {
		t.Errorf("ran %q", got)
	}
	if s.Rewind(t.Context(), &layer.GoneError{Identity: w.layer("nobody made this").Identity, Err: errors.New("gone")}) {
		t.Error("Rewind took back a step for a layer that none makes")
	}
}

// TestALayerThatNeverComesBackFails: the end of going back is an error that says why, not a loop.
func TestALayerThatNeverComesBackFails(t *testing.T) {
	w := newWorld(t)
	chain := run(llb.Image("base"), "make a")
	if _, err := w.solver(0).Evaluate(t.Context(), definition(t, chain)); err != nil {
		t.Fatal(err)
	}
	w.vanish("docker-image://docker.io/library/base:latest")
	_, err := w.solver(0).Evaluate(t.Context(), definition(t, run(chain, "make b")))
	var gone *layer.GoneError
	if !errors.As(err, &gone) {
		t.Fatalf("got %v", err)
	}
}

// TestRandomLossesCostWorkOnly builds random graphs, lets random layers of them vanish, and compares what comes out with a build from
// nothing, several builds at once.
func TestRandomLossesCostWorkOnly(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 1))
	for range 60 {
		n := 3 + rnd.IntN(8)
		states := []llb.State{llb.Image("base")}
		var names []string
		for i := range n {
			name := fmt.Sprint("s", i)
			names = append(names, name)
			opts := []llb.RunOption{}
			for range rnd.IntN(3) { // it also reads other states
				opts = append(opts, llb.AddMount(fmt.Sprintf("/m%d", len(opts)), states[rnd.IntN(len(states))], llb.Readonly))
			}
			states = append(states, run(states[rnd.IntN(len(states))], "make "+name, opts...))
		}
		w := newWorld(t)
		top := states[len(states)-1]
		if _, err := w.solver(2).Evaluate(t.Context(), definition(t, top)); err != nil {
			t.Fatal(err)
		}
		var lost []string
		for _, name := range names {
			if rnd.IntN(2) == 0 {
				lost = append(lost, name)
			}
		}
		w.vanish(lost...)
		s := w.solver(1 + rnd.IntN(3))
		edits := []llb.State{run(top, "make new"), run(states[rnd.IntN(len(states))], "make other", llb.AddMount("/m", top, llb.Readonly))}
		type outcome struct {
			i   int
			got string
			err error
		}
		results := make(chan outcome)
		for i, st := range edits {
			def := definition(t, st)
			go func() {
				out, err := s.Evaluate(context.Background(), def)
				if err == nil {
					err = w.want(out)
				}
				if err != nil {
					results <- outcome{i, "", err}
					return
				}
				results <- outcome{i, contents(t, out), nil}
			}()
		}
		for range edits {
			r := <-results
			if r.err != nil {
				t.Fatalf("build %d: %v", r.i, r.err)
			}
			from := newWorld(t)
			out, err := from.solver(0).Evaluate(t.Context(), definition(t, edits[r.i]))
			if err != nil {
				t.Fatal(err)
			}
			if want := contents(t, out); r.got != want {
				t.Errorf("build %d: %s, want %s", r.i, r.got, want)
			}
		}
	}
}

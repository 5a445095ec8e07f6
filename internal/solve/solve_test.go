package solve

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/moby/buildkit/client/llb"
	"github.com/moby/buildkit/solver/pb"
)

func TestAStepIsRunOnceAndThenRecalled(t *testing.T) {
	w := newWorld(t)
	base := llb.Image("base")
	def := definition(t, run(run(base, "make a"), "make b"))
	for i := range 3 {
		st, err := w.solver(0).Evaluate(context.Background(), def)
		if err != nil {
			t.Fatal(err)
		}
		if got, want := contents(t, st), "docker-image://docker.io/library/base:latest | a | b"; got != want {
			t.Errorf("build %d: %s, want %s", i, got, want)
		}
	}
	if got := w.commands(); !slices.Equal(got, []string{"make a", "make b"}) {
		t.Errorf("ran %q", got)
	}
}

func TestEqualResultsKeepStepsAboveThemHits(t *testing.T) {
	w := newWorld(t)
	build := func(first string) {
		t.Helper()
		if _, err := w.solver(0).Evaluate(context.Background(), definition(t, run(run(llb.Image("base"), first), "make b"))); err != nil {
			t.Fatal(err)
		}
	}
	build("make same x 1")
	build("make same x 2")
	if got := w.commands(); !slices.Equal(got, []string{"make b", "make same x 1", "make same x 2"}) {
		t.Errorf("ran %q: the step above equal layers should have been a hit", got)
	}
}

func TestALayerThatIsGoneIsMadeAgain(t *testing.T) {
	w := newWorld(t)
	def := definition(t, run(llb.Image("base"), "make a"))
	for range 2 {
		if _, err := w.solver(0).Evaluate(context.Background(), def); err != nil {
			t.Fatal(err)
		}
		clear(w.layers)
	}
	if got := w.commands(); len(got) != 2 {
		t.Errorf("ran %q, want the step twice", got)
	}
}

func TestIgnoreCacheRunsAgainAndReplaces(t *testing.T) {
	w := newWorld(t)
	plain := definition(t, run(llb.Image("base"), "make a"))
	fresh := definition(t, run(llb.Image("base"), "make a", llb.IgnoreCache))
	for _, def := range []*pb.Definition{plain, fresh, plain} {
		if _, err := w.solver(0).Evaluate(context.Background(), def); err != nil {
			t.Fatal(err)
		}
	}
	if got := w.commands(); len(got) != 2 {
		t.Errorf("ran %q, want the step twice: once, and once more with --no-cache", got)
	}
}

func TestIndependentStepsRunTogetherWithinTheBound(t *testing.T) {
	for _, bound := range []int{1, 2, 0} {
		w := newWorld(t)
		gate := make(chan struct{})
		w.gate["go"] = gate
		var inputs []llb.State
		for i := range 5 {
			inputs = append(inputs, run(llb.Image("base"), fmt.Sprintf("wait go make l%d", i)))
		}
		done := make(chan error)
		s := w.solver(bound)
		go func() {
			_, err := s.Evaluate(context.Background(), definition(t, llb.Merge(inputs)))
			done <- err
		}()
		want := bound
		if bound == 0 {
			want = 5
		}
		wait(t, func() bool { w.mu.Lock(); defer w.mu.Unlock(); return w.active == want })
		close(gate)
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		if w.most != want {
			t.Errorf("bound %d: %d steps at once, want %d", bound, w.most, want)
		}
	}
}

func TestAFailureCancelsWhatItMakesUseless(t *testing.T) {
	w := newWorld(t)
	w.gate["never"] = make(chan struct{})
	w.gate["other"] = make(chan struct{})
	slow := run(llb.Image("base"), "wait never make slow")
	shared := run(llb.Image("base"), "wait other make shared")
	bad := run(llb.Image("other"), "fail badly")
	s := w.solver(0)

	other := make(chan error)
	go func() {
		_, err := s.Evaluate(context.Background(), definition(t, run(shared, "make top")))
		other <- err
	}()
	wait(t, func() bool { return slices.Contains(w.commands(), "wait other make shared") })

	// The failing step waits for the others to be there, or it would win the race.
	_, err := s.Evaluate(context.Background(), definition(t, llb.Merge([]llb.State{slow, shared, bad})))
	if err == nil || !strings.Contains(err.Error(), "failed: badly") {
		t.Fatalf("error %v, want the failed step's", err)
	}
	if slices.Contains(w.commands(), "wait never make slow") {
		wait(t, func() bool {
			w.mu.Lock()
			defer w.mu.Unlock()
			return slices.Contains(w.killed, "wait never make slow")
		})
	}
	close(w.gate["other"])
	if err := <-other; err != nil {
		t.Errorf("a build that shares a step with the one that failed: %v", err)
	}
	w.mu.Lock() // the slow step may end just now
	defer w.mu.Unlock()
	if slices.Contains(w.killed, "wait other make shared") {
		t.Error("a step that another build waits for was stopped")
	}
}

func TestCancelledEvaluateStopsItsStepsAndTheyCanBeWantedAgain(t *testing.T) {
	w := newWorld(t)
	w.gate["go"] = make(chan struct{})
	def := definition(t, run(llb.Image("base"), "wait go make a"))
	s := w.solver(0)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { _, err := s.Evaluate(ctx, def); done <- err }()
	wait(t, func() bool { w.mu.Lock(); defer w.mu.Unlock(); return w.active == 1 })
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want that it was cancelled", err)
	}
	close(w.gate["go"])
	if _, err := s.Evaluate(context.Background(), def); err != nil {
		t.Errorf("the same step once more: %v", err)
	}
}

func TestOneStepForManyAtOnce(t *testing.T) {
	w := newWorld(t)
	def := definition(t, run(run(llb.Image("base"), "make a"), "make b"))
	var wg sync.WaitGroup
	for range 8 { // eight solvers stand for eight processes: only the records are shared
		s := w.solver(0)
		wg.Go(func() {
			if _, err := s.Evaluate(context.Background(), def); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if got := w.commands(); len(got) != 2 {
		t.Errorf("ran %q, want each step once", got)
	}
}

func TestOnlyWhatTheTargetNeeds(t *testing.T) {
	w := newWorld(t)
	run(llb.Image("unused"), "fail never")
	if _, err := w.solver(0).Evaluate(context.Background(), definition(t, run(llb.Image("base"), "make a"))); err != nil {
		t.Fatal(err)
	}
	if got := w.commands(); !slices.Equal(got, []string{"make a"}) {
		t.Errorf("ran %q", got)
	}
}

func TestDefinitionsThatAreNone(t *testing.T) {
	good := definition(t, run(llb.Image("base"), "make a"))
	cut := good.CloneVT()
	cut.Def = cut.Def[1:]
	tail := good.CloneVT()
	tail.Def = tail.Def[:len(tail.Def)-1]
	rubbish := &pb.Definition{Def: [][]byte{[]byte("\xff\xff\xff\xff")}}
	for name, def := range map[string]*pb.Definition{"without an input": cut, "without an end": tail, "rubbish": rubbish} {
		if _, err := newWorld(t).solver(0).Evaluate(context.Background(), def); !errors.Is(err, ErrDefinition) {
			t.Errorf("%s: %v, want ErrDefinition", name, err)
		}
	}
	if st, err := newWorld(t).solver(0).Evaluate(context.Background(), nil); err != nil || st != nil {
		t.Errorf("scratch: %v, %v", st, err)
	}
}

func wait(t *testing.T, until func() bool) {
	t.Helper()
	for range 500 {
		if until() {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatal("waited five seconds in vain")
}

package ledger

import (
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"larder/internal/key"
	"larder/internal/tree"
)

var storyPaths = []string{"a", "b", "d/c"}

// story is what happens to a project: its files, the branches with their mounts, and the clocks of the machines that build it.
type story struct {
	t      *rapid.T
	files  map[string]string // as checked out
	past   []map[string]string
	layers map[string]map[string]int64 // local layers: the times that a set of files was first shown with
	main   *mount
	now    int64
	skewed bool // machines' clocks differ
	times  []string
}

func newStory(t *rapid.T) *story {
	return &story{
		t: t, files: map[string]string{"a": "1", "b": "1", "d/c": "1"}, layers: map[string]map[string]int64{}, main: newMount(),
		now: t0, skewed: rapid.Bool().Draw(t, "skewed"), times: []string{"checkout", "constant", "layer", "odd"},
	}
}

// edit changes the project: somehow, or back to what it was.
func (s *story) edit() {
	s.past = append(s.past, maps.Clone(s.files))
	if rapid.IntRange(0, 2).Draw(s.t, "back") == 0 {
		s.files = maps.Clone(rapid.SampledFrom(s.past).Draw(s.t, "to"))
		return
	}
	p := rapid.SampledFrom(storyPaths).Draw(s.t, "path")
	if c := rapid.SampledFrom([]string{"", "1", "2", "3"}).Draw(s.t, "content"); c == "" {
		delete(s.files, p)
	} else {
		s.files[p] = c
	}
}

// tick lets time pass and gives what a machine takes it for.
func (s *story) tick() int64 {
	s.now += int64(rapid.SampledFrom([]time.Duration{
		time.Millisecond, 30 * time.Millisecond, 700 * time.Millisecond, 3 * time.Second, time.Hour,
	}).Draw(s.t, "pass"))
	if !s.skewed {
		return s.now
	}
	return s.now + int64(rapid.SampledFrom([]time.Duration{0, 5 * time.Minute, -5 * time.Minute}).Draw(s.t, "skew"))
}

// stack gives the project's files, or some of them, with the times that a state's layers have.
func (s *story) stack(now int64, only string) *tree.Node {
	times := rapid.SampledFrom(s.times).Draw(s.t, "times")
	files := maps.Clone(s.files)
	if only != "" {
		maps.DeleteFunc(files, func(p, _ string) bool { return p != only })
	}
	layer := s.layers[fmt.Sprint(files)]
	if layer == nil {
		layer = map[string]int64{}
		s.layers[fmt.Sprint(files)] = layer
	}
	nodes := map[string]*tree.Node{}
	for _, p := range slices.Sorted(maps.Keys(files)) {
		mtime := now - int64(len(p))*1e5
		switch {
		case times == "layer" && layer[p] != 0:
			mtime = layer[p]
		case times == "constant":
			mtime = 5e17
		case times == "odd":
			mtime = now + int64(rapid.SampledFrom([]time.Duration{-time.Hour, -time.Second, time.Second, 900 * time.Hour}).Draw(s.t, "odd"))
		}
		layer[p] = mtime
		nodes[p] = file(files[p], mtime)
	}
	return dirAt(s.t, now, nodes)
}

// sources reads what was shown, and whether any of it is still to come.
func sources(t rapid.TB, root *tree.Node, now int64) (files map[string]source, future bool) {
	files = map[string]source{}
	for _, p := range storyPaths {
		dir := at(t, root, p[:1])
		if n := dir; dir != nil {
			if len(p) > 1 {
				n = at(t, root, p)
			}
			if n != nil {
				for _, c := range []string{"1", "2", "3"} {
					if n.Content == file(c, 0).Content {
						files[p] = source{c, n.MTime}
					}
				}
				future = future || n.MTime >= now
			}
		}
	}
	return files, future
}

// TestNeverStale runs make, Python and go test over a mount through edits, reverts, branches and other steps, on machines whose clocks
// and checkouts are as they like: they never take an old thing for one of today's sources, and make nothing where nothing changed.
func TestNeverStale(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		s := newStory(rt)
		if s.main.coarse = rapid.Bool().Draw(rt, "coarse"); s.main.coarse {
			s.times = []string{"constant"} // own times that are new enough stay, in whatever second they are
		}
		branches := []*mount{s.main}
		files := []map[string]string{s.files}
		settled := []string{""} // by branch, what was built last without anything that is still to come
		on := 0
		for range rapid.IntRange(3, 25).Draw(rt, "builds") {
			switch rapid.IntRange(0, 5).Draw(rt, "what") {
			case 0, 1:
				s.edit()
			case 2: // a branch begins with what its base has
				if len(branches) < 3 {
					branches = append(branches, branches[on].copy())
					files, settled = append(files, s.files), append(settled, settled[on])
				}
			case 3:
				files[on] = s.files
				on = rapid.IntRange(0, len(branches)-1).Draw(rt, "branch")
				s.files = maps.Clone(files[on])
			}
			m := branches[on]
			now := s.tick()
			if rapid.Bool().Draw(rt, "other step") { // which sees less and makes nothing
				if _, err := m.look(stepY, s.stack(now, "b"), now); err != nil {
					rt.Fatal(err)
				}
				now = s.tick()
			}
			shown, err := m.look(stepX, s.stack(now, ""), now)
			if err != nil {
				rt.Fatal(err)
			}
			src, future := sources(rt, shown, now)
			if len(src) != len(s.files) {
				rt.Fatalf("a step sees %v of %v", src, s.files)
			}
			made, stale := m.run(src, now)
			if len(stale) > 0 {
				rt.Fatalf("stale: %s; sources %v", stale, src)
			}
			if was := fmt.Sprint(s.files); settled[on] == was && made > 0 {
				rt.Fatalf("%d things were made of the same files: %v", made, src)
			} else if settled[on] = was; future || s.skewed {
				settled[on] = ""
			}
			m.ledger = stored(rt, m.ledger)
		}
	})
}

// TestNeverStaleUnited lets pairs of jobs write a content-addressed mount at once, of which the union stays.
func TestNeverStaleUnited(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		s := newStory(rt)
		if _, err := s.main.look(stepX, s.stack(s.now, ""), s.now); err != nil {
			rt.Fatal(err)
		}
		for range rapid.IntRange(2, 15).Draw(rt, "rounds") {
			base := s.main
			united := base.copy()
			for range rapid.IntRange(1, 2).Draw(rt, "jobs") {
				s.edit()
				now := s.tick()
				job := base.copy()
				shown, err := job.look(stepX, s.stack(now, ""), now)
				if err != nil {
					rt.Fatal(err)
				}
				src, _ := sources(rt, shown, now)
				if _, stale := job.tested(src, now); len(stale) > 0 {
					rt.Fatalf("stale: %s; sources %v", stale, src)
				}
				// Segments of two writers stand one behind the other.
				diff, err := tree.Diff(base.ledger, job.ledger)
				if err != nil {
					rt.Fatal(err)
				}
				if united.ledger, err = tree.Apply(united.ledger, diff); err != nil {
					rt.Fatal(err)
				}
				for note, content := range job.tests {
					if had, ok := united.tests[note]; ok && had != content {
						rt.Fatalf("two jobs noted %s of different contents", note)
					}
					united.tests[note] = content
				}
				united.newest = max(united.newest, job.newest)
			}
			s.main = united
		}
	})
}

// TestNeverStaleTwoSteps lets two steps that see the same files work in one mount by turns.
func TestNeverStaleTwoSteps(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		s := newStory(rt)
		build := func(by key.Digest) {
			now := s.tick()
			shown, err := s.main.look(by, s.stack(now, ""), now)
			if err != nil {
				rt.Fatal(err)
			}
			src, _ := sources(rt, shown, now)
			if _, stale := s.main.run(src, now); len(stale) > 0 {
				rt.Fatalf("stale: %s; sources %v", stale, src)
			}
			s.main.ledger = stored(rt, s.main.ledger)
		}
		both := [][]key.Digest{{stepX, stepY}, {stepY, stepX}}
		turns := both
		for range rapid.IntRange(3, 25).Draw(rt, "rounds") {
			for _, by := range rapid.SampledFrom(turns).Draw(rt, "turns") {
				build(by)
			}
			had := maps.Clone(s.files)
			for range rapid.IntRange(1, 3).Draw(rt, "edits") {
				s.edit()
			}
			turns = append([][]key.Digest{{stepX}, {stepY}}, both...)
			for p := range s.files {
				if _, ok := had[p]; !ok {
					turns = both // whoever does not see what is new cannot miss it
				}
			}
		}
	})
}

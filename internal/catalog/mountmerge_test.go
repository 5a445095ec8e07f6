package catalog

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"pgregory.net/rapid"

	"larder/internal/key"
)

func putting(list ...MountPut) Change { return Change{Mounts: list} }

// TestMountsMergeIsSound merges what builds did that began with any row that there ever was: a row never lacks what it had or what came
// new where writers are united, and is one writer's else; it can always be read; merging twice is merging once.
func TestMountsMergeIsSound(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		x := texts{}
		united := rapid.Bool().Draw(t, "united")
		k := keyOf("mount m")
		s := newState()
		rows := [][]Segment{nil}
		for i := range rapid.IntRange(1, 8).Draw(t, "builds") {
			begun := rapid.SampledFrom(rows).Draw(t, "begun with")
			thing := fmt.Sprint("t", i)
			p := x.build("m", united, begun, drawHow(t), thing)
			before := s.clone()
			next := merge(s, putting(p), nil, epoch)
			if !same(s, before) {
				t.Fatal("merge changed its argument")
			}
			if again := merge(next, putting(p), nil, epoch); !same(again, next) || again.mounts[k].Builds != next.mounts[k].Builds {
				t.Fatal("merging twice is not merging once")
			}
			had, now := s.mounts[k], next.mounts[k]
			got, err := x.holds(now.Segments)
			if err != nil {
				t.Fatal(err)
			}
			if !united && !sameRow(now.Segments, p.Mount.Segments) && !(p.unchanged() && sameRow(now.Segments, had.Segments)) {
				t.Fatal("the row is nobody's")
			}
			if united {
				old, _ := x.holds(had.Segments)
				for thing := range old {
					if !got[thing] {
						t.Fatalf("%s is lost", thing)
					}
				}
				if !got[thing] && !p.unchanged() {
					t.Fatalf("%s is not there", thing)
				}
			}
			rows = append(rows, now.Segments)
			s = next
		}
	})
}

// TestMountsAnyInterleaving lets writers, compacting ones too, write merged states over each other as a store without conditional writes
// lets them, then save again what they lost: that ends, and all is there then, the base included.
func TestMountsAnyInterleaving(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		x := texts{}
		k := keyOf("mount m")
		stored := newState()
		if rapid.Bool().Draw(t, "base") {
			for _, thing := range []string{"base0", "base1", "base2"} {
				stored = merge(stored, putting(x.build("m", true, stored.mounts[k].Segments, appends, thing)), nil, epoch)
			}
		}
		base, _ := x.holds(stored.mounts[k].Segments)
		n := rapid.IntRange(2, 6).Draw(t, "writers")
		puts := make([]*MountPut, n)
		seen := make([]state, n)
		begin := func(i int) {
			p := x.build("m", true, stored.mounts[k].Segments, drawHow(t), fmt.Sprint("w", i))
			puts[i], seen[i] = &p, stored
		}
		for range rapid.IntRange(0, 30).Draw(t, "moves") {
			switch i := rapid.IntRange(0, n-1).Draw(t, "who"); {
			case puts[i] == nil:
				begin(i)
			case rapid.Bool().Draw(t, "reads"):
				seen[i] = stored
			default:
				stored = merge(seen[i], putting(*puts[i]), nil, epoch)
				if _, err := x.holds(stored.mounts[k].Segments); err != nil {
					t.Fatal(err)
				}
			}
		}
		want := base
		for i := range n {
			if puts[i] == nil {
				begin(i)
			}
			if !puts[i].unchanged() {
				want[fmt.Sprint("w", i)] = true
			}
		}
		for round, changed := 0, true; changed; round++ {
			if round > n {
				t.Fatal("they go on for ever")
			}
			changed = false
			for i := range n {
				next := merge(stored, putting(*puts[i]), nil, epoch)
				changed = changed || !same(stored, next)
				stored = next
			}
		}
		got, err := x.holds(stored.mounts[k].Segments)
		if err != nil {
			t.Fatal(err)
		}
		for thing := range want {
			if !got[thing] {
				t.Fatalf("%s is lost", thing)
			}
		}
	})
}

func TestMountRules(t *testing.T) {
	x := texts{}
	k := keyOf("mount m")
	row := func(s state) string {
		var list []string
		for _, seg := range s.mounts[k].Segments {
			list = append(list, x[seg.Blob.Digest])
		}
		return strings.Join(list, "; ")
	}
	base := func(united bool) (state, []Segment) {
		s := newState()
		for _, thing := range []string{"a", "b", "c"} {
			s = merge(s, putting(x.build("m", united, s.mounts[k].Segments, appends, thing)), nil, epoch)
		}
		return s, s.mounts[k].Segments
	}
	united, begun := base(true)
	alone, _ := base(false)
	grown := merge(united, putting(x.build("m", true, begun, appends, "x")), nil, epoch)
	compacted := merge(united, putting(x.build("m", true, begun, compacts, "x")), nil, epoch)
	shortened := merge(united, putting(x.build("m", true, begun, shortens, "x")), nil, epoch)
	between := newState()
	odd := x.build("m", true, []Segment{x.segment("full", "a"), x.segment("full", "a", "b")}, appends, "y")
	between.mounts[k] = Mount{Key: k, United: true, Segments: []Segment{x.segment("full", "a"), x.segment("delta", "x"), x.segment("full", "a", "b")}}
	odd.Mount.Segments = odd.Mount.Segments[1:]
	goneOf := func(content string) Change { return Change{Gone: []digest.Digest{digest.FromString(content)}} }
	withPut := func(c Change, p MountPut) Change {
		c.Mounts = []MountPut{p}
		return c
	}
	for name, c := range map[string]struct {
		start  state
		change Change
		want   string
	}{
		"two deltas stand one behind the other":            {grown, putting(x.build("m", true, begun, appends, "y")), "full a; delta b; delta c; delta x; delta y"},
		"a compaction stands where its segments stood":     {grown, putting(x.build("m", true, begun, compacts, "y")), "full a b c y; delta x"},
		"a compaction of the first ones too":               {grown, putting(x.build("m", true, begun, shortens, "y")), "full a b; delta c; delta x; delta y"},
		"a compaction of the last ones stands behind":      {grown, putting(x.build("m", true, begun, shortensEnd, "y")), "full a; delta b; delta x; full a b c y"},
		"a second compaction adds":                         {compacted, putting(x.build("m", true, begun, compacts, "y")), "full a b c x; full a b c y"},
		"a delta to what was compacted":                    {compacted, putting(x.build("m", true, begun, appends, "y")), "full a b c x; delta y"},
		"what was only used stays":                         {grown, putting(x.build("m", true, begun, uses, "")), "full a; delta b; delta c; delta x"},
		"what was only used and is gone comes back":        {newState(), putting(x.build("m", true, begun, uses, "")), "full a; delta b; delta c"},
		"a compaction of what is not all there adds":       {shortened, putting(x.build("m", true, begun, compacts, "y")), "full a b; delta c; delta x; full a b c y"},
		"what is left begins with no delta":                {between, putting(odd), "full a; delta x; full a b; delta y"},
		"a row from another catalog adds":                  {compacted, putting(x.build("m", true, begun, moves, "y")), "full a b c x; full a; delta b; delta c; delta y"},
		"a writer's row counts whole":                      {alone, putting(x.build("m", false, nil, appends, "y")), "full y"},
		"the layout is another one now":                    {united, putting(x.build("m", false, nil, appends, "y")), "full y"},
		"a lost segment takes the row along":               {united, goneOf("delta b"), ""},
		"a lost pack takes the row along":                  {united, goneOf("pack c"), ""},
		"what is lost elsewhere does not matter":           {united, goneOf("pack z"), "full a; delta b; delta c"},
		"a lost row that was made anew":                    {united, withPut(goneOf("delta b"), x.build("m", true, nil, appends, "y")), "full y"},
		"a lost pack that was stored again":                {united, withPut(goneOf("pack b"), x.build("m", true, nil, appends, "b")), "full b"},
		"a row that begins with what is lost is not taken": {united, withPut(goneOf("delta b"), x.build("m", true, begun, appends, "y")), ""},
	} {
		if got := row(merge(c.start, c.change, nil, epoch)); got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
	missing := map[digest.Digest]bool{digest.FromString("pack y"): true}
	if got := row(merge(united, putting(x.build("m", true, begun, appends, "y")), missing, epoch)); got != row(united) {
		t.Errorf("a put whose blobs are not in the store: %q", got)
	}
	if got := row(merge(united, Change{}, map[digest.Digest]bool{digest.FromString("pack a"): true}, epoch)); got != "" {
		t.Errorf("a row whose blobs are not in the store: %q", got)
	}
}

// TestMountCounts: what is counted of a mount is counted once, and is not worth a write by itself.
func TestMountCounts(t *testing.T) {
	x := texts{}
	k := keyOf("mount m")
	s := merge(newState(), putting(x.build("m", true, nil, appends, "a")), nil, epoch)
	begun := s.mounts[k].Segments
	made := func(how how, thing string, files, hit int64) MountPut {
		p := x.build("m", true, begun, how, thing)
		p.Mount.Builds, p.Mount.Files, p.Mount.Hit, p.Mount.Had = 2, files, hit, 10
		p.Mount.Saved = epoch.Add(time.Minute)
		return p
	}
	later := epoch.Add(time.Hour)
	grown := merge(s, putting(made(appends, "x", 7, 5)), nil, later)
	if m := grown.mounts[k]; m.Builds != 2 || m.Files != 7 || m.Hit != 5 || m.Had != 10 || !m.Used.Equal(later) || !m.Saved.Equal(epoch.Add(time.Minute)) {
		t.Errorf("%+v", m)
	}
	both := merge(grown, putting(made(appends, "y", 3, 6)), nil, epoch)
	if m := both.mounts[k]; m.Builds != 3 || m.Files != 7 || m.Hit != 6 || !m.Used.Equal(later) {
		t.Errorf("two that began with the same: %+v", m)
	}
	used := merge(s, putting(made(uses, "", 99, 4)), nil, later)
	if m := used.mounts[k]; m.Builds != 2 || m.Files != 1 || m.Hit != 4 || !m.Used.Equal(later) || !m.Saved.Equal(epoch) {
		t.Errorf("used: %+v", m)
	}
	if s.differs(used, 2*time.Hour) || !s.differs(used, time.Hour) {
		t.Error("a use is worth a write after some time, and not before")
	}
	most := made(appends, "z", 0, 0)
	most.Mount.Builds = maxCount
	if full := merge(s, putting(most), nil, later); full.mounts[k].check() != nil {
		t.Error("it counts beyond what can be read")
	}
}

// TestMountsFull: a row that would be out of bounds becomes the writer's, and is within them again.
func TestMountsFull(t *testing.T) {
	x := texts{}
	k := keyOf("mount m")
	s := newState()
	for i := range 3 * maxSegments {
		s = merge(s, putting(x.build("m", true, nil, appends, fmt.Sprint(i))), nil, epoch)
		if m := s.mounts[k]; m.check() != nil || x[m.Segments[len(m.Segments)-1].Blob.Digest] != fmt.Sprint("full ", i) {
			t.Fatalf("after %d writers: %d segments", i, len(m.Segments))
		}
	}
	wide := bigMount("m", 40, 10, epoch)
	wide.United = true
	if got := merge(merge(s, putting(MountPut{Mount: wide}), nil, epoch), putting(x.build("m", true, nil, appends, "more")), nil, epoch).mounts[k]; len(got.Segments) != 41 || got.check() != nil {
		t.Errorf("%d segments", len(got.Segments))
	}
}

// TestMountsOutOfBounds: what cannot be kept is refused; the rest is saved as JSON keeps it.
func TestMountsOutOfBounds(t *testing.T) {
	bubble(t, func(t *testing.T) {
		m := newMemory("registry.example/app")
		x := texts{}
		bad := func(change func(*Mount)) MountPut {
			p := x.build("m", true, nil, appends, "a")
			change(&p.Mount)
			return p
		}
		var c Change
		for _, f := range []func(*Mount){
			func(m *Mount) { m.Key = key.Digest{} },
			func(m *Mount) { m.ID = strings.Repeat("i", maxName+1) },
			func(m *Mount) { m.Platform = strings.Repeat("p", maxPlatform+1) },
			func(m *Mount) { m.Segments = nil },
			func(m *Mount) { m.Segments = slices.Repeat(m.Segments, maxSegments+1) },
			func(m *Mount) { m.Segments[0].Packs = slices.Repeat(m.Segments[0].Packs, maxNamed) },
			func(m *Mount) { m.Segments[0].Blob.Digest = "md5:x" },
			func(m *Mount) { m.Segments[0].Packs[0].Size = -1 },
			func(m *Mount) { m.Files = -1 },
			func(m *Mount) { m.Builds = maxCount + 1 },
		} {
			c.Mounts = append(c.Mounts, bad(f))
			p := newPage("main", epoch, newState())
			p.Mounts = []mountJSON{jsonOf(c.Mounts[len(c.Mounts)-1].Mount)}
			if b, err := p.encode(); err != nil {
				t.Fatal(err)
			} else if _, err := decodeFirst(b); err == nil {
				t.Errorf("%+v is read", c.Mounts[len(c.Mounts)-1].Mount)
			}
		}
		good := bad(func(m *Mount) { m.ID, m.Saved = "\xff", time.Date(2031, 1, 1, 0, 0, 0, 5, time.FixedZone("", 3600)) })
		c.Mounts = append(c.Mounts, good)
		if err := x.stock(t.Context(), m, good); err != nil {
			t.Fatal(err)
		}
		if saved := mustSave(t, m, mainScope, c, Options{}); saved.Refused != 10 || saved.Attempts != 1 {
			t.Errorf("%+v", saved)
		}
		got, ok := mustLoad(t, m, mainScope, Options{}).Mount(t.Context(), good.Mount.Key)
		if !ok || got.ID != "\uFFFD" || !got.Saved.Equal(good.Mount.Saved.Truncate(time.Second)) || !sameRow(got.Segments, good.Mount.Segments) {
			t.Errorf("%+v", got)
		}
		var many Change
		for i := range maxMounts + 1 {
			many.Mounts = append(many.Mounts, x.build(fmt.Sprint(i), false, nil, appends, "a")) // they share their blobs
		}
		mustSave(t, m, Name{"many", "many"}, many, Options{Limits: Limits{Page: 1 << 20}})
		if list := mustLoad(t, m, Name{"many", "many"}, Options{}).Mounts(t.Context()); len(list) != maxMounts+1 {
			t.Errorf("%d cache mounts", len(list))
		}
	})
}

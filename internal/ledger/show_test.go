package ledger

import (
	"testing"
	"time"

	"larder/internal/tree"
)

func TestShowWithoutLedger(t *testing.T) {
	root := dirAt(t, 3, map[string]*tree.Node{"a": file("a", t0*2)})
	if got := show(t, root, Look{Now: clock(0), Newest: t0}); got != root {
		t.Error("files without a ledger have their own times")
	}
}

// TestShow lets one file pass through what can happen to it.
func TestShow(t *testing.T) {
	was := dirAt(t, t0, map[string]*tree.Node{"f": file("1", t0+5), "gone": file("g", t0+7*second)})
	old := merge(t, nil, was, stepX)
	for _, c := range []struct {
		name     string
		f        *tree.Node
		ledgers  []*tree.Node
		newest   int64
		now      time.Duration
		from, to int64 // what is shown, after t0
	}{
		{name: "same", f: file("1", t0+99*second), ledgers: []*tree.Node{old}, now: time.Hour, from: 5, to: 5},
		{name: "same, mount newer", f: file("1", 0), ledgers: []*tree.Node{old}, newest: t0 + 50*second, now: time.Hour, from: 5, to: 5},
		{name: "changed", f: file("2", t0+99*second+1), ledgers: []*tree.Node{old}, now: time.Hour, from: 99*second + 1, to: 99*second + 1},
		{name: "changed, clock of seconds", f: file("2", t0+99*second), ledgers: []*tree.Node{old}, now: time.Hour, from: 99 * second, to: 99*second + milli - 1},
		{name: "changed, older than the ledger", f: file("2", t0+6*second+1), ledgers: []*tree.Node{old}, now: time.Hour, from: 8 * second, to: 9 * second},
		{name: "changed, older than the mount", f: file("2", t0+9*second+1), ledgers: []*tree.Node{old}, newest: t0 + 20*second, now: time.Hour, from: 21 * second, to: 22 * second},
		{name: "changed, in the future", f: file("2", t0+99*second+1), ledgers: []*tree.Node{old}, now: 50*time.Second + 1, from: 50*second + 1, to: 50*second + 1},
		{name: "changed, little room", f: file("2", 0), ledgers: []*tree.Node{old}, newest: t0 + 20*second, now: 21*time.Second + 5*time.Millisecond, from: 21 * second, to: 21*second + 5*milli},
		{name: "changed, mount from a clock ahead", f: file("2", t0), ledgers: []*tree.Node{old}, newest: t0 + 90*second, now: time.Minute, from: 91 * second, to: 91*second + milli},
		{name: "changed, mount from the future", f: file("2", t0), ledgers: []*tree.Node{old}, newest: 4 * t0, now: time.Minute, from: 61 * second, to: 61*second + milli},
		{name: "checked out now, mount restored from before", f: file("2", t0+3600*second-5), ledgers: []*tree.Node{old}, newest: t0 + 3000*second, now: time.Hour, from: 3600*second - 5, to: 3600*second - 5},
		{name: "edited in the second of the mount", f: file("2", t0+20*second+9), ledgers: []*tree.Node{old}, newest: t0 + 20*second, now: 20*time.Second + 10, from: 20*second + 9, to: 20*second + 9},
		{name: "nothing known", f: file("1", t0+8*second+5), ledgers: []*tree.Node{nil}, newest: t0 + 8*second, now: time.Hour, from: 9 * second, to: 10 * second},
		{name: "one of two does not know it", f: file("1", t0+9*second+5), ledgers: []*tree.Node{old, tree.Empty()}, now: time.Hour, from: 9*second + 5, to: 9*second + 5},
		{name: "a link now", f: link("1", t0), ledgers: []*tree.Node{old}, now: time.Hour, from: 8 * second, to: 9 * second},
	} {
		t.Run(c.name, func(t *testing.T) {
			root := dirAt(t, t0, map[string]*tree.Node{"f": c.f})
			got := show(t, root, Look{By: stepX, Now: clock(c.now), Ledgers: c.ledgers, Newest: c.newest})
			if m := at(t, got, "f").MTime - t0; m < c.from || m > c.to {
				t.Errorf("shown with %v, want %v to %v", time.Duration(m), time.Duration(c.from), time.Duration(c.to))
			}
		})
	}
}

// TestShowSameSecond changes a file in the second in which it was shown: whoever notes seconds has to see it too.
func TestShowSameSecond(t *testing.T) {
	old := merge(t, nil, dirAt(t, 1, map[string]*tree.Node{"f": file("1", t0+100)}), stepX)
	root := dirAt(t, 1, map[string]*tree.Node{"f": file("2", t0+900)})
	got := show(t, root, Look{By: stepX, Now: clock(time.Microsecond), Ledgers: []*tree.Node{old}})
	if m := at(t, got, "f").MTime; m < t0+second {
		t.Errorf("shown with %v", time.Duration(m-t0))
	}
}

// TestShowDisagreement has two mounts of which one was shown the file later: what it holds may be older than that and younger than
// what the other was shown.
func TestShowDisagreement(t *testing.T) {
	a := merge(t, nil, dirAt(t, 1, map[string]*tree.Node{"f": file("1", t0)}), stepX)
	b := merge(t, nil, dirAt(t, 1, map[string]*tree.Node{"f": file("1", t0+50)}), stepX)
	root := dirAt(t, 1, map[string]*tree.Node{"f": file("1", 0)})
	got := show(t, root, Look{By: stepX, Now: clock(time.Hour), Ledgers: []*tree.Node{a, b}})
	if m := at(t, got, "f").MTime; m != t0+50 {
		t.Errorf("shown with %v", time.Duration(m-t0))
	}
}

// TestShowTwoWriters raises different contents from one time on two machines at once.
func TestShowTwoWriters(t *testing.T) {
	old := merge(t, nil, dirAt(t, 1, map[string]*tree.Node{"f": file("1", t0)}), stepX)
	seen := map[int64]string{}
	for _, own := range []int64{0, t0 + 9*second} { // older than the ledger, and of a coarse clock
		for _, content := range []string{"2", "3", "4", "5", "6"} {
			root := dirAt(t, 1, map[string]*tree.Node{"f": file(content, own)})
			look := Look{By: stepX, Now: clock(time.Hour), Ledgers: []*tree.Node{old}}
			m := at(t, show(t, root, look), "f").MTime
			if seen[m] != "" {
				t.Errorf("%s and %s are shown with one time", content, seen[m])
			}
			seen[m] = content
			if again := at(t, show(t, root, look), "f").MTime; again != m {
				t.Error("another machine shows the same with another time")
			}
		}
	}
}

func TestShowDirectoriesAndLinks(t *testing.T) {
	first := dirAt(t, t0, map[string]*tree.Node{"same/f": file("1", t0), "more/f": file("1", t0), "l": link("same", t0), "m": link("same", t0)})
	old := merge(t, nil, first, stepX)
	later := t0 + 60*second + 1
	root := dirAt(t, later, map[string]*tree.Node{"same/f": file("2", later), "more/f": file("1", later), "more/g": file("1", later),
		"l": link("same", later), "m": link("more", later)})
	got := show(t, root, Look{By: stepX, Now: clock(time.Hour), Ledgers: []*tree.Node{old}})
	wantLines(t, got, t0, "/ directory @1m0.000000001s", "/l symbolic link @0s", "/m symbolic link @1m0.000000001s", "/more directory @1m0.000000001s",
		"/more/f file @0s", "/more/g file @1m0.000000001s", "/same directory @0s", "/same/f file @1m0.000000001s")
}

// TestShowLayer passes on what only layers have, and shares what stays.
func TestShowLayer(t *testing.T) {
	implied := dirAt(t, 9, map[string]*tree.Node{"f": file("1", 9)})
	implied.Implied = true
	kept := dirAt(t, t0, map[string]*tree.Node{"g": file("g", t0)})
	root := dirAt(t, t0, map[string]*tree.Node{"gone": {Kind: tree.Whiteout}, "i": implied, "kept": kept.WithOpaque(true), "p": {Kind: tree.Fifo}})
	old := merge(t, nil, dirAt(t, t0, map[string]*tree.Node{"i/f": file("1", t0), "kept/g": file("g", t0)}), stepX)
	got := show(t, root, Look{By: stepX, Now: clock(time.Hour), Ledgers: []*tree.Node{old}})
	if i := at(t, got, "i"); !i.Implied || i.MTime != 9 || at(t, i, "f").MTime != t0 {
		t.Errorf("a directory that leads somewhere became %+v", i)
	}
	if at(t, got, "kept") != at(t, root, "kept") || at(t, got, "gone").Kind != tree.Whiteout || at(t, got, "p") != at(t, root, "p") {
		t.Error("what stays is not shared")
	}
	before, err := root.Identity()
	if err != nil {
		t.Fatal(err)
	}
	if after, err := got.Identity(); err != nil || after != before {
		t.Errorf("more than times was changed: %v", err)
	}
}

// TestShowHardLinks shows a file with two names, of which one is new, with one time.
func TestShowHardLinks(t *testing.T) {
	n := file("1", t0+9*second+1)
	n.Group = tree.NewGroup()
	old := merge(t, nil, dirAt(t, t0, map[string]*tree.Node{"z": file("1", t0), "d/x": file("x", t0)}), stepX)
	for _, names := range [][2]string{{"a", "z"}, {"z", "zz"}} {
		root := dirAt(t, t0, map[string]*tree.Node{names[0]: n, names[1]: n, "d/x": file("x", t0)})
		got := show(t, root, Look{By: stepX, Now: clock(time.Hour), Ledgers: []*tree.Node{old}})
		for _, name := range names {
			if m := at(t, got, name).MTime; m != n.MTime {
				t.Errorf("%s is shown with %v", name, time.Duration(m-t0))
			}
		}
	}
}

func TestLatest(t *testing.T) {
	d := dirAt(t, 3, map[string]*tree.Node{"a/b": file("x", 5), "c": link("a", 4), "w": {Kind: tree.Whiteout, Meta: tree.Meta{MTime: 9}}})
	never := time.Unix(0, 1<<62)
	for _, c := range []struct {
		root *tree.Node
		end  time.Time
		want int64
	}{{d, never, 5}, {d, time.Unix(0, 5), 5}, {d, time.Unix(0, 4), 4}, {tree.Empty(), never, 0}, {d.WithMeta(tree.Meta{MTime: 50}), never, 5}} {
		if got, err := Latest(c.root, c.end); err != nil || got != c.want {
			t.Errorf("got %d, %v, want %d", got, err, c.want)
		}
	}
}

func TestParts(t *testing.T) {
	long := "/" + string(make([]byte, 3000))
	in := map[string]*tree.Node{}
	for i, dest := range []string{"/", "/src", "%2Fsrc", ".", "", long} {
		in[dest] = dirAt(t, 1, map[string]*tree.Node{"f": file(string(rune('0'+i)), 1)})
	}
	parts, err := Parts(in)
	if err != nil {
		t.Fatal(err)
	}
	parts = stored(t, parts)
	for dest, want := range in {
		got, err := Part(parts, dest)
		if err != nil || got == nil || at(t, got, "f").Content != at(t, want, "f").Content {
			t.Errorf("%q: %v, %v", dest, got, err)
		}
	}
	if got, err := Part(parts, "/no"); got != nil || err != nil {
		t.Errorf("got %v, %v", got, err)
	}
}

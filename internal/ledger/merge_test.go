package ledger

import (
	"fmt"
	"testing"
	"time"

	"larder/internal/key"
	"larder/internal/tree"
)

func TestMerge(t *testing.T) {
	const s = second
	x := dirAt(t, t0, map[string]*tree.Node{"f": file("1", t0), "d/g": file("1", t0+1), "l": link("f", t0), "p": {Kind: tree.Fifo}})
	l := merge(t, nil, x, stepX)
	wantLines(t, l, t0, "/ directory @1ns", "/d directory @0s", "/d/g file @1ns", "/f file @0s", "/l symbolic link @0s")

	// Who sees less takes nothing away, and says what he was shown.
	l = merge(t, l, dirAt(t, t0, map[string]*tree.Node{"f": file("2", t0+5*s), "y": file("y", t0+5*s)}), stepY)
	wantLines(t, l, t0, "/ directory @5s", "/d directory @0s", "/d/g file @1ns", "/f file @5s", "/l symbolic link @0s", "/y file @5s")

	// What nobody sees any more is gone; what was once shown is not forgotten.
	l = merge(t, l, dirAt(t, t0, map[string]*tree.Node{"l": link("f", t0)}), stepX)
	wantLines(t, l, t0, "/ directory @5s", "/f file @5s", "/l symbolic link @0s", "/y file @5s")
	if n := at(t, l, "f"); n.UID != 0 {
		t.Errorf("%b believe a file that was deleted", n.UID)
	}
	l = merge(t, l, tree.Empty(), stepY)
	wantLines(t, l, t0, "/ directory @5s", "/l symbolic link @0s")
	l = merge(t, l, tree.Empty(), key.Digest{})
	wantLines(t, l, t0, "/ directory @5s", "/l symbolic link @0s")
}

// TestMergeUnchanged has to give the ledger that was there, or every build would store one.
func TestMergeUnchanged(t *testing.T) {
	x := dirAt(t, t0, map[string]*tree.Node{"f": file("1", t0), "d/g": file("1", t0+1)})
	y := dirAt(t, t0, map[string]*tree.Node{"f": file("1", t0)})
	l := merge(t, merge(t, nil, x, stepX), y, stepY)
	again := merge(t, merge(t, l, x, stepX), y, stepY)
	diff, err := tree.Diff(l, again)
	if err != nil {
		t.Fatal(err)
	}
	if entries, err := diff.Entries(); err != nil || len(entries) > 0 || diff.Self() != l.Self() || diff.MTime != l.MTime {
		t.Errorf("changed: %q, %v", lines(t, diff, t0), err)
	}
}

// TestMergeAtOnce has two steps that ran at once and were shown different files for one.
func TestMergeAtOnce(t *testing.T) {
	old := merge(t, nil, dirAt(t, 1, map[string]*tree.Node{"f": file("1", t0+9)}), stepX)
	l := merge(t, old, dirAt(t, 1, map[string]*tree.Node{"f": file("2", t0+9)}), stepY)
	if n := at(t, l, "f"); n != nil {
		t.Errorf("the ledger believes %v", n)
	}
	l = merge(t, old, dirAt(t, 1, map[string]*tree.Node{"f": file("1", t0+4)}), stepY)
	if n := at(t, l, "f"); n == nil || n.MTime != t0+9 {
		t.Errorf("the ledger has %v for a file that both saw", n)
	}
}

// TestBackAgain deletes a file and puts it back: a tool that took note of its absence has to see it come, and so have others that use what it made.
func TestBackAgain(t *testing.T) {
	both := dirAt(t, t0, map[string]*tree.Node{"a": file("a", t0), "b": file("b", t0)})
	one := dirAt(t, t0, map[string]*tree.Node{"a": file("a", t0)})
	l := merge(t, nil, both, stepX)
	l = merge(t, l, both, stepY)
	l = merge(t, l, one, stepX)
	for _, by := range []key.Digest{stepX, stepY, key.Bytes([]byte("who")), {}} {
		got := show(t, both, Look{By: by, Now: clock(time.Hour), Ledgers: []*tree.Node{l}, Newest: t0 + 60*second})
		if m := at(t, got, "b").MTime; m <= t0+60*second {
			t.Errorf("%s: what came back is shown with %v", by, time.Duration(m-t0))
		}
		if m := at(t, got, "a").MTime; m != t0 {
			t.Errorf("%s: what was there all the time is shown with %v", by, time.Duration(m-t0))
		}
	}
}

// TestDeletedForOne has a step that no longer sees what another one still does: that is new to the other once, and not each time.
func TestDeletedForOne(t *testing.T) {
	both := dirAt(t, t0, map[string]*tree.Node{"d/a": file("a", t0), "d/b": file("b", t0)})
	leads := dirAt(t, t0, map[string]*tree.Node{"d/a": file("a", t0)})
	at(t, leads, "d").Implied = true
	for name, less := range map[string]*tree.Node{
		"file": dirAt(t, t0, map[string]*tree.Node{"d/a": file("a", t0)}), "of an implied directory": leads, "directory": tree.Empty(),
	} {
		l := merge(t, merge(t, nil, both, stepX), both, stepY)
		var shown []int64
		for i := range 3 {
			look := Look{By: stepX, Now: clock(time.Duration(i+1) * time.Hour), Ledgers: []*tree.Node{l}, Newest: t0 + int64(i+1)*60*second}
			l = merge(t, l, show(t, less, look), stepX)
			look.By, look.Ledgers = stepY, []*tree.Node{l}
			got := show(t, both, look)
			l = merge(t, l, got, stepY)
			for _, path := range []string{"d", "d/b"} {
				if m := at(t, got, path).MTime; m <= t0+60*second {
					t.Errorf("%s: %s is shown with %v", name, path, time.Duration(m-t0))
				}
			}
			shown = append(shown, at(t, got, "d/b").MTime)
		}
		if shown[0] != shown[1] || shown[1] != shown[2] {
			t.Errorf("%s: shown with %v", name, shown)
		}
	}
}

// TestDeletedDirectory deletes from a directory that others read as a whole.
func TestDeletedDirectory(t *testing.T) {
	both := dirAt(t, t0, map[string]*tree.Node{"d/a": file("a", t0), "d/b": file("b", t0)})
	one := dirAt(t, t0, map[string]*tree.Node{"d/a": file("a", t0)})
	leads := dirAt(t, t0, map[string]*tree.Node{"d/a": file("a", t0)})
	at(t, leads, "d").Implied = true
	for _, seen := range []*tree.Node{one, leads, tree.Empty()} {
		l := merge(t, merge(t, nil, both, stepX), both, stepY)
		look := Look{By: stepX, Now: clock(time.Hour), Ledgers: []*tree.Node{l}, Newest: t0 + 60*second}
		l = merge(t, l, show(t, seen, look), stepX)
		look.By, look.Ledgers = stepY, []*tree.Node{l}
		if m := at(t, show(t, one, look), "d").MTime; m <= t0+60*second {
			t.Errorf("a directory with less in it is shown with %v", time.Duration(m-t0))
		}
	}
}

// TestNewToAll changes a file that another step looked past: what is newer than everything may be believed by all.
func TestNewToAll(t *testing.T) {
	l := merge(t, nil, dirAt(t, t0, map[string]*tree.Node{"b": file("1", t0)}), stepX)
	l = merge(t, l, tree.Empty(), stepY)
	changed := dirAt(t, t0, map[string]*tree.Node{"b": file("2", t0+9*second)})
	l = merge(t, l, changed, stepX)
	got := show(t, changed, Look{By: stepY, Now: clock(time.Hour), Ledgers: []*tree.Node{l}, Newest: t0 + 60*second})
	if m := at(t, got, "b").MTime; m != t0+9*second {
		t.Errorf("shown with %v", time.Duration(m-t0))
	}
}

// TestManySteps looks at a ledger under more names than it keeps: the others lose nothing but that deleted files count as such.
func TestManySteps(t *testing.T) {
	root := dirAt(t, t0, map[string]*tree.Node{"f": file("1", t0), "d/g": file("1", t0+1)})
	var l *tree.Node
	for i := range 3 * stepBits {
		by := key.Bytes(fmt.Append(nil, i))
		l = merge(t, l, root, by)
		if bitOf(l, by) == 0 {
			t.Fatalf("step %d is not known", i)
		}
		for _, j := range []int{0, i / 2, i} {
			look := Look{By: key.Bytes(fmt.Append(nil, j)), Now: clock(time.Hour), Ledgers: []*tree.Node{l}, Newest: t0 + second}
			if m := at(t, show(t, root, look), "d/g").MTime; m != t0+1 {
				t.Fatalf("after step %d, step %d is shown %v", i, j, time.Duration(m-t0))
			}
		}
	}
	if len(l.Xattrs) != stepBits {
		t.Errorf("%d steps are kept", len(l.Xattrs))
	}
	l = merge(t, l, tree.Empty(), key.Bytes(fmt.Append(nil, 3*stepBits-1)))
	if at(t, l, "f") == nil {
		t.Error("a file is gone that others saw")
	}
}

func TestMergeBound(t *testing.T) {
	files := func(prefix string, n int) *tree.Node {
		entries, x := make([]tree.Entry, n), file("x", t0)
		for i := range entries {
			entries[i] = tree.Entry{Name: fmt.Sprintf("%s%07d", prefix, i), Node: x}
		}
		d, err := tree.NewDir(tree.Meta{}, false, entries)
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	count := func(l *tree.Node, err error) (old, seen int) {
		if err != nil {
			t.Fatal(err)
		}
		entries, err := l.Entries()
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			if e.Name[0] == 'o' {
				old++
			} else {
				seen++
			}
		}
		return old, seen
	}
	l, err := Merge(nil, files("o", 150_000), stepX)
	if err != nil {
		t.Fatal(err)
	}
	if old, seen := count(Merge(l, files("s", 50_000), stepY)); old != 150_000 || seen != 50_000 {
		t.Errorf("%d and %d", old, seen)
	}
	if old, seen := count(Merge(l, files("s", 50_001), stepY)); old != 0 || seen != 50_001 {
		t.Errorf("%d and %d", old, seen)
	}
	if old, seen := count(Merge(l, files("s", maxEntries+9), stepY)); old != 0 || seen != maxEntries {
		t.Errorf("%d and %d", old, seen)
	}
}

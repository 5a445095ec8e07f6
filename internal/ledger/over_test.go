package ledger

import (
	"testing"

	"larder/internal/tree"
)

func TestOver(t *testing.T) {
	linked := file("l", 7)
	linked.Group = tree.NewGroup()
	stack := dirAt(t, 50, map[string]*tree.Node{
		"usr/bin/x": file("x", 1), "src/a": file("a", 2), "src/b": file("b", 3), "src/d/c": file("c", 4), "src/s": link("a", 5),
		"src/n": linked, "other/n": linked, "p": {Kind: tree.Fifo, Meta: tree.Meta{MTime: 6}},
	})
	same := dirAt(t, 50, map[string]*tree.Node{"src/a": file("a", 2), "src/d/c": file("c", 4)})
	for _, shown := range []*tree.Node{stack, same, tree.Empty()} {
		if got, err := Over(shown, stack); got != nil || err != nil {
			t.Errorf("got %q, %v", lines(t, got, 0), err)
		}
	}
	for _, c := range []struct {
		shown map[string]*tree.Node
		want  []string
	}{
		{map[string]*tree.Node{"src/a": file("a", 20), "src/d/c": file("c", 4)}, []string{"/ directory @50ns", "/src directory @50ns", "/src/a file @20ns"}},
		{map[string]*tree.Node{"src/d/c": file("c", 20)}, []string{"/ directory @50ns", "/src directory @50ns", "/src/d directory @50ns", "/src/d/c file @20ns"}},
		{map[string]*tree.Node{"src/s": link("a", 20)}, []string{"/ directory @50ns", "/src directory @50ns", "/src/s symbolic link @20ns"}},
		{map[string]*tree.Node{"src/n": func() *tree.Node { n := *linked; n.MTime = 20; return &n }()}, []string{"/ directory @50ns",
			"/other directory @50ns", "/other/n file @20ns", "/src directory @50ns", "/src/n file @20ns"}},
		{map[string]*tree.Node{"p": {Kind: tree.Fifo, Meta: tree.Meta{MTime: 8}}}, nil},
	} {
		got, err := Over(dirAt(t, 50, c.shown), stack)
		if err != nil {
			t.Fatal(err)
		}
		wantLines(t, got, 0, c.want...)
	}
	// A directory's own time counts, that of one which only leads somewhere does not.
	moved := dirAt(t, 60, map[string]*tree.Node{"src/a": file("a", 2)})
	got, err := Over(moved, stack)
	if err != nil {
		t.Fatal(err)
	}
	wantLines(t, got, 0, "/ directory @50ns", "/src directory @60ns")
	at(t, moved, "src").Implied = true
	if got, err := Over(moved, stack); got != nil || err != nil {
		t.Errorf("got %q, %v", lines(t, got, 0), err)
	}
	for path, n := range map[string]*tree.Node{"src/a": file("A", 2), "src/none": file("a", 2), "src/d": file("a", 2)} {
		if _, err := Over(dirAt(t, 50, map[string]*tree.Node{path: n}), stack); err == nil {
			t.Errorf("%s, which the layers do not have, is laid over them", path)
		}
	}
}

package tree

import (
	"testing"

	"pgregory.net/rapid"
)

func TestDiff(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		lower, upper := drawTree(rt, "lower", false), drawTree(rt, "upper", false)
		if rapid.Bool().Draw(rt, "related") {
			changes := drawTree(rt, "changes", true)
			var err error
			if upper, err = Apply(lower, changes); err != nil {
				rt.Fatal(err)
			}
		}
		layer, err := Diff(lower, upper)
		if err != nil {
			rt.Fatal(err)
		}
		got, err := Apply(lower, layer)
		if err != nil {
			rt.Fatal(err)
		}
		if a, b := dump(t, upper), dump(t, got); a != b {
			rt.Fatalf("want\n%s\ngot\n%s\nby\n%s", a, b, dump(t, layer))
		}
		if identity(t, got) != identity(t, upper) {
			rt.Fatal("another identity")
		}
		nothing, err := Diff(upper, upper)
		if err != nil {
			rt.Fatal(err)
		}
		if entries, _ := nothing.Entries(); len(entries) != 0 {
			rt.Fatalf("a tree differs from itself by %d entries", len(entries))
		}
	})
}

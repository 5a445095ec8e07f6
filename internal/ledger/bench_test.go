package ledger

import (
	"fmt"
	"testing"
	"time"

	"larder/internal/tree"
)

// BenchmarkShow shows 50,000 files of which one changed, and follows the ledger.
func BenchmarkShow(b *testing.B) {
	nodes := map[string]*tree.Node{}
	for i := range 50_000 {
		nodes[fmt.Sprintf("d%d/e%d/f%d", i%20, i%500, i)] = file(fmt.Sprint(i), t0)
	}
	root := dirAt(b, t0, nodes)
	old := merge(b, nil, root, stepX)
	nodes["d0/e0/f0"] = file("changed", t0+second)
	changed := dirAt(b, t0, nodes)
	look := Look{By: stepX, Now: clock(time.Hour), Ledgers: []*tree.Node{old}, Newest: t0}
	for b.Loop() {
		shown, err := Show(changed, look)
		if err != nil {
			b.Fatal(err)
		}
		if over, err := Over(shown, changed); err != nil || over == nil {
			b.Fatal(over, err)
		}
		if _, err := Merge(old, shown, stepX); err != nil {
			b.Fatal(err)
		}
	}
}

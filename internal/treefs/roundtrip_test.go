package treefs

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"larder/internal/layer"
	"larder/internal/tree"
)

// TestSoakRoundTrip reads random layer trees back from where they are shown: all of each must be there, times included.
func TestSoakRoundTrip(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	rounds := 30
	if os.Getenv("LARDER_SOAK") != "" {
		rounds = 3000
	}
	for round := range rounds {
		rng := rand.New(rand.NewPCG(seed, uint64(round)))
		s := random(t, rng)
		p, _ := s.written(rng.IntN(2) == 0)
		if rng.IntN(3) == 0 {
			p = s.part()
		}
		fs, err := Mount(t.Context(), t.TempDir(), []Part{draw(t).part(), p}, Options{Temp: t.TempDir(), Copy: rng.IntN(2) == 0, Passthrough: int64(rng.IntN(2)) * (inMemory + 1)})
		must(t, err)
		got, err := layer.FromUpper(t.Context(), fs.Dir(1))
		if err == nil {
			err = fs.Check(t.Context())
		}
		must(t, fs.Close())
		if err != nil {
			t.Fatalf("seed %d, round %d: %v", seed, round, err)
		}
		want := strings.Split(described(t, p.Root), "\n")
		lines := strings.Split(described(t, got), "\n")
		for i := range max(len(lines), len(want)) {
			if a, b := lines[min(i, len(lines)-1)], want[min(i, len(want)-1)]; a != b {
				t.Fatalf("seed %d, round %d: got %s, want %s", seed, round, a, b)
			}
		}
		looks := map[string]bool{}
		for _, l := range fs.Looks(1) {
			looks[l.Path] = true
		}
		must(t, tree.Walk(p.Root, func(path string, _ *tree.Node) error {
			if !looks[path] {
				t.Errorf("seed %d, round %d: /%s was read, and is not noted", seed, round, path)
			}
			return nil
		}))
	}
}

// described writes a tree out: identities say that something differs, this says what.
func described(t *testing.T, root *tree.Node) string {
	t.Helper()
	var b strings.Builder
	first, names := map[uint64]string{}, map[uint64]int{}
	must(t, tree.Walk(root, func(path string, n *tree.Node) error {
		if names[n.Group]++; names[n.Group] == 1 {
			first[n.Group] = path
		}
		return nil
	}))
	must(t, tree.Walk(root, func(path string, n *tree.Node) error {
		fmt.Fprintf(&b, "/%s kind=%d", path, n.Kind)
		if n.Kind != tree.Whiteout {
			fmt.Fprintf(&b, " %o %d:%d %d %q opaque=%t", n.Mode, n.UID, n.GID, n.MTime, n.Xattrs, n.Opaque)
		}
		fmt.Fprintf(&b, " %d %x %q %d", n.Size, n.Content[:4], n.Link, n.Rdev)
		if n.Group != 0 && names[n.Group] > 1 {
			fmt.Fprintf(&b, " link of %s", first[n.Group])
		}
		b.WriteByte('\n')
		return nil
	}))
	return b.String()
}

func random(t *testing.T, rng *rand.Rand) *sketch {
	s := draw(t)
	dirs := []string{""}
	var linked []*tree.Node
	for i := range 1 + rng.IntN(40) {
		path := tree.Join(dirs[rng.IntN(len(dirs))], fmt.Sprintf("%c%d", 'a'+rng.IntN(26), i))
		var n *tree.Node
		switch k := rng.IntN(12); k {
		case 0, 1:
			n = dirNode(0o755)
			n.Opaque = rng.IntN(4) == 0
			dirs = append(dirs, path)
		case 2:
			n = &tree.Node{Kind: tree.Symlink, Link: strings.Repeat("../x", 1+rng.IntN(50))}
		case 3:
			n = &tree.Node{Kind: tree.Whiteout}
		case 4:
			n = &tree.Node{Kind: []tree.Kind{tree.Char, tree.Block}[rng.IntN(2)], Rdev: unix.Mkdev(1+rng.Uint32N(4095), rng.Uint32N(1<<20))}
		case 5:
			n = &tree.Node{Kind: tree.Fifo}
		case 6:
			if len(linked) > 0 {
				s.put(path, linked[rng.IntN(len(linked))])
				continue
			}
			fallthrough
		default:
			size := []int{0, 1, 100, 4096, inMemory, inMemory + 1 + rng.IntN(600_000)}[rng.IntN(6)]
			n = s.fileNode(strings.Repeat(fmt.Sprintf("%19d ", rng.Uint64()>>4), size/20+1)[:size], 0)
			if rng.IntN(4) == 0 {
				n.Group = tree.NewGroup()
				linked = append(linked, n)
			}
		}
		if n.Kind != tree.Whiteout {
			n.Mode, n.UID, n.GID = rng.Uint32N(0o10000), rng.Uint32N(70_000), rng.Uint32N(3)
			n.MTime = rng.Int64N(4e18) - 1e18
			if n.Kind == tree.Symlink {
				n.Mode = 0o777
			}
			if rng.IntN(4) == 0 {
				n.Xattrs = []tree.Xattr{{Name: fmt.Sprintf("trusted.x%d", rng.IntN(1000)), Value: []byte(fmt.Sprint(rng.Uint64()))}}
			}
		}
		s.put(path, n)
	}
	return s
}

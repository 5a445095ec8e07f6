package cachemount

import (
	"fmt"
	"testing"

	"larder/internal/generation"
	"larder/internal/key"
	"larder/internal/pack"
)

// packs makes a generation that lies in packs of given sizes, of which it needs everything.
func packs(sizes ...int64) (*generation.Generation, map[key.Digest]int64) {
	g := &generation.Generation{Pieces: map[key.Digest][]pack.Piece{}}
	known := map[key.Digest]int64{}
	for i, n := range sizes {
		p, d := key.Digest{1, byte(i)}, key.Digest{2, byte(i)}
		known[p] = n
		g.Pieces[d] = []pack.Piece{{Digest: d, Size: n, Pack: p, Frame: pack.Frame{Length: n, Raw: n}}}
	}
	return g, known
}

// TestPacksAreJoined when there are too many small ones; large ones stay, whatever their number.
func TestPacksAreJoined(t *testing.T) {
	of := func(n int, size int64) (out []int64) {
		for range n {
			out = append(out, size)
		}
		return out
	}
	const full, small = 48 << 20, 10 << 10
	for _, c := range []struct{ full, small, want int }{
		{100, 0, 0}, {30, 1, 0}, {100, maxSmall, 0}, {0, maxSmall, 0}, {100, maxSmall + 1, maxSmall + 1}, {0, maxSmall + 1, maxSmall + 1},
	} {
		g, sizes := packs(append(of(c.full, full), of(c.small, small)...)...)
		got := stale(g, sizes)
		if len(got) != c.want {
			t.Errorf("%d full and %d small packs: %d are joined, want %d", c.full, c.small, len(got), c.want)
		}
		for p := range got {
			if sizes[p] != small {
				t.Errorf("%d full and %d small packs: a full one is packed anew", c.full, c.small)
			}
		}
	}
	// What nothing is needed of is no reason to pack the rest, as long as it is less than that.
	g, sizes := packs(of(4, full)...)
	for p := range sizes {
		sizes[p] = full + full/2
	}
	if got := stale(g, sizes); len(got) != 0 {
		t.Errorf("%d packs are packed anew that are needed for the most part", len(got))
	}
	for p := range sizes {
		sizes[p] = 4 * full
	}
	if got := stale(g, sizes); len(got) != 4 {
		t.Errorf("%d packs are packed anew that are mostly dead", len(got))
	}
}

// TestBuildAfterBuild: each adds one file. Packs are joined once in a while, segments too, what is sent stays in proportion, and a build without
// changes sends nothing.
func TestBuildAfterBuild(t *testing.T) {
	both(t, func(t *testing.T, k Key) {
		d := newDepot(t)
		m := newMachine(t, d)
		want := map[string]string{}
		const each, builds = 4 << 10, 2*maxSmall + 4
		var sent int64
		joined := 0
		for i := range builds {
			add := map[string]string{at(k, fmt.Sprint("n", i)): string(noise(uint64(i), each))}
			for name, data := range add {
				want[name] = data
			}
			m.once(k, add)
			n, _ := d.traffic()
			sent += n
			if n > 3*each {
				joined++
			}
			named := map[string]bool{}
			for _, seg := range d.row(k).Segments {
				for _, p := range seg.Packs {
					named[p.Digest.String()] = true
				}
			}
			if len(named) > maxSmall+2 {
				t.Errorf("after %d builds it lies in %d packs", i+1, len(named))
			}
		}
		if joined == 0 || joined > 2 || sent > 3*each*builds {
			t.Errorf("%d bytes were sent for %d, packs were joined %d times", sent, each*builds, joined)
		}
		for range 2 {
			m.once(k, nil)
			if packs, writes := d.traffic(); packs != 0 || writes != 0 {
				t.Errorf("a build without changes sent %d bytes of packs, %d blobs and documents in all", packs, writes)
			}
		}
		wants(t, "an empty machine", d.restored(k), want)
	})
}

// TestUnchangedAfterTrim: what is trimmed is trimmed once; the build after that, which changes nothing, saves nothing.
func TestUnchangedAfterTrim(t *testing.T) {
	d := newDepot(t)
	m := newMachine(t, d)
	m.trim = generation.Limits{Builds: 2}
	stay := map[string]string{"d/used": "1", "top": "2"}
	m.once(apart, map[string]string{"d/old": "3", "gone/old": "4", "d/used": "1", "top": "2"})
	for _, left := range []int{4, 2} { // the second one trims
		m.once(apart, stay) // written again: used
		if row := d.row(apart); row.Files != int64(left) {
			t.Fatalf("%d files are saved, want %d", row.Files, left)
		}
	}
	wants(t, "after the trim", d.restored(apart), stay)
	d.traffic()
	m.trim = generation.Limits{Builds: 100} // nothing is idle for so long
	for range 2 {
		m.once(apart, nil)
		if packs, writes := d.traffic(); packs != 0 || writes != 0 {
			t.Errorf("a build without changes sent %d bytes of packs, %d blobs and documents in all", packs, writes)
		}
	}
	wants(t, "an empty machine", d.restored(apart), stay)
}

package cachemount

import (
	"maps"
	"slices"

	"larder/internal/generation"
	"larder/internal/key"
	"larder/internal/pack"
)

const (
	// maxSmall is how many small packs a mount may lie in before they are joined.
	maxSmall = 16
	// smallPack is the size, in bytes, up to which a pack is small.
	smallPack = 8 << 20
	// deadPack is the share of a pack below which what still counts in it is packed anew, once more than half of all that the mount's packs
	// hold is dead.
	deadPack = 0.4
)

// stale lists the packs whose contents are to be packed anew: too many small ones, and those that are mostly dead. sizes are those of
// the packs' blobs, as far as they are known.
func stale(g *generation.Generation, sizes map[key.Digest]int64) map[key.Digest]bool {
	live := liveBytes(g)
	out := map[key.Digest]bool{}
	for p := range live {
		if sizes[p] <= smallPack {
			out[p] = true
		}
	}
	if len(out) <= maxSmall {
		clear(out)
	}
	var all, used int64
	for p, n := range live {
		used += n
		all += max(n, sizes[p])
	}
	if all > 2*used {
		for p, n := range live {
			if float64(n) < deadPack*float64(sizes[p]) {
				out[p] = true
			}
		}
	}
	return out
}

// liveBytes estimates how much of each pack a generation needs.
func liveBytes(g *generation.Generation) map[key.Digest]int64 {
	live := map[key.Digest]int64{}
	for _, pieces := range g.Pieces {
		for _, p := range pieces {
			if p.Frame.Raw > 0 {
				live[p.Pack] += p.Size * p.Frame.Length / p.Frame.Raw
			}
		}
	}
	return live
}

// without gives a generation that does not know what is in some packs.
func without(g *generation.Generation, packs map[key.Digest]bool) *generation.Generation {
	if g == nil || len(packs) == 0 {
		return g
	}
	out := *g
	out.Pieces = maps.Clone(g.Pieces)
	maps.DeleteFunc(out.Pieces, func(_ key.Digest, pieces []pack.Piece) bool {
		return slices.ContainsFunc(pieces, func(p pack.Piece) bool { return packs[p.Pack] })
	})
	return &out
}

package observation

import (
	"fmt"
	"slices"

	"larder/internal/key"
	"larder/internal/tree"
)

// MaxSets is how many path sets are known of one recipe: each costs a look-up for every step that is a hit through none of them.
const MaxSets = 16

// MarshalList gives the stored form of a list of path sets' digests, the most useful first: one behind the other, at most MaxSets.
func MarshalList(list []key.Digest) []byte {
	var out []byte
	for _, d := range list[:min(len(list), MaxSets)] {
		out = append(out, d[:]...)
	}
	return out
}

// UnmarshalList reads what MarshalList gave. The error wraps tree.ErrDamaged.
func UnmarshalList(b []byte) ([]key.Digest, error) {
	if len(b)%key.Size != 0 || len(b) > MaxSets*key.Size {
		return nil, fmt.Errorf("list of path sets, %d bytes: %w", len(b), tree.ErrDamaged)
	}
	list := make([]key.Digest, 0, len(b)/key.Size)
	for chunk := range slices.Chunk(b, key.Size) {
		d := key.Digest(chunk)
		if d.IsZero() || slices.Contains(list, d) {
			return nil, fmt.Errorf("list of path sets: no set, or one twice: %w", tree.ErrDamaged)
		}
		list = append(list, d)
	}
	return list, nil
}

// AddSet gives the list with d in front. What does not fit any more falls off the end. list stays as it is.
func AddSet(list []key.Digest, d key.Digest) []key.Digest { return Union([]key.Digest{d}, list) }

// Union joins lists: what is first in one of them comes first, then what is second, each digest once, at most MaxSets.
func Union(lists ...[]key.Digest) []key.Digest {
	var out []key.Digest
	for rank := 0; ; rank++ {
		more := false
		for _, list := range lists {
			if rank >= len(list) {
				continue
			}
			more = true
			if d := list[rank]; !slices.Contains(out, d) {
				if out = append(out, d); len(out) == MaxSets {
					return out
				}
			}
		}
		if !more {
			return out
		}
	}
}

package cache

import (
	"bytes"
	"context"
	"slices"

	"larder/internal/key"
	"larder/internal/layer"
	"larder/internal/record"
)

// Records lists the records of this build, sorted by their keys, for an image to carry; holds tells what layers the image has. What
// helped on the way to a record goes along for the steps that made the image's own layers: what there is in other stages is not told to
// those who get the image. Of those stages' steps there are the exact records, without names: not what they looked at, nor the records
// that are found by it. Records that only name trees stay.
func (s *Session) Records(ctx context.Context, holds func(identity key.Digest) bool) []*record.Record {
	var out []*record.Record
	seen := map[key.Digest]bool{}
	add := func(r *record.Record, name string) {
		if !seen[r.Key] {
			seen[r.Key] = true
			rec := *r
			rec.From, rec.Name = "", name
			out = append(out, &rec)
		}
	}
	var keep func(keys []key.Digest)
	keep = func(keys []key.Digest) {
		for _, k := range keys {
			if seen[k] {
				continue
			}
			if rec, ok := s.Get(ctx, k); ok {
				add(rec, rec.Name)
				keep(rec.With)
			}
		}
	}
	uses := s.uses()
	var others []*use
	hint := map[key.Digest]bool{}
	for _, u := range uses {
		switch {
		case u.layers == nil: // it only helped
			hint[u.rec.Key] = u.rec.OnlyHint()
		// A layer alone does not tell whose it is: steps that change nothing all make the same one.
		case u.result && slices.ContainsFunc(u.layers, func(l *layer.Layer) bool { return holds(l.Identity) }):
			add(u.rec, u.rec.Name)
		default:
			others = append(others, u)
		}
	}
	for _, r := range slices.Clone(out) {
		keep(r.With)
	}
	for _, u := range others {
		if !slices.ContainsFunc(u.rec.With, func(k key.Digest) bool { return hint[k] }) {
			add(u.rec, "")
		}
	}
	slices.SortFunc(out, func(a, b *record.Record) int { return bytes.Compare(a.Key[:], b.Key[:]) })
	return out
}

package catalog

import (
	"maps"
	"time"

	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"larder/internal/key"
	"larder/internal/record"
)

// merge gives what a catalog that holds s holds after a change. The first record of a key stays, unless the change says that
// it replaces that very one; so do the first copy of a layer and the first blob of a tree. missing are blobs that the store turned out not to have:
// unlike those in c.Gone, which c may have brought back, they are not added either. A record goes when one of its pinned layers loses
// its last copy: nobody could get the layer. One whose layers never had copies stays, its reader has them from elsewhere. A cache mount
// that lost any of its blobs goes.
//
// It changes neither s nor c, and merging the same change twice is merging it once.
func merge(s state, c Change, missing map[digest.Digest]bool, now time.Time) state {
	now = now.UTC().Truncate(time.Second)
	out := s.clone()
	gone := make(map[digest.Digest]bool, len(c.Gone))
	for _, d := range c.Gone {
		gone[d] = true
	}
	lost := out.forget(gone)
	for id, copies := range c.Layers {
		kept := without(copies, missing)
		if len(kept) == 0 && len(copies) > 0 {
			lost[id] = true
		}
		if all := unite(out.layers[id], kept); len(all) > 0 {
			out.layers[id] = all
		}
	}
	for d, desc := range c.Trees {
		if _, have := out.trees[d]; !have && !missing[desc.Digest] {
			out.trees[d] = plain(desc)
		}
	}
	for id := range out.forget(missing) {
		lost[id] = true
	}
	unreachable := func(r *record.Record) bool {
		for l := range layersOf(r) {
			if l.Pinned && lost[l.Identity] && len(out.layers[l.Identity]) == 0 {
				return true
			}
		}
		return false
	}
	for k, e := range out.records {
		if unreachable(e.Record) {
			delete(out.records, k)
		}
	}
	maps.DeleteFunc(out.mounts, func(_ key.Digest, m Mount) bool { return m.names(gone) || m.names(missing) })
	for _, p := range c.Mounts {
		if !p.torn(gone, missing) {
			out.putMount(p, now)
		}
	}
	for _, p := range c.Put {
		e, have := out.records[p.Record.Key]
		switch {
		case unreachable(p.Record) && !have:
			continue
		case have && p.Unite:
			e.Record = c.united(p.Record, e.Record)
		case !have, saysNothing(e.Record) && !saysNothing(p.Record), !p.Replaces.IsZero() && e.Record.Digest() == p.Replaces && !unreachable(p.Record):
			e.Record = p.Record
		}
		out.records[p.Record.Key] = e
		out.use(p.Record.Key, now)
	}
	for _, k := range c.Used {
		out.use(k, now)
	}
	out.sweep()
	return out
}

// use notes that a record was used, and those that it keeps, and what they keep.
func (s state) use(k key.Digest, now time.Time) {
	next, done := []key.Digest{k}, map[key.Digest]bool{}
	for ; len(next) > 0; next = next[1:] {
		k := next[0]
		if e, have := s.records[k]; have && !done[k] {
			done[k] = true
			e.Used = later(e.Used, now)
			s.records[k] = e
			next = append(next, e.Record.With...)
		}
	}
}

// forget drops the blobs in gone and gives the layers that have no copy left.
func (s state) forget(gone map[digest.Digest]bool) (lost map[key.Digest]bool) {
	lost = map[key.Digest]bool{}
	if len(gone) == 0 {
		return lost
	}
	for id, copies := range s.layers {
		if left := without(copies, gone); len(left) > 0 {
			s.layers[id] = left
		} else {
			delete(s.layers, id)
			lost[id] = true
		}
	}
	for d, desc := range s.trees {
		if gone[desc.Digest] {
			delete(s.trees, d)
		}
	}
	return lost
}

func without(copies []Blob, gone map[digest.Digest]bool) []Blob {
	var left []Blob
	for _, b := range copies {
		if !gone[b.Desc.Digest] {
			b.Desc = plain(b.Desc)
			left = append(left, b)
		}
	}
	return left
}

// plain keeps of a descriptor what a catalog keeps.
func plain(d ocispecs.Descriptor) ocispecs.Descriptor {
	return ocispecs.Descriptor{MediaType: d.MediaType, Digest: d.Digest, Size: d.Size}
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// admit gives the part of a change that a catalog can keep, its records without From, and how many records and cache mounts it cannot:
// those out of bounds. Hints out of bounds are left out without a word: nothing is lost but time.
func admit(c Change) (Change, int) {
	refused := 0
	put := make([]Put, 0, len(c.Put))
	for _, p := range c.Put {
		if p.Record == nil || p.Record.Key.IsZero() || !fits(p.Record) {
			refused++
			continue
		}
		r := *p.Record
		r.From = ""
		if p.Unite {
			r.Hint = UniteHints(r.Hint, nil)
		}
		if len(r.Hint) > maxHint {
			r.Hint = nil
		}
		if p.Record.Hint != nil && saysNothing(&r) {
			continue
		}
		put = append(put, Put{Record: &r, Replaces: p.Replaces, Unite: p.Unite})
	}
	c.Put = put
	trees := make(map[key.Digest]ocispecs.Descriptor, len(c.Trees))
	for d, desc := range c.Trees {
		if blobOf(desc).check() == nil {
			trees[d] = desc
		}
	}
	c.Trees = trees
	layers := make(map[key.Digest][]Blob, len(c.Layers))
	for id, copies := range c.Layers {
		for _, b := range copies {
			if blobOf(b.Desc).check() == nil && isSHA256(b.DiffID) {
				layers[id] = append(layers[id], b)
			}
		}
	}
	c.Layers = layers
	mounts, more := admitMounts(c.Mounts)
	c.Mounts = mounts
	return c, refused + more
}

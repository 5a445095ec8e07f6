package catalog

import (
	"bytes"
	"maps"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"larder/internal/key"
	"larder/internal/record"
)

// state is what a catalog, or a page of it, holds. Records, and the segments of mounts, are not modified once they are in one.
type state struct {
	records map[key.Digest]Entry
	trees   map[key.Digest]ocispecs.Descriptor
	layers  map[key.Digest][]Blob
	mounts  map[key.Digest]Mount
}

func newState() state {
	return state{map[key.Digest]Entry{}, map[key.Digest]ocispecs.Descriptor{}, map[key.Digest][]Blob{}, map[key.Digest]Mount{}}
}

func (s state) clone() state {
	c := state{maps.Clone(s.records), maps.Clone(s.trees), make(map[key.Digest][]Blob, len(s.layers)), maps.Clone(s.mounts)}
	for id, copies := range s.layers {
		c.layers[id] = slices.Clone(copies)
	}
	return c
}

// sorted lists the entries, the most recently used first.
func (s state) sorted() []Entry {
	return slices.SortedFunc(maps.Values(s.records), func(a, b Entry) int {
		if c := b.Used.Compare(a.Used); c != 0 {
			return c
		}
		return bytes.Compare(a.Record.Key[:], b.Record.Key[:])
	})
}

// sortedMounts lists the cache mounts, the most recently used first.
func (s state) sortedMounts() []Mount {
	return slices.SortedFunc(maps.Values(s.mounts), func(a, b Mount) int {
		if c := b.Used.Compare(a.Used); c != 0 {
			return c
		}
		return bytes.Compare(a.Key[:], b.Key[:])
	})
}

// blobs lists everything that the state names in the store, each once, sorted by digest.
func (s state) blobs() []ocispecs.Descriptor {
	all := map[digest.Digest]ocispecs.Descriptor{}
	for _, d := range s.trees {
		all[d.Digest] = d
	}
	for _, copies := range s.layers {
		for _, c := range copies {
			all[c.Desc.Digest] = c.Desc
		}
	}
	for _, m := range s.mounts {
		for d := range m.Blobs() {
			all[d.Digest] = d
		}
	}
	list := make([]ocispecs.Descriptor, 0, len(all))
	for _, d := range slices.Sorted(maps.Keys(all)) {
		list = append(list, all[d])
	}
	return list
}

// take copies an entry from another state, with the trees and layers that it names.
func (s state) take(from state, e Entry) {
	s.records[e.Record.Key] = e
	for l := range layersOf(e.Record) {
		if copies, ok := from.layers[l.Identity]; ok {
			s.layers[l.Identity] = unite(s.layers[l.Identity], copies)
		}
		if t, ok := from.trees[l.Tree]; ok {
			if _, have := s.trees[l.Tree]; !have {
				s.trees[l.Tree] = t
			}
		}
	}
}

// unite adds copies that are not there: the first copy of a BlobKey stays.
func unite(have, more []Blob) []Blob {
	for _, b := range more {
		if len(have) < maxCopies && !slices.ContainsFunc(have, func(h Blob) bool { return h.Key == b.Key }) {
			have = append(have, b)
		}
	}
	return have
}

// layersOf goes through the layers that a record names.
func layersOf(r *record.Record) func(yield func(record.Layer) bool) {
	return func(yield func(record.Layer) bool) {
		for _, o := range r.Outputs {
			for _, l := range o.Layers {
				if !yield(l) {
					return
				}
			}
		}
	}
}

// sweep drops the trees and layers that no record names.
func (s state) sweep() {
	trees, layers := map[key.Digest]bool{}, map[key.Digest]bool{}
	for _, e := range s.records {
		for l := range layersOf(e.Record) {
			layers[l.Identity] = true
			trees[l.Tree] = true
		}
	}
	maps.DeleteFunc(s.trees, func(d key.Digest, _ ocispecs.Descriptor) bool { return !trees[d] })
	maps.DeleteFunc(s.layers, func(id key.Digest, _ []Blob) bool { return !layers[id] })
}

// sameBlobs tells whether two states name the same copies and trees.
func (s state) sameBlobs(o state) bool {
	return maps.EqualFunc(s.trees, o.trees, sameDesc) &&
		maps.EqualFunc(s.layers, o.layers, func(a, b []Blob) bool {
			return slices.EqualFunc(a, b, func(a, b Blob) bool {
				return a.Key == b.Key && sameDesc(a.Desc, b.Desc) && a.DiffID == b.DiffID
			})
		})
}

func sameDesc(a, b ocispecs.Descriptor) bool {
	return a.Digest == b.Digest && a.Size == b.Size && a.MediaType == b.MediaType
}

// worth is how much newer a record's use must be to be written down: a quarter of Age. Builds without changes mostly write nothing
// then, and a record that is in use never comes near its end.
func (l Limits) worth() time.Duration { return l.Age / 4 }

// differs tells whether b says something that is worth writing over a.
func (s state) differs(o state, worth time.Duration) bool {
	return !s.sameBlobs(o) || !maps.EqualFunc(s.records, o.records, func(a, b Entry) bool {
		return sameRecord(a.Record, b.Record) && b.Used.Sub(a.Used) < worth
	}) || !maps.EqualFunc(s.mounts, o.mounts, func(a, b Mount) bool {
		return sameMount(a, b) && b.Used.Sub(a.Used) < worth
	})
}

func sameRecord(a, b *record.Record) bool { return a == b || a.Digest() == b.Digest() }

package catalog

import (
	"bytes"
	"cmp"
	"slices"
	"time"

	"larder/internal/key"
	"larder/internal/record"
)

// item is what pages are divided into: a record with the trees and layers that it names, or a cache mount.
type item struct {
	itemID
	entry Entry  // of a record
	mount *Mount // nil for a record
}

// itemID tells items of one state apart.
type itemID struct {
	mount bool
	key   key.Digest
}

// items lists all items, the most recently used first.
func (s state) items() []item {
	list := make([]item, 0, len(s.records)+len(s.mounts))
	for k, e := range s.records {
		list = append(list, item{itemID: itemID{false, k}, entry: e})
	}
	for k, m := range s.mounts {
		list = append(list, item{itemID: itemID{true, k}, mount: &m})
	}
	slices.SortFunc(list, byUse)
	return list
}

func byUse(a, b item) int {
	return cmp.Or(b.used().Compare(a.used()), byKind(a, b), bytes.Compare(a.key[:], b.key[:]))
}

// byKind puts records before those that are only hints, and those before cache mounts.
func byKind(a, b item) int { return cmp.Compare(a.rank(), b.rank()) }

func (it item) rank() int {
	switch {
	case it.mount != nil:
		return 2
	case it.entry.Record.OnlyHint():
		return 1
	}
	return 0
}

func (it item) used() time.Time {
	if it.mount != nil {
		return it.mount.Used
	}
	return it.entry.Used
}

// json is what a page says of an item itself.
func (it item) json() any {
	if it.mount != nil {
		return jsonOf(*it.mount)
	}
	return it.entry.Record
}

// layers goes through the layers that an item names.
func (it item) layers() func(yield func(record.Layer) bool) {
	if it.mount != nil {
		return func(func(record.Layer) bool) {}
	}
	return layersOf(it.entry.Record)
}

// add copies an item from another state, with all that it names.
func (s state) add(from state, it item) {
	if it.mount != nil {
		s.mounts[it.key] = *it.mount
		return
	}
	s.take(from, it.entry)
}

func (s state) drop(id itemID) {
	if id.mount {
		delete(s.mounts, id.key)
	} else {
		delete(s.records, id.key)
	}
}

// stands tells whether an item of a page counts as it stands there: not replaced, removed or used since. Records of truthful pages have
// not been replaced, but for hints. That a large hint was used is not worth writing it anew within a quarter of Limits.Age.
func (s state) stands(it item, worth time.Duration) bool {
	if it.mount != nil {
		m, have := s.mounts[it.key]
		return have && sameMount(m, *it.mount) && !m.Used.After(it.mount.Used)
	}
	e, have := s.records[it.key]
	if !have || it.entry.Record.OnlyHint() && !sameRecord(e.Record, it.entry.Record) {
		return false
	}
	return !e.Used.After(it.entry.Used) || it.far() && e.Used.Sub(it.entry.Used) < worth
}

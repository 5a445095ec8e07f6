package catalog

import (
	"encoding/json"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"
)

// oldPage is a further page of the catalog that is being written anew.
type oldPage struct {
	ref   pageRef
	state state // empty where it could not be read
}

// layout says which page holds what.
type layout struct {
	first state
	fresh []state   // further pages to write, the newest first
	kept  []oldPage // further pages that stay as they are, after those
}

// lay divides what a catalog holds into pages. The first takes what was used last, as much as limits say (many times that while
// many write, calm being false: making pages takes time in which others get ahead). Further pages are immutable: one stays
// while it says nothing wrong and most of it still counts, and is otherwise dissolved into what is divided. So a record
// that is used again comes back into the first page, and small pages grow together. Cache mounts are divided like records.
func lay(all state, pages []oldPage, limits Limits, calm bool, now time.Time) layout {
	var stay, small []oldPage
	for _, p := range pages {
		switch live := standing(all, p.state, limits.worth()); {
		case !truthful(all, p.state) || live*2 < len(p.state.records)+len(p.state.mounts) || live == 0:
		case full(p.state):
			stay = append(stay, p)
		default:
			small = append(small, p)
		}
	}
	// Small pages stay as long as nothing has to go out of the first.
	out := divide(all, append(slices.Clone(stay), small...), pages, limits, calm, now)
	if len(out.fresh) > 0 && len(small) > 0 {
		out = divide(all, append(stay, outweighing(small, out.fresh)...), pages, limits, calm, now)
	}
	out.bound(limits)
	return out
}

// outweighing lists the small pages that stay although others are written: where those are hints, of which most builds leave some, pages
// that are much larger. So a build does not send what all before it left, and pages of hints are still few.
func outweighing(small []oldPage, fresh []state) (stay []oldPage) {
	n := 0
	for _, p := range fresh {
		if !hinting(p) {
			return nil
		}
		n += weigh(p)
	}
	for _, p := range small {
		if w := weigh(p.state); w > 4*n {
			stay = append(stay, p)
		} else {
			n += w
		}
	}
	return stay
}

// divide does lay's work for pages of which some stay.
func divide(all state, stay, pages []oldPage, limits Limits, calm bool, now time.Time) layout {
	settled := map[itemID]bool{} // false: another version stands in a page before
	var out layout
	for _, p := range pages {
		if !slices.ContainsFunc(stay, func(s oldPage) bool { return s.ref.Tag == p.ref.Tag }) {
			continue
		}
		live := 0
		for _, it := range p.state.items() {
			if _, before := settled[it.itemID]; before {
				continue
			}
			stands := all.stands(it, limits.worth()) && now.Sub(it.used()) <= limits.Age
			if settled[it.itemID] = stands; stands {
				live++
			}
		}
		if live > 0 {
			out.kept = append(out.kept, p)
		}
	}
	var rest []item
	for _, it := range all.items() {
		if !settled[it.itemID] && now.Sub(it.used()) <= limits.Age {
			rest = append(rest, it)
		}
	}
	out.first, rest = fillFirst(all, rest, limits, calm, now)
	for len(rest) > 0 {
		var p state
		r := room{json: pageJSON, blobs: pageBlobs, packed: pageBytes, ratio: packRatio(all, rest)}
		if p, rest = fill(all, rest, r, func(item) float64 { return 1 }); len(p.records)+len(p.mounts) == 0 {
			break // what is left has more copies than any page can name
		}
		out.fresh = append(out.fresh, p)
	}
	return out
}

// bound drops pages where there are too many: those of large hints first, and the oldest first.
func (l *layout) bound(limits Limits) {
	for most := limits.Pages; len(l.fresh)+len(l.kept) > most; {
		switch {
		case dropLast(&l.kept, func(p oldPage) bool { return hinting(p.state) }), dropLast(&l.fresh, hinting):
		case len(l.kept) > 0:
			l.kept = l.kept[:len(l.kept)-1]
		default:
			l.fresh = l.fresh[:most]
		}
	}
}

// dropLast takes the last page out of a list for which ok holds.
func dropLast[T any](list *[]T, ok func(T) bool) bool {
	for i, p := range slices.Backward(*list) {
		if ok(p) {
			*list = slices.Delete(*list, i, i+1)
			return true
		}
	}
	return false
}

// hinting tells pages of large hints.
func hinting(page state) bool {
	return !slices.ContainsFunc(page.items(), func(it item) bool { return !it.far() })
}

// standing counts the items of a page that count as they stand there.
func standing(all, page state, worth time.Duration) int {
	n := 0
	for _, it := range page.items() {
		if all.stands(it, worth) {
			n++
		}
	}
	return n
}

// truthful tells whether a page says nothing that is no longer so: no record that is gone or replaced, no cache mount that is gone, no blob
// that is gone. What it says of a cache mount or of a hint that has changed since may stay: pages before it say what counts.
func truthful(all, page state) bool {
	for k, e := range page.records {
		if a, have := all.records[k]; !have || !e.Record.OnlyHint() && !sameRecord(a.Record, e.Record) {
			return false
		}
	}
	for k := range page.mounts {
		if _, have := all.mounts[k]; !have {
			return false
		}
	}
	for d, desc := range page.trees {
		if t, have := all.trees[d]; !have || !sameDesc(t, desc) {
			return false
		}
	}
	for id, copies := range page.layers {
		for _, c := range copies {
			if !slices.ContainsFunc(all.layers[id], func(a Blob) bool { return a.Key == c.Key && sameDesc(a.Desc, c.Desc) }) {
				return false
			}
		}
	}
	return true
}

// full tells pages that have grown enough to be left alone. Hints may not pack well.
func full(page state) bool {
	hints := 0
	for _, e := range page.records {
		hints += len(e.Record.Hint)
	}
	return len(page.blobs())*4 >= pageBlobs*3 || weigh(page) >= pageJSON/4 || hints*4 >= pageBytes*3
}

func weigh(s state) int {
	n := 0
	for _, it := range s.items() {
		n += weight(s, it)
	}
	return n
}

// weight is about how much JSON an item takes with all that it names; one of many small values weighs more, as they are counted when it is read.
func weight(s state, it item) int {
	b, err := json.Marshal(it.json())
	if err != nil {
		return firstJSON // cannot happen; it would fit nowhere
	}
	n := max(len(b)+40, valueJSON*(CountJSON(b)+3))
	for l := range it.layers() {
		n += 400 * len(s.layers[l.Identity])
		if _, ok := s.trees[l.Tree]; ok {
			n += 250
		}
	}
	return n
}

// room is how much a page takes.
type room struct {
	json, packed, blobs int
	ratio               float64 // packed bytes for a byte of weight
}

// packRatio measures what packing makes of items.
func packRatio(all state, list []item) float64 {
	sample, n := newState(), 0
	for _, it := range list[:min(len(list), 200)] {
		sample.add(all, it)
		n += weight(all, it)
	}
	b, err := newPage("", time.Time{}, sample).encode()
	if err != nil || n == 0 {
		return 1
	}
	return float64(len(b)) / float64(n)
}

// fill takes items into a page as long as there is room, and gives those that it did not take. share says how full the page may be
// with an item in it.
func fill(all state, list []item, r room, share func(item) float64) (page state, rest []item) {
	page = newState()
	n := 0
	names := map[digest.Digest]bool{}
	for _, it := range list {
		w := weight(all, it)
		more := missingFrom(names, all, it)
		part := share(it)
		if n+w > r.json || float64(n+w)*r.ratio > float64(r.packed)*part || float64(len(names)+len(more)) > float64(r.blobs)*part ||
			it.mount != nil && len(page.mounts) == maxMounts {
			rest = append(rest, it)
			continue
		}
		n += w
		for _, d := range more {
			names[d] = true
		}
		page.add(all, it)
	}
	return page, rest
}

// missingFrom lists the blobs of an item that are not among names.
func missingFrom(names map[digest.Digest]bool, all state, it item) []digest.Digest {
	var list []digest.Digest
	add := func(d digest.Digest) {
		if !names[d] && !slices.Contains(list, d) {
			list = append(list, d)
		}
	}
	if it.mount != nil {
		for d := range it.mount.Blobs() {
			add(d.Digest)
		}
	}
	for l := range it.layers() {
		for _, b := range all.layers[l.Identity] {
			add(b.Desc.Digest)
		}
		if t, ok := all.trees[l.Tree]; ok {
			add(t.Digest)
		}
	}
	return list
}

// fillFirst takes into the first page what was used last. When not all fits it is filled by half only, so that the next
// builds need not divide again, but for what the present build used. Cache mounts take what room the records leave: whoever asks for a mount has not
// found a record, and has read the further pages for that. So has who asks for a large hint: those are there only while the page is small.
func fillFirst(all state, list []item, limits Limits, calm bool, now time.Time) (page state, rest []item) {
	r := room{json: firstJSON, packed: limits.Page, blobs: limits.Blobs}
	if !calm {
		r.packed, r.blobs = r.packed*hardFactor, r.blobs*hardFactor
	}
	whole := newState()
	n := 0
	for _, it := range list {
		whole.add(all, it)
		n += weight(all, it)
	}
	near, far := apart(list, item.far)
	most := r.packed
	if len(far) > 0 {
		most /= hintFactor
	}
	if n <= r.json && len(whole.blobs()) <= r.blobs && len(whole.mounts) <= maxMounts && (n <= most || packed(whole) <= most) {
		return whole, nil
	}
	if len(far) > 0 {
		page, rest = fillFirst(all, near, limits, calm, now)
		return page, append(rest, far...) // in pages of their own
	}
	recent := now.Truncate(time.Second)
	share := func(it item) float64 {
		if it.used().Before(recent) {
			return 0.5
		}
		return 1
	}
	r.ratio = packRatio(all, list)
	slices.SortStableFunc(list, byKind)
	for ; ; r.ratio *= 1.15 { // the ratio of the whole may flatter a part
		if page, rest = fill(all, list, r, share); packed(page) <= r.packed {
			slices.SortFunc(rest, byUse)
			return page, rest
		}
	}
}

// apart divides a list into those for which ok does not hold, and those for which it does.
func apart(list []item, ok func(item) bool) (no, yes []item) {
	for _, it := range list {
		if ok(it) {
			yes = append(yes, it)
		} else {
			no = append(no, it)
		}
	}
	return no, yes
}

// packed is the size of a page's blob, without what only the first page says.
func packed(s state) int {
	b, err := newPage("", time.Time{}, s).encode()
	if err != nil {
		return firstJSON
	}
	return len(b)
}

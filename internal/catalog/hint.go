package catalog

import (
	"bytes"
	"slices"

	"larder/internal/key"
	"larder/internal/observation"
	"larder/internal/record"
)

// maxUnite is how often a Save pushes digests out of a list that is full: after that others came later.
const maxUnite = 3

// nearHint is the size, in bytes, above which a hint goes into a further page as soon as the first one is not small any more: who wants it
// has missed a record. Lists are smaller.
const nearHint = 1 << 10

// far tells large hints.
func (it item) far() bool {
	return it.mount == nil && it.entry.Record.OnlyHint() && len(it.entry.Record.Hint) > nearHint
}

// saysNothing tells what an older larder, which does not know hints, makes of a record that is one.
func saysNothing(r *record.Record) bool {
	return len(r.Outputs) == 0 && len(r.Data) == 0 && len(r.Hint) == 0
}

// united gives what stands for a list when a build adds to it. While Save looks whether what it has written held, others' orders stand: two
// writers who both put theirs first would go on for ever. When it has written often, a list that others have filled stands as well.
func (c Change) united(add, have *record.Record) *record.Record {
	if !have.OnlyHint() {
		return add
	}
	hint := UniteHints(add.Hint, have.Hint)
	if c.writes >= maxUnite || c.writes > 0 && ListsAll(have.Hint, add.Hint) {
		hint = UniteHints(have.Hint, add.Hint)
	}
	if bytes.Equal(hint, have.Hint) {
		return have
	}
	r := *have
	r.Hint = hint
	return &r
}

// UniteHints makes one list of two, as observation.MarshalList stores them: those of near first. What is no such list counts as an empty one.
func UniteHints(near, far []byte) []byte {
	first, _ := observation.UnmarshalList(near)
	list, _ := observation.UnmarshalList(far)
	for _, d := range slices.Backward(first) {
		list = observation.AddSet(list, d)
	}
	return observation.MarshalList(list)
}

// ListsAll tells whether a list has all digests of another.
func ListsAll(list, other []byte) bool {
	for ; len(other) >= key.Size; other = other[key.Size:] {
		if !listed(list, other[:key.Size]) {
			return false
		}
	}
	return true
}

func listed(list, digest []byte) bool {
	for ; len(list) >= key.Size; list = list[key.Size:] {
		if bytes.Equal(list[:key.Size], digest) {
			return true
		}
	}
	return false
}

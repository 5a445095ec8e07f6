package observation

import (
	"bytes"
	"errors"
	"slices"
	"testing"

	"larder/internal/key"
	"larder/internal/tree"
)

// digests gives one digest for each letter.
func digests(letters string) []key.Digest {
	out := []key.Digest{}
	for _, l := range letters {
		out = append(out, key.Bytes([]byte(string(l))))
	}
	return out
}

func TestLists(t *testing.T) {
	const full = "abcdefghijklmnop"
	for name, c := range map[string]struct {
		got  []key.Digest
		want string
	}{
		"first":              {AddSet(nil, digests("x")[0]), "x"},
		"to the front":       {AddSet(digests("abc"), digests("x")[0]), "xabc"},
		"known already":      {AddSet(digests("abc"), digests("b")[0]), "bac"},
		"in front already":   {AddSet(digests("abc"), digests("a")[0]), "abc"},
		"one falls off":      {AddSet(digests(full), digests("x")[0]), "x" + full[:MaxSets-1]},
		"none falls off":     {AddSet(digests(full), digests("p")[0]), "p" + full[:MaxSets-1]},
		"by rank":            {Union(digests("abc"), digests("xb"), digests("c")), "axcb"},
		"no more than a few": {Union(digests(full), digests("x")), "ax" + full[1:MaxSets-1]},
		"nothing":            {Union(nil, []key.Digest{}), ""},
	} {
		if !slices.Equal(c.got, digests(c.want)) {
			t.Errorf("%s: %v, not %v", name, c.got, digests(c.want))
		}
		back, err := UnmarshalList(MarshalList(c.got))
		if err != nil || !slices.Equal(back, c.got) {
			t.Errorf("%s: %v came back as %v, %v", name, c.got, back, err)
		}
	}
	if b := MarshalList(digests(full + "xyz")); !bytes.Equal(b, MarshalList(digests(full))) {
		t.Errorf("%d bytes of a list that is too long", len(b))
	}
	if len(full) != MaxSets {
		t.Errorf("the cases are for lists of %d", len(full))
	}
}

func TestDamagedLists(t *testing.T) {
	good := MarshalList(digests("ab"))
	for name, b := range map[string][]byte{
		"cut short": good[:len(good)-1],
		"twice":     append(slices.Clone(good), good...),
		"none":      make([]byte, key.Size),
		"too long":  bytes.Repeat(good, MaxSets),
	} {
		if list, err := UnmarshalList(b); !errors.Is(err, tree.ErrDamaged) || list != nil {
			t.Errorf("%s: %v, %v", name, list, err)
		}
	}
}

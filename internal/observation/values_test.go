package observation

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"

	"larder/internal/key"
	"larder/internal/tree"
)

// TestSoakValuesTellWhatAModelTells: two trees give one value to a look if and only if a plain list of everything says that the look
// sees the same, whatever order the looks come in and whether the trees are in memory or read from a store.
func TestSoakValuesTellWhatAModelTells(t *testing.T) {
	same, different := 0, 0
	for seed := range uint64(cases(3000, 300000)) {
		d := newDice(seed)
		was := d.model()
		is := was.edited(d)
		looks := slices.Concat(d.looks(was), d.looks(is))
		a, b := values(t, looks, was.tree(t)), values(t, looks, is.tree(t))
		if again := values(t, looks, stored(t, is.tree(t))); !slices.Equal(b, again) {
			t.Fatalf("seed %d: stored, the tree has other values\n%s", seed, is.dump())
		}
		for i, l := range looks {
			equal := slices.Equal(was.sees(l), is.sees(l))
			if equal {
				same++
			} else {
				different++
			}
			if (a[i] == b[i]) != equal {
				t.Fatalf("seed %d: %+v: same value %v, sees the same %v\nwas %q\nis  %q\nwas\n%sis\n%s",
					seed, l, a[i] == b[i], equal, was.sees(l), is.sees(l), was.dump(), is.dump())
			}
		}
	}
	if same < different || different < same/20 {
		t.Errorf("%d looks saw the same, %d something else: the cases are lopsided", same, different)
	}
}

// TestSoakDifferNamesTheKinds: of each look exactly those kinds are named that see something else.
func TestSoakDifferNamesTheKinds(t *testing.T) {
	for seed := range uint64(cases(1000, 100000)) {
		d := newDice(seed)
		was := d.model()
		is := was.edited(d)
		looks := reduce(t, d.looks(was), was.tree(t), 100)
		var want []Look
		for _, l := range looks {
			changed := Kind(0)
			for k := Entry; k <= Whole; k <<= 1 {
				if one := (Look{l.Path, k}); l.Kind&k != 0 && !slices.Equal(was.sees(one), is.sees(one)) {
					changed |= k
				}
			}
			if changed != 0 {
				want = append(want, Look{l.Path, changed})
			}
		}
		got, err := Differ(looks, was.tree(t), is.tree(t))
		if err != nil || !slices.Equal(got, want) {
			t.Fatalf("seed %d: %v, %v, not %v", seed, got, err, want)
		}
	}
}

// TestOtherNamesAreSeen: where else a file below a Whole, or one looked at itself, has a name is part of the value, wherever that
// sorts; what names files elsewhere have is none.
func TestOtherNamesAreSeen(t *testing.T) {
	dir, file := object{kind: tree.Dir}, object{kind: tree.File, group: 1}
	seen := map[key.Digest]string{}
	for _, other := range []string{"", "a-", "a.b", "a0", "a0/x", "b", "a/y"} {
		m := model{"": dir, "a": dir, "a/x": file, "c": {kind: tree.File, group: 2}}
		if top, _, deep := strings.Cut(other, "/"); deep && top != "a" {
			m[top] = dir
		}
		if other != "" {
			m[other] = file
		}
		whole := parse(t, "a:w a/x:w a/x:e")
		v := values(t, whole, m.tree(t))
		for i, l := range whole {
			if before, ok := seen[v[i]]; ok {
				t.Errorf("%+v does not tell %q from %q", l, other, before)
			}
			seen[v[i]] = other
		}
		m["d"] = m["c"]
		if !slices.Equal(values(t, whole, m.tree(t)), v) {
			t.Error("links elsewhere are seen")
		}
	}
}

// TestFetchingFails: what cannot be fetched is an error where it is needed, and not where it is not.
func TestFetchingFails(t *testing.T) {
	var b bytes.Buffer
	if err := tree.Encode(&b, small(t)); err != nil {
		t.Fatal(err)
	}
	ok := 0
	for i := range b.Len() {
		damaged := slices.Clone(b.Bytes())
		damaged[i] ^= 1
		root, err := tree.Decode(bytes.NewReader(damaged), int64(b.Len()))
		if err != nil {
			continue
		}
		looks := parse(t, ":l doc/1:e src:w src/a:c")
		_, errValues := Values(looks, root)
		_, errReduce := Reduce(looks, root, 1)
		_, errDiffer := Differ(looks, small(t), root)
		_, errKey := (Set{[][]Look{looks}}).Key(key.Digest{}, []*tree.Node{root})
		for _, err := range []error{errValues, errReduce, errDiffer, errKey} {
			if !errors.Is(err, tree.ErrDamaged) {
				t.Fatalf("byte %d: %v", i, err)
			}
		}
		if _, err := Values(parse(t, ":e src/a:e"), root); err == nil {
			ok++ // the damage is in doc
		}
	}
	if ok == 0 {
		t.Error("a damaged directory that is not looked at hinders")
	}
}

// TestNothingAtAll: a part that is nothing, or a socket, or a file, is looked at like any other.
func TestNothingAtAll(t *testing.T) {
	file := &tree.Node{Kind: tree.File, Size: 1}
	socket := &tree.Node{Kind: tree.Socket}
	looks := []Look{{"", Entry | List | Content}, {"", Whole}, {"a", Entry}, {"a/b", Whole}}
	nothing := values(t, looks, nil)
	if got := values(t, looks, socket); !slices.Equal(got, nothing) {
		t.Error("a socket is seen")
	}
	got := values(t, looks, file)
	if got[0] == nothing[0] || got[1] == nothing[1] || got[2] != nothing[2] || got[3] != nothing[3] {
		t.Error("a file is not seen, or has something in it")
	}
	for _, n := range []*tree.Node{nil, socket, file} {
		if out := reduce(t, looks, n, 1); !slices.Equal(out, []Look{{"", Whole}}) {
			t.Errorf("%v", out)
		}
	}
	for _, path := range []string{"/", "/a", "a/", "a//b", ".", ".."} {
		got := values(t, []Look{{path, Entry}, {"", Entry}}, tree.Empty())
		if got[0] != nothing[2] || got[1] == nothing[2] {
			t.Errorf("%q is there, or hides the root", path)
		}
	}
}

package observation

import (
	"slices"
	"testing"

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
			for k := Entry; k <= Plain; k <<= 1 {
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

// TestNothingAtAll: a part that is nothing, or a socket, or a file, is looked at like any other.
func TestNothingAtAll(t *testing.T) {
	file := &tree.Node{Kind: tree.File, Size: 1}
	socket := &tree.Node{Kind: tree.Socket}
	looks := []Look{{"", Entry | List | Content | Xattrs | Plain}, {"", Whole}, {"a", Entry}, {"a/b", Whole}}
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

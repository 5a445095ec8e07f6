package observation

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"larder/internal/tree"
)

// X: no tree gives the values that the reduced looks remember without showing the original looks the same.
func TestSoakReduceIsSound(t *testing.T) {
	believed, other := 0, 0
	for seed := range uint64(cases(1000, 100000)) {
		d := newDice(seed)
		m := d.model()
		root := m.tree(t)
		looks := d.looks(m)
		most := pick(d, 100, 100, 3, 2, 1, 0)
		reduced := reduce(t, looks, root, most)
		if len(reduced) > max(most, 1) {
			t.Fatalf("seed %d: %d looks, not %d", seed, len(reduced), most)
		}
		if err := (Set{[][]Look{reduced}}).check(); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		if again := reduce(t, reduced, root, most); !slices.Equal(again, reduced) {
			t.Fatalf("seed %d: reduced again %v becomes %v", seed, reduced, again)
		}
		if got := reduce(t, looks, stored(t, root), most); !slices.Equal(got, reduced) {
			t.Fatalf("seed %d: stored, the tree has %v, not %v", seed, got, reduced)
		}
		was := values(t, reduced, root)
		for range 15 {
			now := m.edited(d)
			if !slices.Equal(values(t, reduced, now.tree(t)), was) {
				other++
				continue
			}
			believed++
			for _, l := range looks {
				if !slices.Equal(m.sees(l), now.sees(l)) {
					t.Fatalf("seed %d: %v was reduced to %v, which do not see that %+v changed\nwas %q\nis  %q\nwas\n%sis\n%s",
						seed, looks, reduced, l, m.sees(l), now.sees(l), m.dump(), now.dump())
				}
			}
		}
	}
	if believed < other/10 || other < believed/10 {
		t.Errorf("%d trees were believed, %d not: the cases are lopsided", believed, other)
	}
}

// TestSoakReduceIsPrecise: below its bound, a change that the looks do not see is none to the reduced looks.
func TestSoakReduceIsPrecise(t *testing.T) {
	unseen := 0
	for seed := range uint64(cases(1000, 100000)) {
		d := newDice(seed)
		m := d.model()
		root := m.tree(t)
		looks := d.looks(m)
		reduced := reduce(t, looks, root, 1000)
		was := values(t, reduced, root)
		for range 15 {
			now := m.edited(d)
			differs := func(l Look) bool { return !slices.Equal(m.sees(l), now.sees(l)) }
			if slices.ContainsFunc(looks, differs) {
				continue
			}
			unseen++
			if !slices.Equal(values(t, reduced, now.tree(t)), was) {
				t.Fatalf("seed %d: %v was reduced to %v, which see more\nwas\n%sis\n%s", seed, looks, reduced, m.dump(), now.dump())
			}
		}
	}
	if unseen < 500 {
		t.Errorf("%d changes were not seen: too few", unseen)
	}
}

// small has a directory "src" of two files, one of them empty, and a link, and a directory "doc" of three files.
func small(t *testing.T) *tree.Node {
	dir := object{kind: tree.Dir, mode: 0o755}
	file := object{kind: tree.File, mode: 0o644, content: "x"}
	return model{
		"": dir, "src": dir, "src/a": file, "src/empty": {kind: tree.File}, "src/l": {kind: tree.Symlink, link: "a"},
		"src/gone": {kind: tree.Whiteout}, "doc": dir, "doc/1": file, "doc/2": file, "doc/3": file, "s": {kind: tree.Socket},
	}.tree(t)
}

func TestReduceExactly(t *testing.T) {
	long := strings.Repeat(strings.Repeat("d", 99)+"/", 40)
	for name, c := range map[string]struct {
		looks, want string
		most        int
	}{
		"kinds are joined and paths sorted": {"src/a:c doc:e src/a:e", "doc:e src/a:ce", 9},
		"a directory looked at as a whole":  {"src:el src/a:ec src/empty:e src/l:e src/no:e src/gone/x:e", "src:w", 9},
		"but for its own entry":             {"src:l src/a:ec src/empty:e src/l:e", "src:l src/a:ec src/empty:e src/l:e", 9},
		"but for its listing":               {"src:e src/a:ec src/empty:e src/l:e", "src:e src/a:ec src/empty:e src/l:e", 9},
		"nothing was read":                  {"src:el src/a:e src/empty:e src/l:e", "src:w", 9},
		"a file is left alone":              {"src/a:ec", "src/a:ec", 9},
		"below a Whole":                     {"src/a:e src:w src:e src/x/y:e src.c:e", "src:w src.c:e", 9},
		"all of it":                         {":el src:w doc:el doc/1:ec doc/2:ec doc/3:ec s:e", ":w", 9},
		"below what is known to be a file":  {"src/a:e src/a/b:e src/a/b/c:e", "src/a:e", 9},
		"below what may be a directory":     {"src/a:c src/a/b:e", "src/a:c src/a/b:e", 9},
		"below what is known to be absent":  {"no:e no/b:e no/b/c:elw", "no:e", 9},
		"what a listing tells":              {":l no:e no/b:e s:e src/a/b:e", ":l src/a/b:e", 9},
		"the cheapest directory first":      {"src/a:ec src/l:e src/empty:e doc/1:ec doc/2:e", "doc/1:ec doc/2:e src:w", 3},
		"then the next":                     {"src/a:ec src/l:e src/empty:e doc/1:ec doc/2:e", "doc:w src:w", 2},
		"one look, whatever is asked":       {"src/a:ec doc/1:ec", ":w", -1},
		"no looks":                          {"", "", 0},
		"a path that is too long":           {long + "d/x:e src:e", strings.TrimSuffix(long, "/") + ":w src:e", 9},
		"one that is just short enough":     {strings.Repeat("a/", 2047) + "ab:e", strings.Repeat("a/", 2047) + "ab:e", 9},
		"one that is not":                   {strings.Repeat("a/", 2048) + "a:e", strings.Repeat("a/", 2047) + "a:w", 9},
	} {
		if name == "a path that is too long" {
			c.looks = strings.ReplaceAll(c.looks, "d/x", strings.Repeat("d/", 50)+"x")
			c.want = c.looks[:strings.LastIndexByte(c.looks[:4097], '/')] + ":w src:e"
		}
		got := reduce(t, parse(t, c.looks), small(t), c.most)
		if want := parse(t, c.want); !slices.Equal(got, want) {
			t.Errorf("%s: %v, not %v", name, got, want)
		}
	}
	for _, bad := range []Look{{"a", 0}, {"a", 64}, {"a", 8}, {"", 32}, {"/a", Entry}, {"a/../b", Entry}, {"a\x00", Entry}} {
		if _, err := Reduce([]Look{bad}, small(t), 9); err == nil {
			t.Errorf("%+v was taken", bad)
		}
	}
}

// parse reads "path:kinds path:kinds".
func parse(t *testing.T, s string) []Look {
	out := []Look{}
	for _, f := range strings.Fields(s) {
		path, kinds, ok := strings.Cut(f, ":")
		l := Look{Path: path}
		for _, k := range kinds {
			kind, known := map[rune]Kind{'e': Entry, 'l': List, 'c': Content, 'w': Whole}[k]
			l.Kind |= kind
			ok = ok && known
		}
		if !ok {
			t.Fatal(fmt.Errorf("%q", f))
		}
		out = append(out, l)
	}
	return out
}

package observation

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"

	"larder/internal/key"
	"larder/internal/tree"
)

func (d dice) set(t *testing.T) Set {
	s := Set{Parts: make([][]Look, d.IntN(4))}
	for i := range s.Parts {
		m := d.model()
		s.Parts[i] = reduce(t, d.looks(m), m.tree(t), 100)
	}
	return s
}

func marshal(t testing.TB, s Set) []byte {
	t.Helper()
	b, err := s.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestSetsSurvive: what is stored comes back, and each set has a name of its own.
func TestSetsSurvive(t *testing.T) {
	names := map[key.Digest]Set{}
	for seed := range uint64(500) {
		s := newDice(seed).set(t)
		var back Set
		if err := back.UnmarshalBinary(marshal(t, s)); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		if !reflect.DeepEqual(back, s) {
			t.Fatalf("seed %d: %v came back as %v", seed, s, back)
		}
		if other, ok := names[s.Digest()]; ok && !reflect.DeepEqual(other, s) {
			t.Fatalf("seed %d: %v and %v have one name", seed, s, other)
		}
		names[s.Digest()] = s
	}
}

// TestNumbersStay: names and values of looks are stored by earlier versions: another number in the domain goes with each change.
func TestNumbersStay(t *testing.T) {
	set := Set{[][]Look{parse(t, ":el doc:w src/a:ec src/l:e"), parse(t, "")}}
	part := stored(t, small(t))
	k, err := set.Key(key.Bytes(nil), []*tree.Node{part, nil})
	if err != nil {
		t.Fatal(err)
	}
	h := key.New("test").Digests(values(t, parse(t, ":el :w src:el src/a:ec src/l:e src/gone:el no:elcw"), part))
	for name, c := range map[string]struct {
		got  key.Digest
		want string
	}{
		"set":    {set.Digest(), "f8fd51446557b271"},
		"key":    {k, "adb1411e3ffd445d"},
		"values": {h.Sum(), "367b636e0c89fee5"},
	} {
		if c.got.Hex()[:16] != c.want {
			t.Errorf("%s: %s, not %s", name, c.got.Hex()[:16], c.want)
		}
	}
}

// TestKeyKnowsEverything: each thing that a key is made of changes it.
func TestKeyKnowsEverything(t *testing.T) {
	a, b := small(t), tree.Empty()
	one, other := parse(t, "src:e"), parse(t, "doc:e")
	type asked struct {
		base  string
		set   Set
		parts []*tree.Node
	}
	keys := map[key.Digest]int{}
	for i, q := range []asked{
		{"", Set{[][]Look{one, one}}, []*tree.Node{a, b}},
		{"", Set{[][]Look{one, one}}, []*tree.Node{b, a}},
		{"", Set{[][]Look{one, one}}, []*tree.Node{a, a}},
		{"", Set{[][]Look{one, other}}, []*tree.Node{a, a}},
		{"", Set{[][]Look{one}}, []*tree.Node{a}},
		{"", Set{[][]Look{one, {}}}, []*tree.Node{a, a}},
		{"", Set{[][]Look{{}, one}}, []*tree.Node{a, a}},
		{"", Set{}, nil},
		{"x", Set{}, nil},
	} {
		k, err := q.set.Key(key.Bytes([]byte(q.base)), q.parts)
		if err != nil {
			t.Fatal(err)
		}
		if before, ok := keys[k]; ok {
			t.Errorf("cases %d and %d have one key", before, i)
		}
		keys[k] = i
	}
	if _, err := (Set{[][]Look{one}}).Key(key.Digest{}, nil); err == nil {
		t.Error("a set of one part was evaluated on none")
	}
}

// bodyOf writes a body by hand: of one part, its looks as (kind, common, rest).
func bodyOf(looks ...any) []byte {
	b := binary.AppendUvarint(append([]byte(header), 1), uint64(len(looks)/3))
	for i := 0; i < len(looks); i += 3 {
		b = append(b, byte(looks[i].(Kind)))
		b = binary.AppendUvarint(b, uint64(looks[i+1].(int)))
		b = appendString(b, looks[i+2].(string))
	}
	return b
}

func pack(t testing.TB, body []byte) []byte {
	t.Helper()
	enc, err := packer()
	if err != nil {
		t.Fatal(err)
	}
	return enc.EncodeAll(body, nil)
}

func TestDamagedSets(t *testing.T) {
	good := bodyOf(Entry|Content, 0, "", Entry, 0, "a/b", List, 2, "c", Whole, 0, "b")
	bad := map[string][]byte{
		"empty":                []byte{},
		"another header":       []byte("larder looks 2\n\x00"),
		"no parts":             []byte(header),
		"trailing bytes":       append(slices.Clone(good), 0),
		"too many parts":       binary.AppendUvarint([]byte(header), MaxParts+1),
		"parts that are not":   append([]byte(header), 200, 1, 0),
		"looks that are not":   binary.AppendUvarint(append([]byte(header), 1), 1<<40),
		"an endless number":    append([]byte(header), bytes.Repeat([]byte{0xff}, 20)...),
		"a long number":        append([]byte(header), 0x80, 0),
		"no kind":              bodyOf(Kind(0), 0, "a"),
		"an unknown kind":      bodyOf(Kind(64), 0, "a"),
		"a kind that was":      bodyOf(Kind(8), 0, "a"),
		"another":              bodyOf(Entry|Kind(32), 0, ""),
		"twice":                bodyOf(Entry, 0, "a", List, 1, ""),
		"not sorted":           bodyOf(Entry, 0, "b", Entry, 0, "a"),
		"too little in common": bodyOf(Entry, 0, "ab", Entry, 1, "bc"),
		"too much in common":   bodyOf(Entry, 0, "ab", Entry, 3, "c"),
		"a slash in front":     bodyOf(Entry, 0, "/a"),
		"a slash behind":       bodyOf(Entry, 0, "a/"),
		"two slashes":          bodyOf(Entry, 0, "a//b"),
		"the same directory":   bodyOf(Entry, 0, "a/./b"),
		"the one above":        bodyOf(Entry, 0, ".."),
		"a zero byte":          bodyOf(Entry, 0, "a\x00"),
		"a long path":          bodyOf(Entry, 0, strings.Repeat("a/", maxPath/2)+"b"),
	}
	for i := range good {
		bad[fmt.Sprintf("the first %d bytes", i)] = good[:i]
	}
	for name, body := range bad {
		s := Set{[][]Look{{{"kept", Entry}}}}
		err := s.UnmarshalBinary(pack(t, body))
		if !errors.Is(err, tree.ErrDamaged) || s.Parts[0][0].Path != "kept" {
			t.Errorf("%s: %v, %v", name, err, s)
		}
	}
	var s Set
	if err := s.UnmarshalBinary(pack(t, good)); err != nil || len(s.Parts[0]) != 4 || s.Parts[0][2] != (Look{"a/c", List}) {
		t.Errorf("%v, %v", s, err)
	}
	if err := s.UnmarshalBinary(good); !errors.Is(err, tree.ErrDamaged) {
		t.Errorf("not packed: %v", err)
	}
	bomb := pack(t, make([]byte, maxBody+1))
	if err := s.UnmarshalBinary(bomb); !errors.Is(err, tree.ErrDamaged) || !errors.Is(err, zstd.ErrDecoderSizeExceeded) {
		t.Errorf("a body of %d bytes: %v", maxBody+1, err)
	}
}

// TestBoundsOfSets: what would be refused when read is not written, and front-coded paths cannot fill the memory.
func TestBoundsOfSets(t *testing.T) {
	many := make([]Look, MaxLooks+1)
	for i := range many {
		many[i] = Look{fmt.Sprintf("%07d", i), Entry}
	}
	var back Set
	if err := back.UnmarshalBinary(marshal(t, Set{[][]Look{many[:MaxLooks-1], many[:1]}})); err != nil {
		t.Error(err)
	}
	long := strings.Repeat("a", 200)
	var deep []Look
	for i := range maxPaths/4000 + 1 {
		deep = append(deep, Look{strings.Repeat(long+"/", 19) + fmt.Sprintf("%0181d", i), Entry})
	}
	for name, s := range map[string]Set{
		"looks":    {[][]Look{many[:MaxLooks], many[:1]}},
		"parts":    {make([][]Look, MaxParts+1)},
		"paths":    {[][]Look{deep}},
		"a look":   {[][]Look{{{"a", 0}}}},
		"no order": {[][]Look{{{"b", Entry}, {"a", Entry}}}},
	} {
		if _, err := s.MarshalBinary(); err == nil {
			t.Errorf("%s: too many were written", name)
		}
		if err := back.UnmarshalBinary(pack(t, s.appendBody(nil))); !errors.Is(err, tree.ErrDamaged) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// FuzzSet: what is taken is written again as it was, and anything else is damage. b is a body, and once more a stored set.
func FuzzSet(f *testing.F) {
	f.Add(bodyOf(Entry|Content, 0, "", Entry, 0, "a/b", List, 2, "c", Whole, 0, "b"))
	f.Add(Set{[][]Look{{}, {{"a", Entry}}, {{"a", Entry | Content}, {"a.b", Content}, {"a/b", List}}}}.appendBody(nil))
	f.Add([]byte(header + "\x00"))
	f.Add(pack(f, bodyOf(Entry, 0, "a")))
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, blob := range [][]byte{b, pack(t, b)} {
			var s, back Set
			if err := s.UnmarshalBinary(blob); err != nil {
				if !errors.Is(err, tree.ErrDamaged) {
					t.Fatal(err)
				}
				continue
			}
			if err := back.UnmarshalBinary(marshal(t, s)); err != nil || !reflect.DeepEqual(back, s) || back.Digest() != s.Digest() {
				t.Fatalf("%v came back as %v, %v", s, back, err)
			}
			if &blob[0] != &b[0] && !bytes.Equal(s.appendBody(nil), b) {
				t.Fatal("one set has two bodies")
			}
			for _, looks := range s.Parts {
				values(t, looks, tree.Empty())
				if out := reduce(t, looks, tree.Empty(), 3); len(out) > 3 {
					t.Fatalf("%d looks", len(out))
				}
			}
		}
	})
}

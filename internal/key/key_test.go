package key

import (
	"encoding/json"
	"testing"

	"pgregory.net/rapid"
)

// TestFieldsDoNotRunTogether: two different sequences of fields give different keys, whatever their bytes are.
func TestFieldsDoNotRunTogether(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a := rapid.SliceOfN(rapid.StringN(0, 4, 8), 0, 4).Draw(t, "a")
		b := rapid.SliceOfN(rapid.StringN(0, 4, 8), 0, 4).Draw(t, "b")
		sum := func(list []string) Digest {
			h := New("test")
			for _, s := range list {
				h.Str(s)
			}
			return h.Uint(0).Sum()
		}
		same := len(a) == len(b)
		for i := 0; same && i < len(a); i++ {
			same = a[i] == b[i]
		}
		if (sum(a) == sum(b)) != same {
			t.Fatalf("%q and %q: equal keys %v, equal fields %v", a, b, sum(a) == sum(b), same)
		}
	})
}

func TestDomainsAndLists(t *testing.T) {
	keys := map[Digest]string{}
	for name, d := range map[string]Digest{
		"empty":              New("a").Sum(),
		"another domain":     New("b").Sum(),
		"domain in a field":  New("").Str("a").Sum(),
		"one list":           New("a").Strs([]string{"x", "y"}).Sum(),
		"two lists":          New("a").Strs([]string{"x"}).Strs([]string{"y"}).Sum(),
		"digests":            New("a").Digests([]Digest{{1}, {2}}).Sum(),
		"digests, two lists": New("a").Digests([]Digest{{1}}).Digests([]Digest{{2}}).Sum(),
		"true":               New("a").Bool(true).Sum(),
		"false":              New("a").Bool(false).Sum(),
		"minus two":          New("a").Int(-2).Sum(),
	} {
		if other, ok := keys[d]; ok {
			t.Errorf("%s and %s have the same key", name, other)
		}
		keys[d] = name
	}
}

func TestDigestText(t *testing.T) {
	d := Bytes([]byte("x"))
	for _, v := range []Digest{d, {}} {
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		var back Digest
		if err := json.Unmarshal(b, &back); err != nil || back != v {
			t.Errorf("%s came back as %s, %v", b, back, err)
		}
	}
	if got, err := FromOCI(d.OCI()); err != nil || got != d {
		t.Errorf("%s, %v", got, err)
	}
	for _, bad := range []string{"", "sha256:", "sha256:zz", "md5:" + d.Hex(), d.String() + "0", d.Hex(), "sha256:" + d.Hex()[:62] + "zz"} {
		if _, err := Parse(bad); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}

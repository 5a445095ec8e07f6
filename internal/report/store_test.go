package report

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"

	"larder/internal/key"
	"larder/internal/observation"
)

// sample is a build with one of everything.
func sample(t testing.TB) *Build {
	s := shelf{}
	b := bundle().built(t, s)
	run := &b.Steps[0]
	run.Took, run.Why = 12*time.Second, []Cause{{Kind: Files, Text: "COPY . . changed /a; this step read it", Paths: []string{"a"}, More: 2}}
	b.Took, b.Context, b.Target = 41*time.Second, ".", "release"
	return b
}

func TestMarshal(t *testing.T) {
	b := sample(t)
	data, err := b.Marshal(1 << 20)
	if err != nil {
		t.Fatal(err)
	}
	got, err := Unmarshal(data)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, b) {
		t.Errorf("%+v came back as %+v", b, got)
	}
	if text, _ := json.Marshal(b); bytes.Contains(text, []byte("Root")) || !bytes.Contains(text, []byte(`{"path":"app/.babelrc","kind":1,"value":"`)) {
		t.Errorf("JSON is %s", text)
	}
}

// TestMarshalLimit leaves out the looks of the steps that have most, then the causes, and says so when that is too little.
func TestMarshalLimit(t *testing.T) {
	b := &Build{ID: "x"}
	for i, n := range []int{10, 3000, 30, 2000} {
		g := Group{Observed: true, Seen: []Seen{}}
		for j := range n {
			d := key.Bytes(fmt.Append(nil, i, j))
			g.Seen = append(g.Seen, Seen{Path: d.Hex()[:20], Kind: observation.Entry, Value: Value(d[:8])})
		}
		b.Steps = append(b.Steps, Step{Name: fmt.Sprint(i), Inputs: []Input{{Place: "/", Groups: []Group{g}}}, Why: []Cause{{Kind: New, Text: "new"}}})
	}
	full, err := b.Marshal(1 << 20)
	if err != nil {
		t.Fatal(err)
	}
	kept := func(limit int) (looks []int, causes int) {
		data, err := b.Marshal(limit)
		if err != nil {
			t.Fatalf("%d bytes: %v", limit, err)
		}
		if len(data) > limit {
			t.Errorf("%d bytes are more than %d", len(data), limit)
		}
		got, err := Unmarshal(data)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range got.Steps {
			looks, causes = append(looks, s.looks()), causes+len(s.Why)
			if s.looks() == 0 && s.Inputs[0].Groups[0].Seen != nil {
				t.Error("looks that were left out are known to be none")
			}
		}
		return looks, causes
	}
	for _, c := range []struct {
		limit, causes int
		looks         []int
	}{
		{len(full), 4, []int{10, 3000, 30, 2000}}, {len(full) - 1, 4, []int{10, 0, 30, 2000}}, {len(full) / 3, 4, []int{10, 0, 30, 0}},
		{600, 4, []int{10, 0, 0, 0}},
	} {
		if looks, causes := kept(c.limit); fmt.Sprint(looks) != fmt.Sprint(c.looks) || causes != c.causes {
			t.Errorf("%d bytes hold looks %v and %d causes, want %v and %d", c.limit, looks, causes, c.looks, c.causes)
		}
	}
	if b.Steps[1].looks() != 3000 || b.Steps[0].Why == nil {
		t.Error("Marshal changed the build")
	}
	if _, err := b.Marshal(20); !errors.Is(err, ErrLarge) {
		t.Errorf("20 bytes: %v", err)
	}
}

// TestOddNames stores what JSON can have.
func TestOddNames(t *testing.T) {
	b := &Build{Steps: []Step{{Inputs: []Input{{Groups: []Group{{Seen: []Seen{{Path: "a\xff"}, {Path: "b"}}}, {Seen: []Seen{{Path: "b\x01\u2028"}}}}}}}}}
	data, err := b.Marshal(1 << 20)
	if err != nil {
		t.Fatal(err)
	}
	got, err := Unmarshal(data)
	if err != nil {
		t.Fatal(err)
	}
	groups := got.Steps[0].Inputs[0].Groups
	if groups[0].Seen != nil {
		t.Errorf("looks of which one is left out count as all there were: %+v", groups[0].Seen)
	}
	if seen := groups[1].Seen; len(seen) != 1 || seen[0].Path != "b\x01\u2028" {
		t.Errorf("%+v", seen)
	}
}

func packed(t testing.TB, text string) []byte {
	enc, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	return enc.EncodeAll([]byte(text), nil)
}

func TestUnmarshalDamaged(t *testing.T) {
	one := func(seen string) string { return `{"steps":[{"inputs":[{"groups":[{"seen":[` + seen + `]}]}]}]}` }
	for name, data := range map[string][]byte{
		"empty":          nil,
		"no zstd":        []byte("{}"),
		"no JSON":        packed(t, "{"),
		"many objects":   packed(t, `{"steps":[`+strings.Repeat(`{},`, maxObjects)+`{}]}`),
		"many steps":     packed(t, `{"steps":[`+strings.Repeat(`{},`, maxSteps)+`{}]}`),
		"many strings":   packed(t, `{"steps":[{"recipe":{"args":[`+strings.Repeat(`"",`, maxValues)+`"",""]}}]}`),
		"much":           packed(t, `{"id":"`+strings.Repeat("x", maxDecoded)+`"}`),
		"a slash":        packed(t, one(`{"path":"/a","kind":1,"value":"0000000000000000"}`)),
		"dots":           packed(t, one(`{"path":"a/../b","kind":1,"value":"0000000000000000"}`)),
		"a kind":         packed(t, one(`{"path":"a","kind":64,"value":"0000000000000000"}`)),
		"a short value":  packed(t, one(`{"path":"a","kind":1,"value":"00"}`)),
		"no hex":         packed(t, one(`{"path":"a","kind":1,"value":"000000000000000g"}`)),
		"another's look": packed(t, one(`7`)),
	} {
		if _, err := Unmarshal(data); err == nil {
			t.Errorf("%s: read", name)
		}
	}
}

// FuzzUnmarshal reads damage without a panic; what can be read can be compared, carried on, shown and written again.
func FuzzUnmarshal(f *testing.F) {
	data, err := sample(f).Marshal(1 << 20)
	if err != nil {
		f.Fatal(err)
	}
	dec, _ := zstd.NewReader(nil)
	text, err := dec.DecodeAll(data, nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Add([]byte(`{"steps":[{"name":"[1/2] RUN a","type":"run","inputs":[{"place":"/","groups":[{"observed":true,"seen":[{"path":"","kind":63,"value":"0000000000000000"}]}]}]}]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		b, err := parse(text) // compressing takes nearly all of the time
		if err != nil {
			return
		}
		s, story := shelf{}, bundle()
		Causes(b, []string{story.step.Name}, story.today(t, s), s.open)
		var out bytes.Buffer
		if err := Text(&out, b, now); err != nil {
			t.Fatal(err)
		}
		for i := range b.Steps {
			Causes(b, nil, &b.Steps[i], s.open)
			if err := Reads(&out, b, b.Steps[i].Name); err != nil {
				continue
			}
		}
		if strings.ContainsRune(out.String(), '\x1b') {
			t.Error("it writes control characters to the terminal")
		}
		Carry(&Build{Steps: []Step{*story.today(t, s)}}, b)
		again, err := json.Marshal(b)
		if err != nil {
			t.Fatal(err)
		}
		if b2, err := parse(again); err != nil {
			t.Error(err)
		} else if x, y := string(again), must(json.Marshal(b2)); x != y {
			t.Errorf("%s came back as %s", x, y)
		}
	})
}

func must(b []byte, err error) string {
	if err != nil {
		return err.Error()
	}
	return string(b)
}

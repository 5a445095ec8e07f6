package inline

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"pgregory.net/rapid"

	"larder/internal/catalog"
	"larder/internal/key"
	"larder/internal/record"
)

var day = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func digestOf(s string) key.Digest { return key.Bytes([]byte(s)) }

func copyOf(s string) catalog.Blob {
	return catalog.Blob{
		Key:    digestOf("key of " + s),
		Desc:   ocispecs.Descriptor{MediaType: ocispecs.MediaTypeImageLayerGzip, Digest: digestOf("blob of " + s).OCI(), Size: int64(len(s))},
		DiffID: digestOf("tar of " + s).OCI(),
	}
}

func recordOf(name string, layers ...string) *record.Record {
	r := &record.Record{Key: digestOf("key of " + name), Name: name, Created: day, Duration: time.Second}
	for _, l := range layers {
		r.Outputs = append(r.Outputs, record.Output{Layers: []record.Layer{{Identity: digestOf(l), Pinned: true}}})
	}
	return r
}

// dataOf says: two stages, the image has the layers of the last.
func dataOf() *Data {
	return &Data{
		Records: []*record.Record{recordOf("RUN make", "builder"), recordOf("RUN install", "final"), {Key: digestOf("resolution"), Created: day, Data: []byte("x")}},
		Layers:  map[key.Digest][]catalog.Blob{digestOf("final"): {copyOf("final")}},
	}
}

func configWith(t testing.TB, value []byte) []byte {
	t.Helper()
	b, err := json.Marshal(map[string]json.RawMessage{"os": json.RawMessage(`"linux"`), "architecture": json.RawMessage(`"amd64"`), Field: value})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestRoundTrip(t *testing.T) {
	d := dataOf()
	d.Records[0].From = "main"
	value, err := d.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	got, ok, err := FromConfig(configWith(t, value))
	if err != nil || !ok {
		t.Fatal(ok, err)
	}
	if !reflect.DeepEqual(got.Layers, d.Layers) || len(got.Records) != 3 {
		t.Errorf("%+v", got)
	}
	r := got.Reader()
	ctx := context.Background()
	for _, want := range d.Records {
		e, ok := r.Record(ctx, want.Key)
		w := *want
		w.From = ""
		if w.Name == "RUN make" {
			w.Name = "" // of another stage
		}
		if !ok || !reflect.DeepEqual(*e.Record, w) || !e.Used.Equal(day) {
			t.Errorf("%+v, want %+v", e.Record, w)
		}
	}
	if d.Records[0].From != "main" || d.Records[0].Name != "RUN make" {
		t.Error("Marshal changed its input")
	}
	if _, ok := r.Record(ctx, digestOf("nothing")); ok {
		t.Error("a record of an unknown key")
	}
	if got := r.Layer(ctx, digestOf("final")); len(got) != 1 || got[0].Desc.Size != 5 {
		t.Error(got)
	}
	if got := r.Layer(ctx, digestOf("builder")); len(got) != 0 {
		t.Error(got)
	}
	if _, ok := r.Tree(ctx, digestOf("final")); ok {
		t.Error("a tree")
	}
	if d, ok, err := FromConfig([]byte(`{"os":"linux"}`)); d != nil || ok || err != nil {
		t.Error(d, ok, err)
	}
}

// TestNothingOfOtherStages: an image is published, its builder stage is not.
func TestNothingOfOtherStages(t *testing.T) {
	value, err := dataOf().Marshal()
	if err != nil {
		t.Fatal(err)
	}
	if text := decoded(t, value); strings.Contains(text, "RUN make") || !strings.Contains(text, "RUN install") {
		t.Error(text)
	}
}

func decoded(t testing.TB, value []byte) string {
	t.Helper()
	var packed []byte
	if err := json.Unmarshal(value, &packed); err != nil {
		t.Fatal(err)
	}
	dec, err := zstd.NewReader(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer dec.Close()
	b, err := dec.DecodeAll(packed, nil)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestSameDataSameBytes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := &Data{Layers: map[key.Digest][]catalog.Blob{}}
		for i := range rapid.IntRange(0, 20).Draw(t, "records") {
			r := recordOf(fmt.Sprint("step ", i), fmt.Sprint("layer ", i))
			d.Records = append(d.Records, r)
			if rapid.Bool().Draw(t, "in the image") {
				d.Layers[digestOf(fmt.Sprint("layer ", i))] = []catalog.Blob{copyOf(fmt.Sprint("layer ", i))}
			}
		}
		first, err := d.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		shuffled := &Data{Records: rapid.Permutation(d.Records).Draw(t, "order"), Layers: map[key.Digest][]catalog.Blob{}}
		for id, copies := range d.Layers {
			shuffled.Layers[id] = copies
		}
		if len(d.Records) > 0 { // another record of a key that is there already
			late := *d.Records[0]
			late.Duration++
			shuffled.Records = append(shuffled.Records, &late)
		}
		second, err := shuffled.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(first, second) {
			t.Fatal("the same data give other bytes")
		}
		got, _, err := FromConfig(append(append([]byte(`{"larder.cache.v1":`), first...), '}'))
		if err != nil || len(got.Records) != len(d.Records) || len(got.Layers) != len(d.Layers) {
			t.Fatal(got, err)
		}
	})
}

func TestClamped(t *testing.T) {
	d := dataOf()
	epoch := day.Add(-time.Hour)
	later := dataOf()
	for _, r := range later.Records {
		r.Created, r.Duration = r.Created.Add(time.Minute), 7*time.Second
	}
	a, err := d.Clamped(epoch).Marshal()
	if err != nil {
		t.Fatal(err)
	}
	b, err := later.Clamped(epoch).Marshal()
	if err != nil || !bytes.Equal(a, b) {
		t.Error("two runs under one epoch differ", err)
	}
	if !d.Records[0].Created.Equal(day) {
		t.Error("Clamped changed its input")
	}
	if c := d.Clamped(day.Add(time.Hour)).Records[0].Created; !c.Equal(day) {
		t.Error("an older record has got the epoch's time", c)
	}
}

// TestDamage spoils an image's records in every way that a registry or an attacker can think of: an error, never a panic, never
// something that was not written.
func TestDamage(t *testing.T) {
	value, err := dataOf().Marshal()
	if err != nil {
		t.Fatal(err)
	}
	var packed []byte
	if err := json.Unmarshal(value, &packed); err != nil {
		t.Fatal(err)
	}
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	for range 2000 {
		b := slices.Clone(packed)
		switch rnd.IntN(3) {
		case 0:
			b = b[:rnd.IntN(len(b))]
		case 1:
			b[rnd.IntN(len(b))] ^= byte(1 << rnd.IntN(8))
		case 2:
			b = append(b, byte(rnd.Uint32()))
		}
		field, _ := json.Marshal(b)
		d, ok, err := FromConfig(configWith(t, field))
		if err == nil && !ok {
			t.Fatal("damage is no absence")
		}
		if err == nil && !reflect.DeepEqual(mustMarshal(t, d), value) {
			t.Fatalf("other records than were written, by flipping bits: %x", b)
		}
	}
	for name, text := range map[string]string{
		"null":             `null`,
		"a list":           `[]`,
		"a newer format":   `{"version":2}`,
		"no key":           `{"version":1,"records":[{"name":"x"}]}`,
		"a null record":    `{"version":1,"records":[null]}`,
		"records as text":  `{"version":1,"records":"x"}`,
		"too many records": `{"version":1,"records":[` + strings.Repeat(`{},`, maxRecords) + `{}]}`,
		"a base below":     `{"version":1,"records":[{"key":"` + digestOf("k").String() + `","outputs":[{"base":-2}]}]}`,
		"no identity":      `{"version":1,"records":[{"key":"` + digestOf("k").String() + `","outputs":[{"layers":[{}]}]}]}`,
		"a long name":      `{"version":1,"records":[{"key":"` + digestOf("k").String() + `","name":"` + strings.Repeat("x", maxName+1) + `"}]}`,
		"too much with it": `{"version":1,"records":[{"key":"` + digestOf("k").String() + `","with":[` + strings.Repeat(`"",`, maxOutputs) + `""]}]}`,
		"no copy":          `{"version":1,"layers":{"` + digestOf("k").String() + `":[{}]}}`,
		"no layer":         `{"version":1,"layers":{"":[]}}`,
		"a bad digest":     `{"version":1,"layers":{"` + digestOf("k").String() + `":[{"key":"` + digestOf("k").String() + `","type":"t","size":1,"digest":"sha256:12","diffID":"` + digestOf("k").String() + `"}]}}`,
		"a negative size":  `{"version":1,"layers":{"` + digestOf("k").String() + `":[{"key":"` + digestOf("k").String() + `","type":"t","size":-1,"digest":"` + digestOf("k").String() + `","diffID":"` + digestOf("k").String() + `"}]}}`,
		"a bomb":           strings.Repeat(" ", maxDecoded+1),
	} {
		if d, ok, err := FromConfig(configWith(t, pack(t, text))); err == nil || !ok || d != nil {
			t.Errorf("%s: %v %v %v", name, d, ok, err)
		}
	}
	for name, field := range map[string]string{"a number": `1`, "no base64": `"!"`, "null": `null`, "an object": `{}`} {
		if d, ok, err := FromConfig(configWith(t, []byte(field))); err == nil || !ok {
			t.Errorf("%s: %v %v", name, d, ok)
		}
	}
	for name, config := range map[string][]byte{"nothing": nil, "text": []byte("x"), "a list": []byte("[]"), "too large": make([]byte, maxConfig+1)} {
		if _, ok, err := FromConfig(config); err == nil || ok {
			t.Errorf("%s: %v %v", name, ok, err)
		}
	}
}

// TestSmallConfigsThatGrow: a few hundred bytes that unpack to millions of empty things are refused before those are made.
func TestSmallConfigsThatGrow(t *testing.T) {
	k := digestOf("k").String()
	for name, c := range map[string]struct{ before, each, after string }{
		"records": {`{"version":1,"records":[`, `{}`, `]}`},
		"outputs": {`{"version":1,"records":[{"key":"` + k + `","outputs":[`, `{}`, `]}]}`},
		"layers":  {`{"version":1,"records":[{"key":"` + k + `","outputs":[{"layers":[`, `{}`, `]}]}]}`},
		"keys":    {`{"version":1,"records":[{"key":"` + k + `","with":[`, `""`, `]}]}`},
		"copies":  {`{"version":1,"layers":{"` + k + `":[`, `{}`, `]}}`},
	} {
		for _, n := range []int{1_300_000, maxValues/2 - 10} {
			config := configWith(t, pack(t, c.before+strings.Repeat(c.each+",", n-1)+c.each+c.after))
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			_, ok, err := FromConfig(config)
			runtime.ReadMemStats(&after)
			if took := after.TotalAlloc - before.TotalAlloc; err == nil || !ok || took > 160<<20 || n > maxValues && took > 20<<20 {
				t.Errorf("%d %s: a config of %d bytes takes %d bytes of memory, %v", n, name, len(config), took, err)
			}
		}
	}
}

func mustMarshal(t testing.TB, d *Data) []byte {
	t.Helper()
	b, err := d.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func pack(t testing.TB, text string) []byte {
	t.Helper()
	enc, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer enc.Close()
	b, err := json.Marshal(enc.EncodeAll([]byte(text), nil))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestLimits: what Marshal gives can be read again, and what could not be is refused by name.
func TestLimits(t *testing.T) {
	var large Data
	for i := range 4000 {
		r := recordOf(fmt.Sprint("RUN step ", i), fmt.Sprint("layer ", i))
		large.Records = append(large.Records, r)
	}
	value := mustMarshal(t, &large)
	if d, _, err := FromConfig(configWith(t, value)); err != nil || len(d.Records) != 4000 {
		t.Error(err)
	}
	t.Logf("4000 records take %d bytes of config, %d of JSON", len(value), len(decoded(t, value)))
	small := &Data{Layers: map[key.Digest][]catalog.Blob{}}
	for i := range 150 {
		small.Records = append(small.Records, &record.Record{Key: digestOf(fmt.Sprint(i)), Created: day, Outputs: make([]record.Output, maxOutputs)})
	}
	if d, _, err := FromConfig(configWith(t, mustMarshal(t, small))); err != nil || len(d.Records) != 150 {
		t.Error(err)
	}
	for i := range 20_000 {
		large.Records = append(large.Records, recordOf(fmt.Sprint("more ", i), fmt.Sprint("layer ", i)))
	}
	if _, err := large.Marshal(); err == nil {
		t.Error("records without end")
	}
	long := &Data{Records: []*record.Record{recordOf(strings.Repeat("x", maxName+1), "a")}, Layers: map[key.Digest][]catalog.Blob{digestOf("a"): {copyOf("a")}}}
	if _, err := long.Marshal(); err == nil {
		t.Error("a name without end")
	}
}

func FuzzFromConfig(f *testing.F) {
	f.Add([]byte(decoded(f, mustMarshal(f, dataOf()))))
	f.Add([]byte(`{"version":1,"records":[{}]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		d, err := decode(text)
		if err != nil || len(text) > maxDecoded {
			return
		}
		if _, err := d.Marshal(); err != nil {
			t.Errorf("what was read cannot be written: %v", err)
		}
	})
}

package catalog

import (
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"

	"larder/internal/key"
	"larder/internal/record"
)

// TestSmallPagesThatGrow: a page of some kilobytes that unpacks to millions of empty things is refused before they are made, and one that is
// just within the bounds takes no memory to speak of.
func TestSmallPagesThatGrow(t *testing.T) {
	const head = `{"version":1,"scope":"main","time":"2030-01-01T00:00:00Z",`
	k := keyOf("k").String()
	enc, err := compressor()
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct{ before, each, after string }{
		"records":           {head + `"records":[`, `{"record":{}}`, `]}`},
		"no records":        {head + `"records":[`, `{}`, `]}`},
		"outputs":           {head + `"records":[{"record":{"key":"` + k + `","outputs":[`, `{}`, `]}}]}`},
		"layers of a step":  {head + `"records":[{"record":{"key":"` + k + `","outputs":[{"layers":[`, `{}`, `]}]}}]}`},
		"keys":              {head + `"records":[{"record":{"key":"` + k + `","with":[`, `""`, `]}}]}`},
		"copies":            {head + `"layers":{"` + k + `":[`, `{}`, `]}}`},
		"layers":            {head + `"layers":{`, `"` + k + `":[{}]`, `}}`},
		"trees":             {head + `"trees":{`, `"` + k + `":{}`, `}}`},
		"mounts":            {head + `"mounts":[`, `{}`, `]}`},
		"segments":          {head + `"mounts":[{"key":"` + k + `","segments":[`, `{}`, `]}]}`},
		"packs":             {head + `"mounts":[{"key":"` + k + `","segments":[{"packs":[`, `{}`, `]}]}]}`},
		"pages":             {head + `"pages":[`, `{}`, `]}`},
		"old pages":         {head + `"retired":[`, `{}`, `]}`},
		"nobody knows what": {head + `"more":[`, `[{"a":[]}]`, `]}`},
	} {
		for size, most := range map[string]int{"far beyond": 2_000_000, "just within": maxValues(maxFirst) / CountJSON([]byte(c.each))} {
			n := min(most, (maxFirst-1000)/(len(c.each)+1))
			blob := enc.EncodeAll([]byte(c.before+strings.TrimSuffix(strings.Repeat(c.each+",", n), ",")+c.after), nil)
			_, took, err := measured(func() (*page, error) { return decodeFirst(blob) })
			if err == nil && !(name == "nobody knows what" && size == "just within") && name != "layers" && name != "trees" {
				t.Errorf("%s, %s: believed", name, size)
			}
			if limit := uint64(100 << 20); took > limit {
				t.Errorf("%s, %s: a page of %d bytes takes %d bytes of memory", name, size, len(blob), took)
			}
			if _, took, err := measured(func() (*page, error) { return decodeFurther(blob) }); err == nil || took > 20<<20 {
				t.Errorf("%s, %s: as a further page it takes %d bytes of memory, %v", name, size, took, err)
			}
		}
	}
	doc := `{"config":{"mediaType":"` + pageMediaType + `"},"annotations":{},"layers":[` + strings.TrimSuffix(strings.Repeat("{},", 1_300_000), ",") + `]}`
	if _, took, _ := measured(func() (*page, error) { parse([]byte(doc)); return nil, nil }); took > 20<<20 {
		t.Errorf("a document of %d bytes takes %d", len(doc), took)
	}
}

// measured tells how many bytes a function allocates, all in all.
func measured(f func() (*page, error)) (*page, uint64, error) {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	p, err := f()
	runtime.ReadMemStats(&after)
	return p, after.TotalAlloc - before.TotalAlloc, err
}

// TestWhatIsWrittenIsRead, records of many small things too, in as many pages as it takes.
func TestWhatIsWrittenIsRead(t *testing.T) {
	bubble(t, func(t *testing.T) {
		m := newMemory("registry.example/app")
		var c Change
		for i := range 40 {
			r := &record.Record{Key: keyOf(fmt.Sprint(i)), Created: epoch, Outputs: make([]record.Output, maxOutputs)}
			if i%2 == 0 {
				r.With = slices.Repeat([]key.Digest{keyOf("with")}, maxOutputs)
			}
			c.Put = append(c.Put, Put{Record: r})
		}
		tooMany := &record.Record{Key: keyOf("too many"), With: make([]key.Digest, maxOutputs+1)}
		c.Put = append(c.Put, Put{Record: tooMany})
		if saved := mustSave(t, m, mainScope, c, Options{Limits: Limits{Page: 1000, Pages: 1000}}); saved.Refused != 1 || saved.Records != 40 {
			t.Errorf("%+v", saved)
		}
		cat := mustLoad(t, m, mainScope, Options{})
		if n := len(cat.Entries(t.Context())); n != 40 || cat.Pages() < 2 || cat.Pages() > maxPages {
			t.Errorf("%d records in %d further pages", n, cat.Pages())
		}
	})
}

package inline

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/klauspost/compress/zstd"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"larder/internal/catalog"
	"larder/internal/key"
	"larder/internal/record"
)

// Field is the field of an image's config in which the records lie.
const Field = "larder.cache.v1"

// Data is what an image says of the steps that made it. Records may name layers that the image does not have: those of other
// stages.
type Data struct {
	Records []*record.Record
	// Layers are the image's layers that larder made, by identity.
	Layers map[key.Digest][]catalog.Blob
}

// Marshal gives the value of Field, a JSON string. The same data give the same bytes, in whatever order the records are. Of two
// records of a key the first counts. Where there is not room for all, hints are left out.
//
// A record keeps its name only where a layer that it made is in the image: that one's history has it too. What the commands of
// other stages were is not told to those who get the image, nor what they looked at: see own.
func (d *Data) Marshal() ([]byte, error) {
	d = d.own()
	b, err := d.marshal()
	if full := new(fullError); errors.As(err, &full) {
		b, err = d.withoutHints().marshal()
	}
	return b, err
}

// fullError says that records do not go into a config.
type fullError struct{ bytes, records int }

func (e *fullError) Error() string {
	return fmt.Sprintf("inline cache: %d bytes of records for %d steps do not go into an image's config; use --cache REF", e.bytes, e.records)
}

func (d *Data) marshal() ([]byte, error) {
	doc := document{Version: version, Layers: map[key.Digest][]blob{}}
	seen := map[key.Digest]bool{}
	for _, r := range d.Records {
		if seen[r.Key] {
			continue
		}
		seen[r.Key] = true
		c := *r
		c.From = ""
		if !d.holds(r) {
			c.Name = ""
		}
		doc.Records = append(doc.Records, &c)
	}
	slices.SortFunc(doc.Records, func(a, b *record.Record) int { return bytes.Compare(a.Key[:], b.Key[:]) })
	for id, copies := range d.Layers {
		for _, c := range copies {
			doc.Layers[id] = append(doc.Layers[id], blob{c.Key, c.Desc.MediaType, c.Desc.Digest, c.Desc.Size, c.DiffID})
		}
	}
	if err := doc.check(); err != nil {
		return nil, fmt.Errorf("inline cache: %w", err)
	}
	b, err := json.Marshal(doc)
	if err != nil {
		return nil, fmt.Errorf("inline cache: %w", err)
	}
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(zstd.SpeedBetterCompression))
	if err != nil {
		return nil, err
	}
	defer enc.Close()
	packed := enc.EncodeAll(b, nil)
	if len(b) > maxDecoded || len(packed) > maxPacked {
		return nil, &fullError{len(packed), len(doc.Records)}
	}
	return json.Marshal(packed) // base64
}

// holds tells whether some layer that a record made is in the image.
func (d *Data) holds(r *record.Record) bool {
	for _, o := range r.Outputs {
		for _, l := range o.Layers {
			if len(d.Layers[l.Identity]) > 0 {
				return true
			}
		}
	}
	return false
}

// own gives the data without hints that lead to no layer of the image, and without the records that are found through these: what other
// stages' commands looked at is theirs. Their exact records stay, and name nothing that is not here.
func (d *Data) own() *Data {
	records, hint := map[key.Digest]*record.Record{}, map[key.Digest]bool{}
	for _, r := range d.Records {
		if records[r.Key] == nil {
			records[r.Key], hint[r.Key] = r, r.OnlyHint()
		}
	}
	reached := map[key.Digest]bool{}
	var reach func(k key.Digest)
	reach = func(k key.Digest) {
		if r := records[k]; r != nil && !reached[k] {
			reached[k] = true
			for _, k := range r.With {
				reach(k)
			}
		}
	}
	for k, r := range records {
		if d.holds(r) {
			reach(k)
		}
	}
	here := map[key.Digest]bool{}
	for k, r := range records {
		here[k] = reached[k] || !hint[k] && !slices.ContainsFunc(r.With, func(k key.Digest) bool { return hint[k] })
	}
	out := &Data{Layers: d.Layers}
	for k, r := range records {
		switch {
		case reached[k]:
			out.Records = append(out.Records, r)
		case here[k]:
			c := *r
			c.Hint = nil
			c.With = slices.DeleteFunc(slices.Clone(r.With), func(k key.Digest) bool { return !here[k] })
			out.Records = append(out.Records, &c)
		}
	}
	return out
}

// Clamped gives the data for an image whose times must not depend on when it was built (SOURCE_DATE_EPOCH): no record is younger
// than the epoch or says how long its step ran, and there are no hints: which lists and path sets there are depends on earlier builds.
func (d *Data) Clamped(epoch time.Time) *Data {
	epoch = epoch.UTC().Truncate(time.Second)
	out := &Data{Layers: d.Layers}
	for _, r := range d.withoutHints().Records {
		c := *r
		if c.Created.After(epoch) {
			c.Created = epoch
		}
		c.Duration = 0
		out.Records = append(out.Records, &c)
	}
	return out
}

// withoutHints gives the data without records that are only hints or keep some, which are found through them. Nor do others name them, or
// what else is not here.
func (d *Data) withoutHints() *Data {
	hint, here := map[key.Digest]bool{}, map[key.Digest]bool{}
	for _, r := range d.Records {
		hint[r.Key] = r.OnlyHint()
	}
	for _, r := range d.Records {
		here[r.Key] = !hint[r.Key] && !slices.ContainsFunc(r.With, func(k key.Digest) bool { return hint[k] })
	}
	out := &Data{Layers: d.Layers}
	for _, r := range d.Records {
		if !here[r.Key] {
			continue
		}
		c := *r
		c.Hint = nil
		c.With = slices.DeleteFunc(slices.Clone(r.With), func(k key.Digest) bool { return !here[k] })
		out.Records = append(out.Records, &c)
	}
	return out
}

var decoder = sync.OnceValues(func() (*zstd.Decoder, error) {
	return zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(maxDecoded))
})

// FromConfig reads the records of an image's config; false where it has none. An error says that they are damaged, which counts
// as none (DESIGN invariant 2), or that the config is none.
func FromConfig(config []byte) (*Data, bool, error) {
	if len(config) > maxConfig {
		return nil, false, fmt.Errorf("an image config of %d bytes (the limit is %d)", len(config), maxConfig)
	}
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(config, &fields); err != nil {
		return nil, false, fmt.Errorf("image config: %w", err)
	}
	field, ok := fields[Field]
	if !ok {
		return nil, false, nil
	}
	d, err := unpack(field)
	if err != nil {
		return nil, true, fmt.Errorf("inline cache: %w", err)
	}
	return d, true, nil
}

func unpack(field []byte) (*Data, error) {
	var packed []byte
	if err := json.Unmarshal(field, &packed); err != nil {
		return nil, err
	}
	if len(packed) > maxPacked {
		return nil, fmt.Errorf("%d bytes (the limit is %d)", len(packed), maxPacked)
	}
	dec, err := decoder()
	if err != nil {
		return nil, err
	}
	b, err := dec.DecodeAll(packed, nil)
	if err != nil {
		return nil, err
	}
	return decode(b)
}

func decode(b []byte) (*Data, error) {
	var doc document
	if err := json.Unmarshal(b, &doc); err != nil {
		return nil, err
	}
	if doc.Version != version {
		return nil, fmt.Errorf("format %d is not known; a newer larder wrote it", doc.Version)
	}
	if err := doc.check(); err != nil {
		return nil, err
	}
	d := &Data{Records: doc.Records, Layers: make(map[key.Digest][]catalog.Blob, len(doc.Layers))}
	for id, copies := range doc.Layers {
		for _, c := range copies {
			desc := ocispecs.Descriptor{MediaType: c.Type, Digest: c.Digest, Size: c.Size}
			d.Layers[id] = append(d.Layers[id], catalog.Blob{Key: c.Key, Desc: desc, DiffID: c.DiffID})
		}
	}
	return d, nil
}

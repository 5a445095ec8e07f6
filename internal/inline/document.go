package inline

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/opencontainers/go-digest"

	"larder/internal/catalog"
	"larder/internal/key"
	"larder/internal/record"
)

// Bounds of what is read, whoever wrote it (DESIGN invariant 9), and of what is written, so that it can be read.
const (
	maxConfig  = 8 << 20        // an image's config
	maxPacked  = 1 << 20        // the compressed records
	maxDecoded = 4 << 20        // their JSON
	maxValues  = maxDecoded / 8 // in it; what Marshal writes takes more than eight bytes for each
	maxRecords = 10_000
	maxLayers  = 10_000
	maxCopies  = 16       // of a layer
	maxOutputs = 1_000    // of a record, layers of an output, and keys that a record names
	maxData    = 64 << 10 // Record.Data
	maxHint    = 64 << 10 // Record.Hint
	maxName    = 4 << 10  // Record.Name
)

const version = 1

// document is Data as it is written, before it is compressed.
type document struct {
	Version int                   `json:"version"`
	Records []*record.Record      `json:"records,omitempty"`
	Layers  map[key.Digest][]blob `json:"layers,omitempty"`
}

type blob struct {
	Key    key.Digest    `json:"key"`
	Type   string        `json:"type"`
	Digest digest.Digest `json:"digest"`
	Size   int64         `json:"size"`
	DiffID digest.Digest `json:"diffID"`
}

// UnmarshalJSON counts before it decodes: a list of empty things takes fifty times the memory of its text.
func (doc *document) UnmarshalJSON(b []byte) error {
	if n := catalog.CountJSON(b); n > maxValues {
		return fmt.Errorf("%d values (the limit is %d)", n, maxValues)
	}
	type plain document
	return json.Unmarshal(b, (*plain)(doc))
}

// check finds what no build writes.
func (doc *document) check() error {
	if len(doc.Records) > maxRecords || len(doc.Layers) > maxLayers {
		return fmt.Errorf("%d records and %d layers (the limits are %d and %d)", len(doc.Records), len(doc.Layers), maxRecords, maxLayers)
	}
	for _, r := range doc.Records {
		if r == nil {
			return errors.New("a record is missing")
		}
		if err := checkRecord(r); err != nil {
			return fmt.Errorf("record %s: %w", r.Key, err)
		}
	}
	for id, copies := range doc.Layers {
		if id.IsZero() || len(copies) > maxCopies {
			return fmt.Errorf("layer %s: %d copies", id, len(copies))
		}
		for _, b := range copies {
			if err := checkBlob(b); err != nil {
				return fmt.Errorf("layer %s: %w", id, err)
			}
		}
	}
	return nil
}

func checkRecord(r *record.Record) error {
	if r.Key.IsZero() || len(r.Name) > maxName || len(r.Data) > maxData || len(r.Hint) > maxHint || len(r.Outputs) > maxOutputs || len(r.With) > maxOutputs || r.Duration < 0 {
		return errors.New("it has no key, or is too large")
	}
	for _, o := range r.Outputs {
		if o.Base < -1 || len(o.Layers) > maxOutputs {
			return errors.New("an output that cannot be")
		}
		for _, l := range o.Layers {
			if l.Identity.IsZero() {
				return errors.New("a layer without identity")
			}
		}
	}
	return nil
}

func checkBlob(b blob) error {
	if _, err := key.FromOCI(b.Digest); err != nil {
		return err
	}
	if _, err := key.FromOCI(b.DiffID); err != nil {
		return err
	}
	if b.Size <= 0 || b.Type == "" || len(b.Type) > 255 || b.Key.IsZero() {
		return errors.New("an incomplete copy")
	}
	return nil
}

package inline

import (
	"context"

	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"larder/internal/catalog"
	"larder/internal/key"
	"larder/internal/record"
)

// Reader looks things up in d, which must not change any more. There are no trees and no cache mounts in it. What is not known of a record, when it
// was used last, is when it was made.
func (d *Data) Reader() catalog.Reader {
	r := reader{records: make(map[key.Digest]*record.Record, len(d.Records)), layers: d.Layers}
	for _, rec := range d.Records {
		if _, ok := r.records[rec.Key]; !ok {
			r.records[rec.Key] = rec
		}
	}
	return r
}

type reader struct {
	records map[key.Digest]*record.Record
	layers  map[key.Digest][]catalog.Blob
}

func (r reader) Record(_ context.Context, k key.Digest) (catalog.Entry, bool) {
	rec, ok := r.records[k]
	if !ok {
		return catalog.Entry{}, false
	}
	return catalog.Entry{Record: rec, Used: rec.Created}, true
}

func (reader) Tree(context.Context, key.Digest) (ocispecs.Descriptor, bool) {
	return ocispecs.Descriptor{}, false
}

func (reader) Mount(context.Context, key.Digest) (catalog.Mount, bool) { return catalog.Mount{}, false }

func (r reader) Layer(_ context.Context, identity key.Digest) []catalog.Blob {
	return r.layers[identity]
}

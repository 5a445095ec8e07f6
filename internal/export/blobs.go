package export

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"larder/internal/content"
	"larder/internal/image"
	"larder/internal/layer"
)

// Item is one blob of an image: a document or a layer.
type Item struct {
	Desc ocispecs.Descriptor
	// Layer is set for a layer.
	Layer *layer.Blob
	// Open gives the bytes, verified, from the beginning each time.
	Open func(ctx context.Context) (io.ReadCloser, error)
}

// Items lists the blobs of an image, each once: the layers, then the configs, then the manifests, then the index, so that
// whatever a blob names stands before it.
func Items(img *image.Image, store *content.Store) []Item {
	var out []Item
	seen := map[digest.Digest]bool{}
	add := func(it Item) {
		if !seen[it.Desc.Digest] {
			seen[it.Desc.Digest] = true
			out = append(out, it)
		}
	}
	for _, m := range img.Manifests {
		for i, b := range m.Layers {
			add(Item{Desc: m.LayerDescs[i], Layer: b, Open: func(ctx context.Context) (io.ReadCloser, error) { return OpenLayer(ctx, store, b) }})
		}
	}
	for _, m := range img.Manifests {
		add(Item{Desc: m.ConfigDesc, Open: inMemory(m.Config)})
	}
	for _, m := range img.Manifests {
		add(Item{Desc: m.Desc, Open: inMemory(m.Bytes)})
	}
	if img.Index != nil {
		add(Item{Desc: img.Desc, Open: inMemory(img.Index)})
	}
	return out
}

func inMemory(b []byte) func(context.Context) (io.ReadCloser, error) {
	return func(context.Context) (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b)), nil }
}

// OpenLayer gives a layer's compressed bytes, from the local blobs or from where it came.
func OpenLayer(ctx context.Context, store *content.Store, b *layer.Blob) (io.ReadCloser, error) {
	if store != nil {
		rc, err := store.Stream(ctx, b.Desc.Digest)
		if err == nil || b.Fetch == nil || !errors.Is(err, content.ErrNotFound) {
			return rc, err
		}
	}
	if b.Fetch == nil {
		return nil, fmt.Errorf("layer %s: %w", b.Desc.Digest, content.ErrNotFound)
	}
	return b.Fetch(ctx)
}

package snapshot

import (
	"context"
	"fmt"
	"io"

	"larder/internal/key"
	"larder/internal/layer"
	"larder/internal/tree"
)

// unpack streams a layer's blob into dir, from where it comes from or from the local blobs.
func (s *Store) unpack(ctx context.Context, b *layer.Blob, dir string) (*tree.Node, error) {
	fetch := b.Fetch
	if fetch == nil {
		fetch = s.localBlob(b)
	}
	r, err := fetch(ctx)
	if err != nil {
		return nil, fmt.Errorf("fetch %s: %w", b.Desc.Digest, err)
	}
	defer r.Close()
	return layer.UnpackBlob(ctx, r, b.DiffID, dir)
}

func (s *Store) localBlob(b *layer.Blob) func(ctx context.Context) (io.ReadCloser, error) {
	return func(ctx context.Context) (io.ReadCloser, error) {
		d, err := key.FromOCI(b.Desc.Digest)
		if err != nil {
			return nil, err
		}
		r, err := s.opts.Blobs(ctx, b.Desc)
		if err != nil {
			return nil, err
		}
		return struct {
			io.Reader
			io.Closer
		}{layer.Verified(r, d, b.Desc.Size, "layer blob "+b.Desc.Digest.String()), r}, nil
	}
}

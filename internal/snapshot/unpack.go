package snapshot

import (
	"context"
	"errors"
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
		return nil, fmt.Errorf("fetch %s: %w", b.Desc.Digest, &fetchError{err})
	}
	defer r.Close()
	return layer.UnpackBlob(ctx, fetched{r}, b.DiffID, dir)
}

func (s *Store) localBlob(b *layer.Blob) func(ctx context.Context) (io.ReadCloser, error) {
	return func(ctx context.Context) (io.ReadCloser, error) {
		d, err := key.FromOCI(b.Desc.Digest)
		if err != nil {
			return nil, err
		}
		if s.opts.Blobs == nil {
			return nil, errors.New("it is nowhere to be had")
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

// fetchError marks what went wrong where a blob comes from; all else that keeps it from being unpacked is the blob itself
// or this machine.
type fetchError struct{ err error }

func (e *fetchError) Error() string { return e.err.Error() }
func (e *fetchError) Unwrap() error { return e.err }

// fetched is a blob on its way.
type fetched struct{ r io.Reader }

func (f fetched) Read(p []byte) (int, error) {
	n, err := f.r.Read(p)
	if err != nil && err != io.EOF {
		err = &fetchError{err}
	}
	return n, err
}

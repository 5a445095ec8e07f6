package snapshot

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"larder/internal/key"
	"larder/internal/layer"
	"larder/internal/tree"
)

// unpack streams a layer's blob into dir, from where it comes from or from the local blobs. What arrives damaged is fetched once
// more: it may have been hurt on its way.
func (s *Store) unpack(ctx context.Context, b *layer.Blob, dir string) (*tree.Node, error) {
	fetch := b.Fetch
	if fetch == nil {
		fetch = s.localBlob(b)
	}
	for again := b.Fetch != nil; ; again = false {
		r, err := fetch(ctx)
		if err != nil {
			return nil, fmt.Errorf("fetch %s: %w", b.Desc.Digest, &fetchError{err})
		}
		root, err := unpackFrom(ctx, r, b, dir)
		var broken *fetchError
		if err == nil || !again || ctx.Err() != nil || !errors.As(err, &broken) && !errors.Is(err, layer.ErrBadTar) {
			return root, err
		}
		if err := errors.Join(os.RemoveAll(dir), os.Mkdir(dir, 0o755)); err != nil {
			return nil, err
		}
	}
}

// unpackFrom unpacks a stream and closes it. Where the bytes make no sense, the stream itself tells mostly that they are not those
// that were asked for, and by whom they were sent: that says more.
func unpackFrom(ctx context.Context, r io.ReadCloser, b *layer.Blob, dir string) (*tree.Node, error) {
	defer r.Close()
	root, err := layer.UnpackBlob(ctx, fetched{r}, b.DiffID, dir)
	if errors.Is(err, layer.ErrBadTar) {
		if _, rest := io.Copy(io.Discard, fetched{r}); rest != nil {
			return nil, rest
		}
	}
	return root, err
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

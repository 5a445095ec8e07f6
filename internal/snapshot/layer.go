package snapshot

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"

	"golang.org/x/sync/errgroup"

	"larder/internal/flock"
	"larder/internal/key"
	"larder/internal/layer"
	"larder/internal/tree"
)

// Layer gives the stored layer of an identity, if there is one. Its contents are its files.
func (s *Store) Layer(ctx context.Context, id key.Digest) (*layer.Layer, bool) {
	e, err := s.lookup(id)
	if err != nil {
		s.warn("look up layer %s: %v", id, err)
		return nil, false
	}
	if e == nil {
		return nil, false
	}
	return e.layer(), true
}

func (e *entry) layer() *layer.Layer {
	return layer.Lazy(e.Identity, e.Pinned, e, func(context.Context) (*tree.Node, error) { return e.root, nil })
}

// FromBlob makes a layer of a base image whose tree and contents come from this store: the blob is fetched and unpacked
// when somebody asks for either, or for its directory, unless it was before.
func (s *Store) FromBlob(blob *layer.Blob) (*layer.Layer, error) {
	var l *layer.Layer
	l, err := layer.FromBlob(blob, func(ctx context.Context) (*tree.Node, error) {
		e, err := s.ensure(ctx, l)
		if err != nil {
			return nil, err
		}
		return e.root, nil
	})
	if err != nil {
		return nil, err
	}
	l.Contents = contents{s, l}
	return l, nil
}

// Contents opens the files of a layer: by its own Contents where it has them, else by those of its directory, for which
// the layer is unpacked where it is not.
func (s *Store) Contents(l *layer.Layer) layer.Source {
	if l.Contents != nil {
		return l.Contents
	}
	return contents{s, l}
}

type contents struct {
	s *Store
	l *layer.Layer
}

func (c contents) Open(ctx context.Context, d key.Digest, size int64) (io.ReadCloser, error) {
	e, err := c.s.ensure(ctx, c.l)
	if err != nil {
		return nil, err
	}
	return e.Open(ctx, d, size)
}

// Dir makes sure that a layer is there as an overlay lower directory and gives its path. It stays until Close; nobody
// may write there. An error wraps ErrGone where the layer has neither a blob nor contents.
func (s *Store) Dir(ctx context.Context, l *layer.Layer) (string, error) {
	e, err := s.ensure(ctx, l)
	if err != nil {
		return "", err
	}
	return e.fs(), nil
}

// Has tells whether a layer's directory is already here.
func (s *Store) Has(id key.Digest) bool {
	e, err := s.lookup(id)
	return e != nil && err == nil
}

// Prefetch makes sure that several layers are there as directories, some of them at a time: one waits for the network
// while another is written.
func (s *Store) Prefetch(ctx context.Context, layers []*layer.Layer) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(runtime.GOMAXPROCS(0) + 2)
	for _, l := range layers {
		if e, err := s.lookup(l.Identity); err == nil && e != nil {
			continue
		}
		g.Go(func() error {
			_, err := s.ensure(ctx, l)
			return err
		})
	}
	return g.Wait()
}

// flight is one making of a layer that others in this process wait for.
type flight struct {
	done chan struct{}
	e    *entry
	err  error
}

// ensure finds or makes a layer's directory, once at a time in this process and among all.
func (s *Store) ensure(ctx context.Context, l *layer.Layer) (*entry, error) {
	for {
		if e, err := s.lookup(l.Identity); e != nil || err != nil {
			return e, err
		}
		s.mu.Lock()
		f := s.flights[l.Identity]
		if f == nil {
			f = &flight{done: make(chan struct{})}
			s.flights[l.Identity] = f
			s.mu.Unlock()
			f.e, f.err = s.make(ctx, l)
			f.err = s.explain(f.err)
			s.mu.Lock()
			delete(s.flights, l.Identity)
			s.mu.Unlock()
			close(f.done)
			return f.e, f.err
		}
		s.mu.Unlock()
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-f.done:
		}
		if f.err == nil {
			return f.e, nil
		}
		// It may have failed because the one who made it was cancelled; another failure will show again.
		if !errors.Is(f.err, context.Canceled) && !errors.Is(f.err, context.DeadlineExceeded) {
			return nil, f.err
		}
	}
}

func (s *Store) make(ctx context.Context, l *layer.Layer) (_ *entry, err error) {
	lock, err := flock.Acquire(ctx, filepath.Join(s.base, "locks", l.Identity.Hex()), flock.Exclusive)
	if err != nil {
		return nil, fmt.Errorf("layer %s: %w", l.Identity, err)
	}
	defer lock.Remove()
	if e, err := s.lookup(l.Identity); e != nil || err != nil {
		return e, err
	}
	staged, err := s.tempDir("layer")
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(staged))
		}
	}()
	dir := filepath.Join(staged, "fs")
	if err := os.Mkdir(dir, 0o755); err != nil {
		return nil, err
	}
	var root *tree.Node
	switch {
	case l.Blob != nil && (l.Blob.Fetch != nil || s.opts.Blobs != nil):
		root, err = s.unpack(ctx, l.Blob, dir)
	case l.Contents != nil:
		if root, err = l.Tree(ctx); err == nil {
			err = layer.Materialise(ctx, root, l.Contents, dir)
		}
	default:
		err = ErrGone
	}
	if err != nil {
		return nil, fmt.Errorf("layer %s: %w", l.Identity, err)
	}
	e, _, err := s.publish(staged, l.Identity, l.Pinned, root)
	if err != nil {
		return nil, fmt.Errorf("layer %s: %w", l.Identity, err)
	}
	return e, nil
}

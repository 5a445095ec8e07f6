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
// when somebody asks for its contents or its directory, unless it was before. Its tree is that of the directory where that is
// here, else what load gives, else the blob is unpacked for it too. load may be nil, and may give nil or an error where it does
// not know the tree; its caller vouches for what it gives, which nothing here can compare with the blob.
func (s *Store) FromBlob(blob *layer.Blob, load func(ctx context.Context) (*tree.Node, error)) (*layer.Layer, error) {
	var l *layer.Layer
	l, err := layer.FromBlob(blob, func(ctx context.Context) (*tree.Node, error) {
		if e, err := s.lookup(l.Identity); err != nil {
			return nil, err
		} else if e != nil {
			return e.root, nil
		}
		if load != nil {
			if root, err := load(ctx); err == nil && root != nil {
				return root, nil
			}
		}
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
// may write there. An error wraps ErrGone where the layer has neither a blob nor contents, and a *layer.GoneError where what
// Stored knows of it is not to be had.
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
	left bool // it failed because the one who made it was called off
}

// ensure finds or makes a layer's directory, once at a time in this process and among all.
func (s *Store) ensure(ctx context.Context, l *layer.Layer) (*entry, error) {
	for {
		if e, err := s.lookup(l.Identity); e != nil || err != nil {
			return e, err
		}
		if isMaking(ctx, l.Identity) {
			return nil, &layer.GoneError{Identity: l.Identity, Err: errors.New("it is not here yet: it is just being made")}
		}
		s.mu.Lock()
		f := s.flights[l.Identity]
		if f == nil {
			f = &flight{done: make(chan struct{})}
			s.flights[l.Identity] = f
			s.mu.Unlock()
			f.e, f.err = s.make(ctx, l)
			f.err = s.explain(f.err)
			f.left = f.err != nil && ctx.Err() != nil
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
		// Whoever made it may have given up, or may have had no more than a copy that is gone; this one may have the contents.
		var gone *layer.GoneError
		if !f.left && (!errors.As(f.err, &gone) || gone.Identity != l.Identity || s.fromItself(l)) {
			return nil, f.err
		}
	}
}

func (s *Store) make(ctx context.Context, l *layer.Layer) (_ *entry, err error) {
	lock, err := flock.Acquire(ctx, s.lockPath(l.Identity), flock.Exclusive)
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
	root, err := s.fill(context.WithValue(ctx, makingKey{}, making{l.Identity, ctx}), l, dir)
	var gone *layer.GoneError
	if errors.As(err, &gone) && gone.Identity == l.Identity {
		return nil, err // says so
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

// fill writes a layer into dir: from a remote copy if one is known, from its blob, or from what its contents give.
func (s *Store) fill(ctx context.Context, l *layer.Layer, dir string) (*tree.Node, error) {
	if c := s.copyOf(l); c != nil {
		root, err := c.unpack(ctx, dir)
		var gone *layer.GoneError
		if !errors.As(err, &gone) || s.fromItself(l) {
			return root, err
		}
		if err := errors.Join(os.RemoveAll(dir), os.Mkdir(dir, 0o755)); err != nil {
			return nil, err
		}
	}
	switch {
	case l.Blob != nil && (l.Blob.Fetch != nil || s.opts.Blobs != nil):
		return s.unpack(ctx, l.Blob, dir)
	case s.fromItself(l):
		return nil, ErrGone
	}
	root, err := l.Tree(ctx)
	if err != nil {
		return nil, err
	}
	return root, layer.Materialise(ctx, root, l.Contents, dir)
}

// fromItself tells whether a layer's contents are only those of the directory that is to be made.
func (s *Store) fromItself(l *layer.Layer) bool {
	if c, ok := l.Contents.(*remoteCopy); ok {
		return c.of.Identity == l.Identity
	}
	return l.Contents == nil || l.Contents == layer.Source(contents{s, l})
}

// making is in the context of whatever is done to make a layer: the layer's own contents may lead back to the layer, and
// must not wait for it.
type making struct {
	identity key.Digest
	below    context.Context
}

type makingKey struct{}

func isMaking(ctx context.Context, identity key.Digest) bool {
	for {
		m, ok := ctx.Value(makingKey{}).(making)
		if !ok || m.identity == identity {
			return ok
		}
		ctx = m.below
	}
}

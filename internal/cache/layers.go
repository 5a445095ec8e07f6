package cache

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/opencontainers/go-digest"

	"larder/internal/catalog"
	"larder/internal/key"
	"larder/internal/layer"
	"larder/internal/record"
	"larder/internal/remote"
	"larder/internal/tree"
)

// treeKey is where the tree of a pinned layer is recorded: a base image's, or that of a RUN step. It tells an empty machine what
// is in the layer without fetching it.
func treeKey(identity key.Digest) key.Digest {
	return key.New("larder.tree.v1").Digest(identity).Sum()
}

// Layer gives a pinned layer: the local root's, else one whose bytes come from a store when somebody wants them. A layer that a
// remote record names but no store has (mode=min, inline caches) is given too: it turns out to be gone when it is wanted.
func (s *Session) Layer(ctx context.Context, ref record.Layer) (*layer.Layer, bool) {
	if l, ok := s.cfg.Layers.Layer(ctx, ref.Identity); ok {
		return l, true
	}
	var blob *layer.Blob
	if src, b, ok := s.copy(ctx, ref.Identity); ok {
		blob = src.blob(ref.Identity, b)
	}
	s.mu.Lock()
	promised, lost := s.promised[ref.Identity], s.lost[ref.Identity]
	s.mu.Unlock()
	if lost || blob == nil && !promised {
		return nil, false
	}
	return s.cfg.Layers.Stored(ref.Identity, true, blob, func(ctx context.Context) (*tree.Node, error) {
		return s.PinnedTree(ctx, ref.Identity)
	}), true
}

// Has tells whether a layer's files are in the local root.
func (s *Session) Has(identity key.Digest) bool { return s.cfg.Layers.Has(identity) }

// Copy opens the contents of an observed layer of which a store has a copy; nil where none has. The layer's directory is made from
// the copy as well then, as long as that can be had.
func (s *Session) Copy(ref record.Layer) layer.Source {
	src, b, ok := s.copy(s.ctx, ref.Identity)
	if !ok {
		return nil
	}
	return s.cfg.Layers.Stored(ref.Identity, false, src.blob(ref.Identity, b), func(ctx context.Context) (*tree.Node, error) {
		return s.Tree(ctx, ref.Tree)
	}).Contents
}

// copy finds the smallest copy of a layer in the stores.
func (s *Session) copy(ctx context.Context, identity key.Digest) (*Source, catalog.Blob, bool) {
	for _, src := range s.readers(ctx) {
		if copies := s.copies(ctx, src, identity); len(copies) > 0 {
			return src, slices.MinFunc(copies, func(a, b catalog.Blob) int { return cmp.Compare(a.Desc.Size, b.Desc.Size) }), true
		}
	}
	return nil, catalog.Blob{}, false
}

// copies lists the copies of a layer that a catalog knows, but for those that turned out to be gone.
func (s *Session) copies(ctx context.Context, src *Source, identity key.Digest) []catalog.Blob {
	var out []catalog.Blob
	list := src.reader.Layer(ctx, identity)
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, b := range list {
		if !s.bad[held{src.Store.Name(), b.Desc.Digest}] {
			out = append(out, b)
		}
	}
	return out
}

// held is a blob in a store.
type held struct {
	store  string
	digest digest.Digest
}

// isBad tells whether a blob could not be had from a store.
func (s *Session) isBad(store remote.Store, d digest.Digest) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.bad[held{store.Name(), d}]
}

// spoil notes that a blob could not be had from a store. Where the store says that it is not there, or has other bytes, everybody is to
// know when the build is saved; that this machine may not read it, or cannot reach the store, is its own trouble. The caller
// holds s.mu.
func (s *Session) spoil(b held, why error) {
	s.bad[b] = true
	for _, certain := range []error{remote.ErrNotFound, remote.ErrDamaged, layer.ErrBadTar, layer.ErrOther, tree.ErrDamaged} {
		if errors.Is(why, certain) {
			s.gone[b] = true
		}
	}
}

// stored tells whether some catalog of a store knows a copy of a layer.
func (s *Session) stored(ctx context.Context, store string, identity key.Digest) bool {
	for _, src := range s.known(ctx) {
		if src.Store.Name() == store && len(s.copies(ctx, src, identity)) > 0 {
			return true
		}
	}
	return false
}

// blob makes a copy in a source's store readable. That it cannot be read means that the layer is gone.
func (src *Source) blob(identity key.Digest, b catalog.Blob) *layer.Blob {
	return &layer.Blob{
		Desc: b.Desc, DiffID: b.DiffID, Origin: []string{src.Store.Name()},
		Fetch: func(ctx context.Context) (io.ReadCloser, error) {
			rc, err := src.Store.Open(ctx, b.Desc)
			if err != nil {
				if ctx.Err() == nil {
					err = &layer.GoneError{Identity: identity, Copy: b.Desc.Digest, Store: src.Store.Name(), Err: err}
				}
				return nil, err
			}
			return &promisedReader{rc, ctx, layer.GoneError{Identity: identity, Copy: b.Desc.Digest, Store: src.Store.Name()}}, nil
		},
	}
}

// promisedReader reads a copy that a catalog promised.
type promisedReader struct {
	io.ReadCloser
	ctx  context.Context
	gone layer.GoneError // what to say where it cannot be read
}

func (r *promisedReader) Read(p []byte) (int, error) {
	n, err := r.ReadCloser.Read(p)
	if err != nil && err != io.EOF && r.ctx.Err() == nil {
		gone := r.gone
		gone.Err = err
		err = &gone
	}
	return n, err
}

// PinnedTree gives the tree of a pinned layer that a catalog knows; an error where none does.
func (s *Session) PinnedTree(ctx context.Context, identity key.Digest) (*tree.Node, error) {
	rec, ok := s.Get(ctx, treeKey(identity))
	var ref record.Layer
	if ok {
		ref, ok = rec.OnlyLayer()
	}
	if !ok {
		return nil, fmt.Errorf("no cache has the tree of layer %s", identity)
	}
	root, err := s.Tree(ctx, ref.Tree)
	if err == nil {
		s.Used(rec, nil, false)
	}
	return root, err
}

// Adopt gives a layer that was just made the times of the copy that a store has, so that all machines have the same layer.
func (s *Session) Adopt(ctx context.Context, l *layer.Layer) *layer.Layer {
	if _, _, ok := s.copy(ctx, l.Identity); !ok {
		return l
	}
	root, err := s.PinnedTree(ctx, l.Identity)
	if err != nil {
		return l
	}
	if err := s.cfg.Layers.Adopt(ctx, l.Identity, root); err != nil {
		s.warn(fmt.Sprintf("layer %s keeps the times of this run: %v", l.Identity, err))
		return l
	}
	if adopted, ok := s.cfg.Layers.Layer(ctx, l.Identity); ok {
		return adopted
	}
	return l
}

// Lost says that a copy of a layer could not be had: it is not asked for again, and when no other is left, neither is the layer.
func (s *Session) Lost(gone *layer.GoneError) {
	var copies []held
	for _, src := range s.known(s.ctx) {
		for _, b := range src.reader.Layer(s.ctx, gone.Identity) {
			copies = append(copies, held{src.Store.Name(), b.Desc.Digest})
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	left := false
	for _, b := range copies {
		if (gone.Copy == "" || gone.Copy == b.digest) && (gone.Store == "" || gone.Store == b.store) {
			s.spoil(b, gone.Err)
		}
		left = left || !s.bad[b]
	}
	s.lost[gone.Identity] = !left
	for k, p := range s.blobs {
		if p.identity == gone.Identity {
			delete(s.blobs, k) // it is packed anew when the step has run again
		}
	}
}

// Base notes a layer of a base image: when it has been unpacked, its tree is saved for machines that have not.
func (s *Session) Base(l *layer.Layer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.bases[l.Identity] = l
}

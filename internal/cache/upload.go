package cache

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"

	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/semaphore"

	"larder/internal/catalog"
	"larder/internal/key"
	"larder/internal/layer"
	"larder/internal/record"
	"larder/internal/remote"
)

// smallBlob is the size up to which a blob is sent without asking first whether the store has it: sending costs no more.
const smallBlob = 32 << 10

// packers bounds the layers that are packed at once for caches: each is packed by all processors.
var packers = semaphore.NewWeighted(int64(max(2, runtime.NumCPU()/2)))

// publication is a blob of a layer on its way to the stores.
type publication struct {
	key      key.Digest
	identity key.Digest
	done     chan struct{} // closed when it is in the stores, or will not be

	// What follows is there after done.
	blob   *layer.Blob
	err    error           // why there is no blob
	stores map[string]bool // where it is, by name
}

// sending is a blob on its way to stores.
type sending struct {
	done   chan struct{}
	desc   ocispecs.Descriptor
	stores map[string]bool // where it is, by name; guarded by Session.mu
}

func newSending(desc ocispecs.Descriptor) *sending {
	return &sending{done: make(chan struct{}), desc: desc, stores: map[string]bool{}}
}

// SetExports says in what forms the results of this build are exported. What is kept for later builds only is packed fast.
func (s *Session) SetExports(list []layer.ExportOptions) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.exports = list
}

// Used notes that the build uses a record: its last use counts in the catalogs, and where they do not have it, it is saved, with
// the layers that it names.
func (s *Session) Used(rec *record.Record, layers []*layer.Layer, result bool) {
	s.mu.Lock()
	u := s.used[rec.Key]
	if u == nil {
		u = &use{}
		s.used[rec.Key] = u
		s.order = append(s.order, rec.Key)
	}
	u.rec = rec
	if layers != nil {
		u.layers = layers
	}
	u.result = u.result || result
	exports := s.exports
	s.mu.Unlock()
	if len(s.cfg.Targets) == 0 {
		return
	}
	for _, l := range layers {
		if !l.Pinned && !result {
			continue // whoever needs it has what it is copied from
		}
		if result && len(exports) > 0 {
			for _, opt := range exports {
				s.publish(l, opt, true)
			}
			continue
		}
		s.keep(l, result)
	}
}

// keep brings a layer to the targets in whatever form there is.
func (s *Session) keep(l *layer.Layer, result bool) {
	wanted := false
	for _, t := range s.cfg.Targets {
		wanted = wanted || (t.Max || result) && !s.stored(s.ctx, t.Own.Store.Name(), l.Identity)
	}
	if !wanted {
		return
	}
	if src, b, ok := s.copy(s.ctx, l.Identity); ok {
		s.begin(b.Key, l.Identity, result, func(p *publication) {
			p.blob = src.blob(l.Identity, b)
			p.stores[src.Store.Name()] = true
		})
		return
	}
	s.publish(l, s.cfg.Kept, result)
}

// publish packs a layer and brings the blob to the targets, in the background and once.
func (s *Session) publish(l *layer.Layer, opt layer.ExportOptions, result bool) *publication {
	k, err := layer.BlobKey(l.Identity, false, opt)
	return s.begin(k, l.Identity, result, func(p *publication) {
		if p.err = err; err == nil {
			s.pack(p, l, opt)
		}
	})
}

// begin finds the publication of a key or makes one; find gives its blob.
func (s *Session) begin(k, identity key.Digest, result bool, find func(*publication)) *publication {
	s.mu.Lock()
	defer s.mu.Unlock()
	if have := s.blobs[k]; have != nil {
		return have
	}
	p := &publication{key: k, identity: identity, done: make(chan struct{}), stores: map[string]bool{}}
	s.blobs[k] = p
	s.work.Go(func() {
		defer close(p.done)
		if find(p); p.err == nil {
			s.spread(p, result)
			return
		}
		var gone *layer.GoneError
		if !errors.As(p.err, &gone) && s.ctx.Err() == nil {
			s.Lose(fmt.Errorf("a layer is not saved to the cache: %w", p.err))
		}
		s.mu.Lock()
		if s.blobs[k] == p { // whoever asks again gets another try
			delete(s.blobs, k)
		}
		s.mu.Unlock()
	})
	return p
}

// pack finds the blob of a layer in a catalog, or makes it.
func (s *Session) pack(p *publication, l *layer.Layer, opt layer.ExportOptions) {
	for _, src := range s.readers(s.ctx) {
		if s.cfg.Distrust {
			break
		}
		for _, b := range s.copies(s.ctx, src, l.Identity) {
			if b.Key != p.key {
				continue
			}
			if p.blob == nil {
				p.blob = src.blob(l.Identity, b)
			}
			if p.blob.Desc.Digest == b.Desc.Digest {
				p.stores[src.Store.Name()] = true
			}
		}
	}
	if p.blob != nil {
		return
	}
	if p.err = packers.Acquire(s.ctx, 1); p.err != nil {
		return
	}
	defer packers.Release(1)
	p.blob, p.err = layer.Export(s.ctx, l, s.cfg.Blobs, opt)
}

// spread brings a blob to the targets that want it.
func (s *Session) spread(p *publication, result bool) {
	var targets []*Target
	for _, t := range s.cfg.Targets {
		if t.Max || result {
			targets = append(targets, t)
		}
	}
	isSmall := p.blob.Fetch == nil && p.blob.Desc.Size <= smallBlob
	s.bring(targets, p.stores, remote.Upload{Desc: p.blob.Desc, Open: s.opener(p.blob), Origin: p.blob.Origin, New: isSmall})
}

// bring puts a blob into the stores of targets that do not have it, as far as stores says, and notes there that they do.
func (s *Session) bring(targets []*Target, stores map[string]bool, up remote.Upload) {
	for _, t := range targets {
		store := t.Own.Store
		if s.isIn(stores, store) || s.isDown(store) {
			continue
		}
		this := up
		this.New = up.New || s.isBad(store, up.Desc.Digest)
		if s.put(t, this) == nil {
			s.mu.Lock()
			stores[store.Name()] = true
			s.mu.Unlock()
		}
	}
}

// isIn looks a store up in a set that uploads add to.
func (s *Session) isIn(stores map[string]bool, store remote.Store) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return stores[store.Name()]
}

// isDown tells whether a store has used up all patience: there is no use in waiting for it again.
func (s *Session) isDown(store remote.Store) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.down[store.Name()]
}

func (s *Session) put(t *Target, up remote.Upload) error {
	sent, err := t.Own.Store.Put(s.ctx, up)
	if err != nil {
		var gone *layer.GoneError
		if s.ctx.Err() == nil && !errors.As(err, &gone) && !t.IgnoreError {
			s.fail(t.Own.Store, fmt.Errorf("%s: a blob of %d bytes was not saved: %w", t.Own.Label, up.Desc.Size, err))
		}
		return err
	}
	if sent {
		s.mu.Lock()
		s.sent.Blobs++
		s.sent.Bytes += up.Desc.Size
		s.mu.Unlock()
	}
	return nil
}

// opener opens a blob where it is: in the local root, or where it came from.
func (s *Session) opener(b *layer.Blob) func(ctx context.Context) (io.ReadCloser, error) {
	return func(ctx context.Context) (io.ReadCloser, error) {
		rc, err := s.cfg.Blobs.Stream(ctx, b.Desc.Digest)
		if err != nil && b.Fetch != nil {
			return b.Fetch(ctx)
		}
		return rc, err
	}
}

// Blob gives a layer as an image is to carry it: one that a base image brought as it is, another one as a catalog knows it, else
// packed here. With a writable cache it is there when Blob returns, and its Origin says so: a push to the same repository need
// not ask.
func (s *Session) Blob(ctx context.Context, l *layer.Layer, opt layer.ExportOptions) (*layer.Blob, error) {
	if l.Blob != nil {
		b, err := layer.Export(ctx, l, s.cfg.Blobs, opt)
		if err != nil {
			return nil, err
		}
		return s.located(ctx, b), nil
	}
	p := s.publish(l, opt, true)
	select {
	case <-p.done:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	if p.err != nil {
		return nil, p.err
	}
	b := *p.blob
	for name := range p.stores {
		if !slices.Contains(b.Origin, name) {
			b.Origin = append(slices.Clone(b.Origin), name)
		}
	}
	return &b, nil
}

// located adds the stores that a base image's blob is known to be in.
func (s *Session) located(ctx context.Context, b *layer.Blob) *layer.Blob {
	for _, src := range s.cfg.Sources {
		src.get(ctx)
		if name := src.Store.Name(); slices.Contains(src.Holds, b.Desc.Digest) && !slices.Contains(b.Origin, name) {
			c := *b
			c.Origin = append(slices.Clone(b.Origin), name)
			b = &c
		}
	}
	return b
}

// tree packs a tree of the local root and brings it to the targets, once.
func (s *Session) tree(d key.Digest) *sending {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.trees[d]
	if t != nil {
		return t
	}
	t = newSending(ocispecs.Descriptor{})
	s.trees[d] = t
	s.work.Go(func() {
		defer close(t.done)
		s.sendTree(d, t)
	})
	return t
}

// sendTree gives t the tree's blob, and brings that to the targets which no catalog says to have it.
func (s *Session) sendTree(d key.Digest, t *sending) {
	for _, src := range s.known(s.ctx) {
		if desc, ok := src.reader.Tree(s.ctx, d); ok && !s.isBad(src.Store, desc.Digest) {
			t.desc = desc
			t.stores[src.Store.Name()] = true
		}
	}
	if !slices.ContainsFunc(s.cfg.Targets, func(o *Target) bool { return !t.stores[o.Own.Store.Name()] && !s.isDown(o.Own.Store) }) {
		return
	}
	b, err := s.cfg.Records.TreeBytes(d)
	if err != nil {
		return // pruned meanwhile
	}
	packed, err := catalog.PackTree(b)
	if err != nil {
		return
	}
	t.desc = ocispecs.Descriptor{MediaType: catalog.MediaTypeTree, Digest: key.Bytes(packed).OCI(), Size: int64(len(packed))}
	open := func(context.Context) (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(packed)), nil }
	s.bring(s.cfg.Targets, t.stores, remote.Upload{Desc: t.desc, Open: open, New: t.desc.Size <= smallBlob})
}

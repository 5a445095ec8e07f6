package cache

import (
	"context"
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"larder/internal/catalog"
	"larder/internal/key"
	"larder/internal/pack"
	"larder/internal/remote"
)

// send brings a blob to the stores of all targets, in the background. done, which may be nil, is called when that has ended.
func (s *Session) send(desc ocispecs.Descriptor, open func(context.Context) (io.ReadCloser, error), targets []*Target, done func()) *sending {
	sg := newSending(desc)
	s.mu.Lock()
	s.sendings[desc.Digest] = sg
	s.mu.Unlock()
	s.work.Go(func() {
		defer close(sg.done)
		if done != nil {
			defer done()
		}
		s.bring(targets, sg.stores, remote.Upload{Desc: desc, Open: open, New: true})
	})
	return sg
}

// SendPack takes over a pack's file and brings it to the targets.
func (s *Session) SendPack(p pack.Pack) error {
	desc := ocispecs.Descriptor{MediaType: pack.MediaType, Digest: p.Digest.OCI(), Size: p.Size}
	open := func(context.Context) (io.ReadCloser, error) { return os.Open(p.Path) }
	sg := s.send(desc, open, s.cfg.Targets, func() { os.Remove(p.Path) })
	s.mu.Lock()
	defer s.mu.Unlock()
	s.packs[p.Digest] = sg
	return nil
}

// knowPacks remembers the packs of a mount that is in a store.
func (s *Session) knowPacks(store string, row catalog.Mount) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for d, desc := range row.Packs() {
		if s.packs[d] == nil {
			sg := newSending(desc)
			sg.stores[store] = true
			close(sg.done)
			s.packs[d] = sg
		}
	}
}

// packFor gives a pack that is in a target's store, or on its way there; one that only another store has is copied.
func (s *Session) packFor(t *Target, d key.Digest) (*sending, error) {
	s.mu.Lock()
	sg := s.packs[d]
	s.mu.Unlock()
	if sg == nil {
		return nil, fmt.Errorf("nobody knows where pack %s is", d)
	}
	select {
	case <-sg.done:
	default:
		return sg, nil // a new one, which all targets get
	}
	if s.isIn(sg.stores, t.Own.Store) {
		return sg, nil
	}
	others := slices.Clone(s.cfg.Mounts)
	for _, other := range s.cfg.Targets {
		others = append(others, other.Own)
	}
	for _, src := range others {
		if s.isIn(sg.stores, src.Store) {
			open := func(ctx context.Context) (io.ReadCloser, error) { return src.Store.Open(ctx, sg.desc) }
			return s.send(sg.desc, open, []*Target{t}, nil), nil
		}
	}
	return sg, nil // it could not be stored, which mountPuts finds out
}

// Missing lists the packs of a row that the first target's store does not have any more; whole tells whether it has all of the row. The catalogs
// that were read at the beginning answer for what they name; what they do not is asked for.
func (s *Session) Missing(ctx context.Context, base *MountBase) (packs map[key.Digest]bool, whole bool) {
	t := s.cfg.Targets[0]
	if base.Store != t.Own.Store.Name() {
		return nil, true // what it names is copied
	}
	named := s.named(ctx, t, base.Row.Key)
	packs, whole = map[key.Digest]bool{}, true
	for _, seg := range base.Row.Segments {
		whole = s.isThere(ctx, t, named, seg.Blob) && whole
	}
	for d, desc := range base.Row.Packs() {
		if !s.isThere(ctx, t, named, desc) {
			packs[d], whole = true, false
		}
	}
	return packs, whole
}

// named lists the blobs that catalogs of a target's store name for a mount.
func (s *Session) named(ctx context.Context, t *Target, k key.Digest) map[digest.Digest]bool {
	out := map[digest.Digest]bool{}
	for _, src := range append([]*Source{t.Own}, s.cfg.Mounts...) {
		r := src.get(ctx)
		if r == nil || src.Store.Name() != t.Own.Store.Name() {
			continue
		}
		row, _ := r.Mount(ctx, k)
		for b := range row.Blobs() {
			out[b.Digest] = true
		}
	}
	return out
}

// isThere tells whether a target's store has a blob; the answer goes into named. That the store does not answer counts as a yes: saving will fail
// for that reason, and not because of this blob.
func (s *Session) isThere(ctx context.Context, t *Target, named map[digest.Digest]bool, desc ocispecs.Descriptor) bool {
	if s.isBad(t.Own.Store, desc.Digest) {
		return false
	}
	s.mu.Lock()
	sg := s.sendings[desc.Digest]
	s.mu.Unlock()
	if sg != nil { // this build's own, which is just on its way, or is known to have got there or not
		select {
		case <-sg.done:
			if !s.isIn(sg.stores, t.Own.Store) {
				return false
			}
		default:
		}
		return true
	}
	if named[desc.Digest] || s.isDown(t.Own.Store) {
		return true
	}
	ok, err := t.Own.Store.Has(ctx, desc)
	if err == nil && !ok {
		s.lostMount(t.Own, desc, fmt.Errorf("blob %s: %w", desc.Digest, remote.ErrNotFound))
		return false
	}
	named[desc.Digest] = true
	return true
}

// await has a save wait for what this build is still sending of segments that it builds on.
func (s *Session) await(save *mountSave, row catalog.Mount) {
	store := save.target.Own.Store.Name()
	s.mu.Lock()
	defer s.mu.Unlock()
	for desc := range row.Blobs() {
		if sg := s.sendings[desc.Digest]; sg != nil && !sg.stores[store] {
			save.blobs = append(save.blobs, sg)
		}
	}
}

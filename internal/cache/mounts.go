package cache

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"larder/internal/catalog"
	"larder/internal/generation"
	"larder/internal/key"
	"larder/internal/pack"
	"larder/internal/remote"
	"larder/internal/tree"
)

// MountBase says where in the remote caches a generation of a cache mount is written down.
type MountBase struct {
	Store string        // its name
	Row   catalog.Mount // what a catalog there says of it
}

// Mount is the generation of a cache mount that a build begins with.
type Mount struct {
	MountBase
	Generation *generation.Generation

	s     *Session
	src   *Source
	packs map[key.Digest]ocispecs.Descriptor
}

// maxSegment bounds a segment's blob, in bytes.
const maxSegment = 256 << 20

// Mount finds the generation of a cache mount in the first catalog that has a whole one; nil where none has.
func (s *Session) Mount(ctx context.Context, k key.Digest) *Mount {
	for _, src := range s.cfg.Mounts {
		r := src.get(ctx)
		if r == nil {
			continue
		}
		row, ok := r.Mount(ctx, k)
		if !ok || s.spoilt(src, row) {
			continue
		}
		m := &Mount{MountBase: MountBase{src.Store.Name(), row}, s: s, src: src}
		var err error
		if m.Generation, err = s.generation(ctx, src, row); err == nil {
			m.packs = row.Packs()
			s.Know(&m.MountBase, m.Generation)
			return m
		}
		if ctx.Err() != nil {
			return nil
		}
		s.fail(src.Store, fmt.Errorf("%s: cache mount %s cannot be restored: %w", src.Label, row.ID, err))
	}
	return nil
}

// spoilt tells whether some blob of a mount could not be had.
func (s *Session) spoilt(src *Source, row catalog.Mount) bool {
	for b := range row.Blobs() {
		if s.isBad(src.Store, b.Digest) {
			return true
		}
	}
	return false
}

// generation reads a mount. What is damaged or missing is noted, so that the next save heals it.
func (s *Session) generation(ctx context.Context, src *Source, row catalog.Mount) (*generation.Generation, error) {
	segments, err := s.segments(ctx, src, row)
	if err != nil {
		return nil, err
	}
	read := generation.ReadOne
	if row.United {
		read = generation.Read
	}
	g, err := read(segments)
	if err != nil {
		for _, seg := range row.Segments { // which of them does not fit the others cannot be told
			s.lostMount(src, seg.Blob, err)
		}
	}
	return g, err
}

func (s *Session) segments(ctx context.Context, src *Source, row catalog.Mount) ([][]byte, error) {
	segments := make([][]byte, len(row.Segments))
	eg, ctx := errgroup.WithContext(ctx)
	for i, seg := range row.Segments {
		eg.Go(func() error {
			b, err := catalog.Fetch(ctx, src.Store, seg.Blob, maxSegment)
			if err != nil && ctx.Err() == nil {
				s.lostMount(src, seg.Blob, err)
			}
			segments[i] = b
			return err
		})
	}
	return segments, eg.Wait()
}

func (s *Session) lostMount(src *Source, desc ocispecs.Descriptor, why error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.spoil(held{src.Store.Name(), desc.Digest}, why)
}

// Open opens a part of a pack.
func (m *Mount) Open(ctx context.Context, p key.Digest, off, n int64) (io.ReadCloser, error) {
	desc, ok := m.packs[p]
	if !ok {
		return nil, fmt.Errorf("pack %s is not named with the cache mount: %w", p, remote.ErrDamaged)
	}
	rc, err := m.src.Store.OpenRange(ctx, desc, off, n)
	if errors.Is(err, remote.ErrUnsupported) {
		rc, err = openPart(ctx, m.src.Store, desc, off, n)
	}
	if err != nil && ctx.Err() == nil {
		m.s.lostMount(m.src, desc, err)
	}
	return rc, err
}

// openPart reads a part of a blob of a store that has no ranges.
func openPart(ctx context.Context, store remote.Store, desc ocispecs.Descriptor, off, n int64) (io.ReadCloser, error) {
	rc, err := store.Open(ctx, desc)
	if err != nil {
		return nil, err
	}
	if _, err := io.CopyN(io.Discard, rc, off); err != nil {
		rc.Close()
		return nil, err
	}
	return struct {
		io.Reader
		io.Closer
	}{io.LimitReader(rc, n), rc}, nil
}

// Lost says that the mount could not be restored: it is not found again, and where bytes are gone or wrong, the catalog forgets it. It gives false where
// that is not the remote cache's fault.
func (m *Mount) Lost(why error) bool {
	var damage *pack.DamageError
	switch {
	case errors.As(why, &damage):
		if desc, ok := m.packs[damage.Pack]; ok {
			m.s.lostMount(m.src, desc, why)
		}
	case m.s.spoilt(m.src, m.Row): // by what Open found
	case errors.Is(why, tree.ErrDamaged), errors.Is(why, remote.ErrDamaged): // which blob is to blame cannot be told
		for _, seg := range m.Row.Segments {
			m.s.lostMount(m.src, seg.Blob, why)
		}
	default:
		return false
	}
	m.s.fail(m.src.Store, fmt.Errorf("%s: cache mount %s cannot be restored: %w", m.src.Label, m.Row.ID, why))
	return true
}

// Domain says whom this build's cache mounts belong to on this machine.
func (s *Session) Domain() string { return s.cfg.Domain }

// knowPieces remembers where contents are, so that what another mount, build or branch stored is not stored again.
func (s *Session) knowPieces(store string, g *generation.Generation) {
	s.mu.Lock()
	defer s.mu.Unlock()
	have := s.pieces[store]
	if have == nil {
		have = map[key.Digest]pack.Piece{}
		s.pieces[store] = have
	}
	for _, list := range g.Pieces {
		for _, p := range list {
			have[p.Digest] = p
		}
	}
}

// Piece finds contents that the first target's store has already.
func (s *Session) Piece(d key.Digest) (pack.Piece, bool) {
	if len(s.cfg.Targets) == 0 {
		return pack.Piece{}, false
	}
	store := s.cfg.Targets[0].Own.Store.Name()
	s.mu.Lock()
	defer s.mu.Unlock()
	p, ok := s.pieces[store][d]
	if ok && s.bad[held{store, p.Pack.OCI()}] {
		return pack.Piece{}, false
	}
	return p, ok
}

// Know says that a generation is written down somewhere, for Piece.
func (s *Session) Know(base *MountBase, g *generation.Generation) {
	s.knowPieces(base.Store, g)
	s.knowPacks(base.Store, base.Row)
}

// LearnPieces reads what all catalogs of the first target's store say of cache mounts, so that Piece knows it.
func (s *Session) LearnPieces() {
	if len(s.cfg.Targets) == 0 {
		return
	}
	target := s.cfg.Targets[0].Own
	s.learn.Do(func() {
		seen := map[digest.Digest]bool{}
		for _, src := range append([]*Source{target}, s.cfg.Mounts...) {
			c, ok := src.get(s.ctx).(*catalog.Catalog)
			if !ok || src.Store.Name() != target.Store.Name() {
				continue
			}
			for _, row := range c.Mounts(s.ctx) {
				last := row.Segments[len(row.Segments)-1].Blob.Digest
				if seen[last] || s.spoilt(src, row) {
					continue
				}
				seen[last] = true
				if g, err := s.generation(s.ctx, src, row); err == nil {
					s.Know(&MountBase{src.Store.Name(), row}, g)
				}
			}
		}
	})
}

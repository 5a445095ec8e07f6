package cache

import (
	"context"
	"fmt"

	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"larder/internal/catalog"
	"larder/internal/key"
	"larder/internal/record"
	"larder/internal/tree"
)

// Get gives the record of a key: the local root's, else that of the first catalog that has one. A record that was copied from
// a catalog counts only where that catalog is read today: what an untrusted job found is not believed by others on its machine.
func (s *Session) Get(ctx context.Context, k key.Digest) (*record.Record, bool) {
	local, ok := s.cfg.Records.Get(k)
	if ok && (local.From == "" || local.From == s.mark) {
		if local.From != "" {
			s.rely(local)
		}
		return local, true
	}
	s.mu.Lock()
	forgotten := s.forgotten[k]
	s.mu.Unlock()
	if forgotten {
		return nil, false
	}
	for _, src := range s.cfg.Sources {
		reader := src.get(ctx)
		if reader == nil {
			if ok && local.From == src.ID && ctx.Err() == nil && src.silent {
				s.rely(local)
				return local, true // its store does not answer today, but this was in it
			}
			continue
		}
		e, found := reader.Record(ctx, k)
		if !found {
			continue
		}
		rec := *e.Record
		rec.From = src.ID
		s.rely(&rec)
		if !ok || local.From != src.ID || local.Digest() != rec.Digest() {
			if _, err := s.cfg.Records.Replace(&rec); err != nil {
				s.warn(fmt.Sprintf("remember a record of %s: %v", src.Label, err))
			}
		}
		return &rec, true
	}
	return nil, false
}

// rely notes what a remote record says: the layers that it names count as there until somebody wants their bytes. A claim that
// cannot be compared with anything makes the build rest on its catalog.
func (s *Session) rely(rec *record.Record) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tainted = s.tainted || len(rec.Data) > 0 || isTree(rec) || rec.From == s.mark // a hint is nothing to rest on
	for _, o := range rec.Outputs {
		for _, ref := range o.Layers {
			if ref.Pinned {
				s.promised[ref.Identity] = true
			}
		}
	}
}

// Put keeps a record unless there is one that is believed, and gives the one that counts. A record that is a copy of one found under another
// key has that one's From: only who reads its catalog may believe the copy. As the catalog does not have it under this key, Get does not find
// it again until it is saved; whoever finds the other one then makes it anew.
func (s *Session) Put(_ context.Context, r *record.Record) (*record.Record, error) {
	r = s.stamped(r)
	first, err := s.cfg.Records.Put(r)
	if err == nil && first != r && first.From != "" && (first.From != r.From || first.From != s.mark) {
		return s.cfg.Records.Replace(r) // Get did not believe it, or it was no use
	}
	return first, err
}

// stamped marks a record that rests on a catalog's word. What a hint says rests on nothing.
func (s *Session) stamped(r *record.Record) *record.Record {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.tainted || r.OnlyHint() {
		return r
	}
	c := *r
	c.From = s.mark
	return &c
}

// Replace keeps a record whatever is there, here and, when the build is saved, in the catalogs.
func (s *Session) Replace(ctx context.Context, r *record.Record) (*record.Record, error) {
	s.supersede(ctx, r.Key)
	return s.cfg.Records.Replace(s.stamped(r))
}

// Delete forgets a record that is no use; the one that is made in its stead replaces it in the catalogs.
func (s *Session) Delete(ctx context.Context, k key.Digest) error {
	s.supersede(ctx, k)
	s.mu.Lock()
	s.forgotten[k] = true
	s.mu.Unlock()
	return s.cfg.Records.Delete(k)
}

// supersede notes which record of the catalogs is not to stay.
func (s *Session) supersede(ctx context.Context, k key.Digest) {
	for _, t := range s.cfg.Targets {
		reader := t.Own.get(ctx)
		if reader == nil {
			continue
		}
		if e, ok := reader.Record(ctx, k); ok {
			s.supersedeIn(t, e)
		}
	}
}

func (s *Session) supersedeIn(t *Target, e catalog.Entry) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.replaced[place{t.Own.ID, e.Record.Key}] = e.Record.Digest()
}

// Lock makes the caller the only one on this machine that works on a key.
func (s *Session) Lock(ctx context.Context, k key.Digest) (unlock func(), err error) {
	return s.cfg.Records.Lock(ctx, k)
}

// PutTree stores a tree in the local root.
func (s *Session) PutTree(root *tree.Node) (key.Digest, error) { return s.cfg.Records.PutTree(root) }

// HasTree tells whether a tree is in the local root, or a catalog says that it is in its store.
func (s *Session) HasTree(ctx context.Context, d key.Digest) bool {
	if s.cfg.Records.HasTree(d) {
		return true
	}
	_, _, ok := s.findTree(ctx, d)
	return ok
}

// findTree finds a tree's blob in a catalog.
func (s *Session) findTree(ctx context.Context, d key.Digest) (*Source, ocispecs.Descriptor, bool) {
	for _, src := range s.readers(ctx) {
		if desc, ok := src.reader.Tree(ctx, d); ok && !s.isBad(src.Store, desc.Digest) {
			return src, desc, true
		}
	}
	return nil, ocispecs.Descriptor{}, false
}

// Tree opens a tree of the local root, after fetching it where it is not there, from whatever store has it.
func (s *Session) Tree(ctx context.Context, d key.Digest) (*tree.Node, error) {
	if s.cfg.Records.HasTree(d) {
		if root, err := s.cfg.Records.Tree(d); err == nil {
			return root, nil
		}
	}
	last := fmt.Errorf("tree %s is not here", d)
	for {
		src, desc, ok := s.findTree(ctx, d)
		if !ok {
			return nil, last
		}
		b, err := catalog.FetchTree(ctx, src.Store, desc, d)
		if err == nil {
			if err := s.cfg.Records.ImportTree(d, b); err != nil {
				return nil, err
			}
			return s.cfg.Records.Tree(d)
		}
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		last = fmt.Errorf("tree from %s: %w", src.Label, err)
		s.mu.Lock()
		s.spoil(held{src.Store.Name(), desc.Digest}, err)
		s.mu.Unlock()
	}
}

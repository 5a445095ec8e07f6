package cache

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"larder/internal/catalog"
	"larder/internal/key"
	"larder/internal/layer"
	"larder/internal/record"
	"larder/internal/tree"
)

// Save waits for what is on its way to the stores, then merges the records that this build used into each target's catalog: blobs
// before records (DESIGN invariant 1). A record whose blobs could not be stored is left out. Where the catalog has all of it,
// nothing is sent.
func (s *Session) Save(ctx context.Context) {
	s.saveTrees(ctx)
	for _, p := range s.publications() {
		select {
		case <-p.done:
		case <-ctx.Done():
			return
		}
	}
	for _, t := range s.cfg.Targets {
		if s.isDown(t.Own.Store) {
			continue
		}
		change := s.change(ctx, t)
		change.Mounts = s.mountPuts(ctx, t)
		if len(change.Put)+len(change.Used)+len(change.Gone)+len(change.Mounts) == 0 || t.Own.covers(ctx, change) || ctx.Err() != nil {
			continue
		}
		saved, err := t.Save(ctx, change)
		if err != nil && ctx.Err() == nil && !t.IgnoreError {
			s.fail(t.Own.Store, fmt.Errorf("%s: what this build made is not saved for the next one: %w", t.Own.Label, err))
		}
		if saved.Refused > 0 && !t.IgnoreError {
			s.Lose(fmt.Errorf("%s: %d records or cache mounts are too large for it and are not saved; --cache-mount-size makes mounts smaller", t.Own.Label, saved.Refused))
		}
		s.mu.Lock()
		s.sent.Records += saved.Records
		s.mu.Unlock()
	}
}

func (s *Session) publications() []*publication {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Collect(maps.Values(s.blobs))
}

// saveTrees makes records of the trees of pinned layers: those that this build's steps made, and base images' that were unpacked.
func (s *Session) saveTrees(ctx context.Context) {
	if len(s.cfg.Targets) == 0 {
		return
	}
	s.mu.Lock()
	layers := maps.Clone(s.bases)
	for _, u := range s.used {
		for _, l := range u.layers {
			if l.Pinned {
				layers[l.Identity] = l
			}
		}
	}
	s.mu.Unlock()
	for identity, l := range layers {
		if !s.Has(identity) {
			continue
		}
		k := treeKey(identity)
		rec, ok := s.Get(ctx, k)
		if ok && slices.ContainsFunc(treesOf(rec), func(d key.Digest) bool { return !s.HasTree(ctx, d) }) {
			if ok = false; s.Delete(ctx, k) != nil {
				continue
			}
		}
		if !ok {
			root, err := l.Tree(ctx)
			if err != nil {
				continue
			}
			if rec, err = s.treeRecord(ctx, k, l, root); err != nil {
				s.warn(err.Error())
				continue
			}
		}
		s.Used(rec, nil, false)
	}
	for _, u := range s.uses() {
		for _, d := range treesOf(u.rec) {
			s.tree(d)
		}
	}
}

func (s *Session) treeRecord(ctx context.Context, k key.Digest, l *layer.Layer, root *tree.Node) (*record.Record, error) {
	d, err := s.cfg.Records.PutTree(root)
	if err != nil {
		return nil, err
	}
	ref := record.Layer{Identity: l.Identity, Pinned: true, Tree: d}
	return s.Put(ctx, &record.Record{Key: k, Outputs: record.OnlyLayer(ref)})
}

func treesOf(rec *record.Record) []key.Digest {
	var out []key.Digest
	for _, o := range rec.Outputs {
		for _, ref := range o.Layers {
			if ref.Tree != (key.Digest{}) {
				out = append(out, ref.Tree)
			}
		}
	}
	return out
}

// isTree tells a record of treeKey.
func isTree(r *record.Record) bool {
	ref, ok := r.OnlyLayer()
	return ok && r.Key == treeKey(ref.Identity)
}

// uses lists the records of this build in the order of their first use.
func (s *Session) uses() []*use {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]*use, 0, len(s.order))
	for _, k := range s.order {
		u := *s.used[k]
		out = append(out, &u)
	}
	return out
}

// change collects what a target's catalog is to learn.
func (s *Session) change(ctx context.Context, t *Target) catalog.Change {
	c := catalog.Change{Trees: map[key.Digest]ocispecs.Descriptor{}, Layers: map[key.Digest][]catalog.Blob{}}
	store := t.Own.Store.Name()
	s.layers(t, &c)
	for _, u := range s.uses() {
		rec := *u.rec
		rec.From = ""
		if list := s.addition(rec.Key); list != nil {
			if !s.listedElsewhere(ctx, t, list) {
				c.Put = append(c.Put, catalog.Put{Record: list, Unite: true})
			}
			continue
		}
		replaces := s.replaces(t, rec.Key)
		if replaces == (key.Digest{}) && s.has(ctx, t.Own, &rec, c.Layers) {
			c.Used = append(c.Used, rec.Key)
			for _, l := range u.layers {
				if l.Pinned { // no other has a record of its tree: looking for one would read the further pages
					c.Used = append(c.Used, treeKey(l.Identity))
				}
			}
			continue
		}
		if replaces == (key.Digest{}) && s.elsewhere(ctx, t, &rec, c.Layers) {
			continue
		}
		if t.Max && !s.complete(ctx, t, u, c.Layers) {
			continue
		}
		for _, d := range treesOf(&rec) {
			tb := s.tree(d)
			select {
			case <-tb.done:
			case <-ctx.Done():
				return c
			}
			if s.isIn(tb.stores, t.Own.Store) {
				c.Trees[d] = tb.desc
			}
		}
		c.Put = append(c.Put, catalog.Put{Record: &rec, Replaces: replaces})
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	stored := map[digest.Digest]bool{}
	for _, list := range c.Layers {
		for _, b := range list {
			stored[b.Desc.Digest] = true
		}
	}
	for b := range s.gone {
		if b.store == store && !stored[b.digest] {
			c.Gone = append(c.Gone, b.digest)
		}
	}
	return c
}

func (s *Session) replaces(t *Target, k key.Digest) key.Digest {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.replaced[place{t.Own.ID, k}]
}

// layers collects the copies that this build brought to the target's store.
func (s *Session) layers(t *Target, c *catalog.Change) {
	for _, p := range s.publications() {
		select {
		case <-p.done:
		default:
			continue // of a step that is just being stopped
		}
		if p.err != nil || !p.stores[t.Own.Store.Name()] {
			continue
		}
		c.Layers[p.identity] = append(c.Layers[p.identity], catalog.Blob{Key: p.key, Desc: p.blob.Desc, DiffID: p.blob.DiffID})
	}
}

// has tells whether a catalog has a record already, with every copy of its layers that this build has brought.
func (s *Session) has(ctx context.Context, src *Source, rec *record.Record, copies map[key.Digest][]catalog.Blob) bool {
	reader := src.get(ctx)
	if reader == nil {
		return false
	}
	if e, ok := reader.Record(ctx, rec.Key); !ok || rec.OnlyHint() && len(e.Record.Hint) == 0 {
		return false // an older larder, which does not know hints, may have written it anew
	}
	for _, o := range rec.Outputs {
		for _, ref := range o.Layers {
			if len(copies[ref.Identity]) == 0 {
				continue // one that has no copy at all is in no page
			}
			have := s.copies(ctx, src, ref.Identity)
			for _, b := range copies[ref.Identity] {
				if !slices.ContainsFunc(have, func(h catalog.Blob) bool { return h.Key == b.Key }) {
					return false
				}
			}
		}
	}
	return true
}

// elsewhere tells whether another scope of the same store, which everybody reads who reads the target, has the very record; of a hint, whenever
// it was written.
func (s *Session) elsewhere(ctx context.Context, t *Target, rec *record.Record, copies map[key.Digest][]catalog.Blob) bool {
	s.mu.Lock()
	forgotten := s.forgotten[rec.Key]
	s.mu.Unlock()
	if forgotten {
		return false
	}
	for _, src := range s.everyones(t) {
		if !s.has(ctx, src, rec, copies) {
			continue
		}
		e, ok := src.reader.Record(ctx, rec.Key)
		if ok && (e.Record.Digest() == rec.Digest() || rec.OnlyHint() && bytes.Equal(e.Record.Hint, rec.Hint)) {
			return true
		}
	}
	return false
}

// everyones lists the other scopes of a target's store that everybody reads who reads the target.
func (s *Session) everyones(t *Target) []*Source {
	return slices.DeleteFunc(slices.Clone(s.cfg.Sources), func(src *Source) bool {
		return src == t.Own || !src.Everyone || src.Store.Name() != t.Own.Store.Name()
	})
}

// complete tells whether a target's store has a copy of every layer that a RUN step's record names.
func (s *Session) complete(ctx context.Context, t *Target, u *use, copies map[key.Digest][]catalog.Blob) bool {
	for _, l := range u.layers {
		if !l.Pinned || len(copies[l.Identity]) > 0 {
			continue
		}
		if !s.stored(ctx, t.Own.Store.Name(), l.Identity) {
			return false
		}
	}
	return true
}

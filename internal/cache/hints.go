package cache

import (
	"bytes"
	"context"
	"fmt"

	"larder/internal/catalog"
	"larder/internal/key"
	"larder/internal/record"
)

// All lists every record of a key that may be believed, each once: the local root's first, then those of the catalogs in the order in which
// they are asked. Unlike Get it remembers none of them here: lists that are united stay with those who wrote them.
func (s *Session) All(ctx context.Context, k key.Digest) []*record.Record {
	var out []*record.Record
	seen := map[key.Digest]bool{}
	add := func(r *record.Record) {
		if d := r.Digest(); !seen[d] {
			seen[d] = true
			if r.From != "" {
				s.rely(r)
			}
			out = append(out, r)
		}
	}
	local, ok := s.cfg.Records.Get(k)
	if ok && (local.From == "" || local.From == s.mark) {
		add(local)
	}
	s.mu.Lock()
	forgotten := s.forgotten[k]
	s.mu.Unlock()
	if forgotten {
		return out
	}
	for _, src := range s.cfg.Sources {
		if reader := src.get(ctx); reader != nil {
			if e, found := reader.Record(ctx, k); found {
				rec := *e.Record
				rec.From = src.ID
				add(&rec)
			}
		} else if ok && local.From == src.ID && ctx.Err() == nil && src.silent {
			add(local) // see Get
		}
	}
	return out
}

// PutHint keeps a record that is only a hint, whatever is there, here and, once the record is Used and the build saved, in the catalogs;
// it gives what is kept here. With unite the hint is a list of digests, the ones to try first in front, and is united with the lists that
// are there: of builds that do this at the same time none loses what another one adds, on this machine or in a catalog. r has what
// this build adds, not what it has read. The caller does not hold the key's lock.
//
// What a machine's own steps looked at is for everybody on it, whatever catalogs the build rests on: nobody need believe it. What was
// found in a catalog (r.From) is not kept here: those have it who read that catalog.
func (s *Session) PutHint(ctx context.Context, r *record.Record, unite bool) (*record.Record, error) {
	if !r.OnlyHint() || unite && len(catalog.UniteHints(r.Hint, nil)) != len(r.Hint) {
		return nil, fmt.Errorf("record %s is no hint, or no list of digests", r.Key)
	}
	if unite {
		s.add(r)
	}
	if r.From != "" {
		return r, nil
	}
	if !unite {
		return s.replaceHint(ctx, r)
	}
	unlock, err := s.cfg.Records.Lock(ctx, r.Key)
	if err != nil {
		return nil, err
	}
	defer unlock()
	own := *r
	if local, ok := s.cfg.Records.Get(r.Key); ok && local.From == "" {
		own.Hint = catalog.UniteHints(r.Hint, local.Hint)
		if bytes.Equal(own.Hint, local.Hint) {
			return local, nil
		}
	}
	return s.cfg.Records.Replace(&own)
}

// replaceHint keeps a hint in place of what is there, unless that says the same.
func (s *Session) replaceHint(ctx context.Context, r *record.Record) (*record.Record, error) {
	for _, t := range s.cfg.Targets {
		if reader := t.Own.get(ctx); reader != nil {
			if e, ok := reader.Record(ctx, r.Key); ok && !bytes.Equal(e.Record.Hint, r.Hint) {
				s.supersedeIn(t, e)
			}
		}
	}
	if local, ok := s.cfg.Records.Get(r.Key); ok && local.From == "" && bytes.Equal(local.Hint, r.Hint) {
		return local, nil
	}
	return s.cfg.Records.Replace(r)
}

// add notes what this build adds to a list.
func (s *Session) add(r *record.Record) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := *r
	if before := s.added[r.Key]; before != nil {
		c.Hint = catalog.UniteHints(r.Hint, before.Hint)
	}
	c.From = ""
	s.added[r.Key] = &c
}

// addition gives what this build adds to the list of a key; nil where there is no such list.
func (s *Session) addition(k key.Digest) *record.Record {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.added[k]
}

// listedElsewhere tells whether another scope of the same store, which everybody reads who reads the target, has all of a list.
func (s *Session) listedElsewhere(ctx context.Context, t *Target, list *record.Record) bool {
	for _, src := range s.everyones(t) {
		if reader := src.get(ctx); reader != nil {
			if e, ok := reader.Record(ctx, list.Key); ok && catalog.ListsAll(e.Record.Hint, list.Hint) {
				return true
			}
		}
	}
	return false
}

// Package cache is one build's view of its remote caches: it looks records up in the catalogs that the build may read,
// makes layers of what it finds there, sends what steps make while later ones still run, and saves the records when the
// build ends. The local root comes first in everything, and stands alone where a build has no remote cache.
package cache

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/opencontainers/go-digest"

	"larder/internal/catalog"
	"larder/internal/content"
	"larder/internal/key"
	"larder/internal/layer"
	"larder/internal/pack"
	"larder/internal/record"
	"larder/internal/remote"
	"larder/internal/snapshot"
)

// Source is a catalog that a build reads.
type Source struct {
	// Label names the source in messages: "registry.example/app (scope main)".
	Label string
	// ID names who is believed, for record.Record.From: store, scope and keys.
	ID string
	// Store has the blobs that the catalog names.
	Store remote.Store
	// Load reads the catalog. An error that wraps catalog.ErrAbsent says that there is none, or none that counts.
	Load func(ctx context.Context) (catalog.Reader, error)
	// Everyone says that whoever reads a catalog of this store reads this one too: what it has need not be saved elsewhere.
	Everyone bool
	// Holds lists blobs that the store has whether or not a catalog names them. Load may set it.
	Holds []digest.Digest

	loaded chan struct{}
	reader catalog.Reader // nil where there is none; after loaded
	silent bool           // there may be one, but its store does not answer; after loaded
}

// Target is a catalog that a build writes.
type Target struct {
	// Own reads the same catalog; it need not be among the sources that are looked up.
	Own *Source
	// Save merges a change into it.
	Save func(ctx context.Context, change catalog.Change) (catalog.Saved, error)
	// Max keeps the layers of all steps, not only those of results.
	Max bool
	// IgnoreError keeps a failure to write from counting where the session is strict.
	IgnoreError bool
}

// Config is what a Session works with. Records, Layers and Blobs are the local root's.
type Config struct {
	Records *record.Store
	Layers  *snapshot.Store
	Blobs   *content.Store

	Sources []*Source // in the order in which they are asked
	Mounts  []*Source // those in which cache mounts are found, in that order
	Targets []*Target
	// Domain says whom the build's cache mounts belong to on this machine, see cachemount.Local.In.
	Domain string
	// Kept is the form of layers that no image of this build carries.
	Kept layer.ExportOptions
	// Distrust packs every layer from its files, which are compared with its identity, instead of taking a catalog's word for what
	// its blobs are.
	Distrust bool
	// Warn is told of what was lost without failing the build, Note of what is good to know. Both may be nil.
	Warn, Note func(msg string)
}

// Session is the remote caches of one build. It implements the interfaces of package solve by which it looks up and keeps. It is
// safe for concurrent use.
type Session struct {
	cfg  Config
	mark string    // From of records that rest on the sources' word, see tainted
	own  []*Source // of the targets, where they are not among the sources
	ctx  context.Context
	stop context.CancelFunc
	work sync.WaitGroup

	mu        sync.Mutex
	used      map[key.Digest]*use  // records of this build
	order     []key.Digest         // of used
	replaced  map[place]key.Digest // digests of records that are not to stay
	forgotten map[key.Digest]bool
	added     map[key.Digest]*record.Record // what this build adds to lists that are united
	promised  map[key.Digest]bool           // pinned layers that a remote record names
	lost      map[key.Digest]bool           // layers of which there is no copy left
	bad       map[held]bool                 // blobs that could not be had
	gone      map[held]bool                 // those of them that their stores do not have, or not whole
	bases     map[key.Digest]*layer.Layer
	blobs     map[key.Digest]*publication          // by layer.BlobKey
	trees     map[key.Digest]*sending              // by digest
	sendings  map[digest.Digest]*sending           // of cache mounts: what this build sends
	packs     map[key.Digest]*sending              // of cache mounts, by digest
	pieces    map[string]map[key.Digest]pack.Piece // that are in packs, by their stores' names
	mounts    []*mountSave
	exports   []layer.ExportOptions
	sent      Sent
	errs      []error
	warned    map[string]bool
	down      map[string]bool // stores that will not answer any more
	// tainted says that this build rests on what catalogs say and nobody can check: what is at a place of a state, what an
	// operation sees of a base image. What it makes of that is not everybody's on this machine.
	tainted bool

	learn sync.Once // what LearnPieces does
}

// place is a record's in a catalog.
type place struct {
	catalog string // Source.ID
	key     key.Digest
}

// use is a record that this build used, with what it names.
type use struct {
	rec    *record.Record
	layers []*layer.Layer
	result bool // the layers become part of what the build makes
}

// Sent counts what went to the remote caches.
type Sent struct {
	Blobs   int   `json:"blobs"`
	Bytes   int64 `json:"bytes"`
	Records int   `json:"records"`
}

// Open begins to read the catalogs and returns at once. Close ends the session; ctx is that of the whole build.
func Open(ctx context.Context, cfg Config) *Session {
	s := &Session{
		cfg: cfg, used: map[key.Digest]*use{}, replaced: map[place]key.Digest{}, forgotten: map[key.Digest]bool{}, added: map[key.Digest]*record.Record{},
		promised: map[key.Digest]bool{}, lost: map[key.Digest]bool{}, bad: map[held]bool{}, gone: map[held]bool{},
		bases: map[key.Digest]*layer.Layer{}, blobs: map[key.Digest]*publication{}, trees: map[key.Digest]*sending{},
		sendings: map[digest.Digest]*sending{}, packs: map[key.Digest]*sending{}, pieces: map[string]map[key.Digest]pack.Piece{},
		warned: map[string]bool{}, down: map[string]bool{},
	}
	// Only builds that read the same catalogs believe what rests on them.
	h := key.New("larder.session.v1")
	for _, src := range cfg.Sources {
		h.Str(src.ID)
	}
	s.mark = "session " + h.Sum().String()
	s.ctx, s.stop = context.WithCancel(ctx)
	all := map[*Source]bool{}
	for _, src := range cfg.Sources {
		all[src] = true
	}
	for _, t := range cfg.Targets {
		if !all[t.Own] {
			all[t.Own] = true
			s.own = append(s.own, t.Own)
		}
	}
	for _, src := range cfg.Mounts {
		all[src] = true
	}
	for src := range all {
		src.loaded = make(chan struct{})
		s.work.Go(func() {
			defer close(src.loaded)
			s.load(src)
		})
	}
	return s
}

func (s *Session) load(src *Source) {
	reader, err := src.Load(s.ctx)
	switch {
	case err == nil:
		src.reader = reader
	case s.ctx.Err() != nil:
	case errors.Is(err, remote.ErrNotFound):
		s.note(fmt.Sprintf("%s is empty", src.Label))
	case errors.Is(err, catalog.ErrAbsent):
		s.warn(fmt.Sprintf("%s is not used: %v", src.Label, err))
	default:
		src.silent = true
		s.fail(src.Store, fmt.Errorf("%s cannot be read: %w", src.Label, err))
	}
}

// Close stops what still goes on.
func (s *Session) Close() {
	s.stop()
	s.work.Wait()
}

// get waits until a source is loaded and gives its reader; nil where it has none.
func (src *Source) get(ctx context.Context) catalog.Reader {
	select {
	case <-src.loaded:
		return src.reader
	case <-ctx.Done():
		return nil
	}
}

// covers tells whether the catalog has all of a change already, so that there is nothing to save.
func (src *Source) covers(ctx context.Context, change catalog.Change) bool {
	c, ok := src.get(ctx).(*catalog.Catalog)
	return ok && c.Covers(change)
}

// readers lists the catalogs that are looked up, in order.
func (s *Session) readers(ctx context.Context) []*Source {
	var out []*Source
	for _, src := range s.cfg.Sources {
		if src.get(ctx) != nil {
			out = append(out, src)
		}
	}
	return out
}

// known lists all catalogs that are there, those that are only written to as well.
func (s *Session) known(ctx context.Context) []*Source {
	out := s.readers(ctx)
	for _, src := range s.own {
		if src.get(ctx) != nil {
			out = append(out, src)
		}
	}
	return out
}

func (s *Session) note(msg string) {
	if s.cfg.Note != nil {
		s.cfg.Note(msg)
	}
}

func (s *Session) warn(msg string) {
	if s.cfg.Warn != nil {
		s.cfg.Warn(msg)
	}
}

// fail notes what a remote cache failed to do. One warning for each store is enough: what follows mostly has the same cause.
func (s *Session) fail(store remote.Store, err error) {
	s.mu.Lock()
	first := !s.warned[store.Name()]
	s.warned[store.Name()] = true
	s.down[store.Name()] = s.down[store.Name()] || errors.Is(err, remote.ErrDown)
	s.errs = append(s.errs, err)
	s.mu.Unlock()
	if first {
		s.warn(err.Error() + "; the build goes on without it")
	}
}

// Lose notes that something was not restored or saved, for a reason on this machine.
func (s *Session) Lose(err error) {
	s.mu.Lock()
	s.errs = append(s.errs, err)
	s.mu.Unlock()
	s.warn(err.Error())
}

// Err gives what the remote caches failed to do so far, for --cache-strict; nil where nothing was lost.
func (s *Session) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.errs) == 0 {
		return nil
	}
	return s.errs[0]
}

// Sent tells what was sent so far.
func (s *Session) Sent() Sent {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.sent
}

// Reads tells whether the session looks anything up in remote caches.
func (s *Session) Reads() bool { return len(s.cfg.Sources) > 0 }

// RestoresMounts tells whether the session has catalogs in which cache mounts are found.
func (s *Session) RestoresMounts() bool { return len(s.cfg.Mounts) > 0 }

// Writes tells whether the session saves anything.
func (s *Session) Writes() bool { return len(s.cfg.Targets) > 0 }

// Label names, for people, the catalog that a record's From stands for; one that rests on several has no other name than that of a remote cache.
func (s *Session) Label(from string) string {
	for _, src := range s.cfg.Sources {
		if src.ID == from {
			return src.Label
		}
	}
	return "a remote cache"
}

package catalog

import (
	"context"
	"sync"
	"time"

	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"larder/internal/key"
	"larder/internal/remote"
)

// Catalog is one scope's catalog as it was when it was loaded. It is safe for concurrent use.
type Catalog struct {
	store  remote.Store
	name   Name
	limits Limits
	now    func() time.Time
	doc    document

	mu    sync.Mutex
	later []state // further pages, the newest first; those that cannot be read are empty
	read  bool    // later is complete
}

var _ Reader = (*Catalog)(nil)

// Load reads a scope's catalog. An error wraps ErrAbsent where there is none that counts; any other says that the store does not
// answer.
func Load(ctx context.Context, store remote.Store, name Name, opt Options) (*Catalog, error) {
	opt = opt.withDefaults()
	doc, err := read(ctx, store, name, opt)
	if err != nil {
		return nil, err
	}
	return newCatalog(store, name, opt, doc), nil
}

func newCatalog(store remote.Store, name Name, opt Options, doc document) *Catalog {
	return &Catalog{store: store, name: name, limits: opt.Limits, now: opt.Now, doc: doc}
}

// Name says which catalog it is.
func (c *Catalog) Name() Name { return c.name }

// Sequence is the number of this version; later ones are higher.
func (c *Catalog) Sequence() uint64 { return c.doc.page.Sequence }

// Time is when this version was written, UTC, by its writer's clock.
func (c *Catalog) Time() time.Time { return c.doc.page.Time }

// SignedBy names the trusted key that signed this version, as Keys know it; "" where signatures are not checked.
func (c *Catalog) SignedBy() string { return c.doc.by }

// Read is how many bytes Load read.
func (c *Catalog) Read() int64 { return c.doc.bytes }

// Pages is the number of further pages.
func (c *Catalog) Pages() int { return len(c.doc.page.Pages) }

// find looks in the first page, and in the others where that does not satisfy ok.
func (c *Catalog) find(ctx context.Context, ok func(state) bool) bool {
	if ok(c.doc.state) {
		return true
	}
	for _, s := range c.further(ctx) {
		if ok(s) {
			return true
		}
	}
	return false
}

// further gives the other pages. The first call fetches them, all at once; one that fails stays empty, unless it was the
// caller's context that ended.
func (c *Catalog) further(ctx context.Context) []state {
	if len(c.doc.page.Pages) == 0 {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.read {
		return c.later
	}
	later := make([]state, len(c.doc.page.Pages))
	inParallel(c.doc.page.Pages, func(i int, ref pageRef) {
		if s, err := readPage(ctx, c.store, ref); err == nil {
			later[i] = s
		}
	})
	if ctx.Err() == nil {
		c.later, c.read = later, true
	}
	return later
}

// inParallel calls f for each element, some at once.
func inParallel[T any](list []T, f func(int, T)) {
	var wg sync.WaitGroup
	slots := make(chan struct{}, parallel)
	for i, v := range list {
		slots <- struct{}{}
		wg.Go(func() {
			f(i, v)
			<-slots
		})
	}
	wg.Wait()
}

// Record gives the record of a key.
func (c *Catalog) Record(ctx context.Context, k key.Digest) (Entry, bool) {
	var e Entry
	ok := c.find(ctx, func(s state) (ok bool) {
		e, ok = s.records[k]
		return ok
	})
	return e, ok
}

// Tree gives the blob of a tree.
func (c *Catalog) Tree(ctx context.Context, d key.Digest) (ocispecs.Descriptor, bool) {
	var desc ocispecs.Descriptor
	ok := c.find(ctx, func(s state) (ok bool) {
		desc, ok = s.trees[d]
		return ok
	})
	return desc, ok
}

// Layer gives the copies of a layer. The caller does not modify them.
func (c *Catalog) Layer(ctx context.Context, identity key.Digest) []Blob {
	var copies []Blob
	c.find(ctx, func(s state) bool {
		copies = s.layers[identity]
		return len(copies) > 0
	})
	return copies
}

// Mount gives a cache mount. The caller does not modify its segments.
func (c *Catalog) Mount(ctx context.Context, k key.Digest) (Mount, bool) {
	var m Mount
	ok := c.find(ctx, func(s state) (ok bool) {
		m, ok = s.mounts[k]
		return ok
	})
	return m, ok
}

// all gives everything, whatever page it is in: the first one that has a record says what it is.
func (c *Catalog) all(ctx context.Context) state {
	return united(c.doc.state, c.further(ctx))
}

func united(first state, pages []state) state {
	all := first.clone()
	for _, s := range pages {
		for k, e := range s.records {
			if _, have := all.records[k]; !have {
				all.take(s, e)
			}
		}
		for k, m := range s.mounts {
			if _, have := all.mounts[k]; !have {
				all.mounts[k] = m
			}
		}
	}
	return all
}

// Entries lists all records, the most recently used first.
func (c *Catalog) Entries(ctx context.Context) []Entry { return c.all(ctx).sorted() }

// Mounts lists all cache mounts, the most recently used first. The caller does not modify their segments.
func (c *Catalog) Mounts(ctx context.Context) []Mount { return c.all(ctx).sortedMounts() }

// Blobs lists every blob that the records and cache mounts need, each once, sorted by digest.
func (c *Catalog) Blobs(ctx context.Context) []ocispecs.Descriptor { return c.all(ctx).blobs() }

// Covers tells, without a request, whether Save with this change would write nothing: the catalog says all of it, and that it was used
// within a quarter of Limits.Age.
func (c *Catalog) Covers(change Change) bool {
	change, _ = admit(change)
	c.mu.Lock()
	known, all := c.doc.state, c.read || len(c.doc.page.Pages) == 0
	if c.read {
		known = united(known, c.later)
	}
	c.mu.Unlock()
	if oversize(c.doc.state, c.limits) {
		return false
	}
	for _, k := range change.Used {
		if _, have := known.records[k]; !have && !all {
			return false // it may stand in a page that has not been read
		}
	}
	return !known.differs(merge(known, change, nil, c.now()), c.limits.worth())
}

// oversize tells whether a first page has outgrown its limits: many wrote at once, or limits are lower now.
func oversize(first state, l Limits) bool {
	return packed(first) > l.Page || len(first.blobs()) > l.Blobs
}

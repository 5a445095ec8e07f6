package catalog

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"larder/internal/fault"
	"larder/internal/remote"
)

// Pruned says what Prune did.
type Pruned struct {
	Records  int // taken out
	Mounts   int // taken out
	Attempts int // how often it tried to write the document; 0 where there was nothing to take out
	// Blobs are those that the catalog named and no longer names. Other catalogs and images may: a store with a collector of its
	// own finds that out.
	Blobs []ocispecs.Descriptor
}

// Keep says what stays in a catalog. It may be asked more than once about the same. A function that is nil keeps all.
type Keep struct {
	Record func(Entry) bool
	Mount  func(Mount) bool
}

// Prune takes out of a scope's catalog what is not to be kept, and the trees and layers that only such records needed. What others save
// meanwhile stays. Further pages that interrupted builds left behind are noted, and removed by a Save or Prune an hour later.
func Prune(ctx context.Context, store remote.Store, name Name, keep Keep, opt Options) (Pruned, error) {
	w := newWriter(store, name, opt)
	if _, err := read(ctx, store, name, w.opt); err != nil {
		return Pruned{}, err
	}
	tags, err := store.Names(ctx, pagePrefix(name.Tag))
	if err != nil && !errors.Is(err, remote.ErrUnsupported) {
		return Pruned{}, fault.Errorf(fault.Registry, "list the pages of scope %q in %s: %w", name.Scope, store.Name(), err)
	}
	for _, tag := range tags {
		if isPageOf(name.Tag, tag) {
			w.made[tag] = true
		}
	}
	taken := map[itemID]bool{}
	dropped := map[digest.Digest]ocispecs.Descriptor{}
	w.edit = func(s state) state {
		after := s.clone()
		for _, it := range s.items() {
			if keep.item(it) {
				continue
			}
			taken[it.itemID] = true
			after.drop(it.itemID)
		}
		after.sweep()
		after = merge(after, Change{}, w.missing, w.start)
		for _, d := range s.blobs() {
			dropped[d.Digest] = d
		}
		for _, d := range after.blobs() {
			delete(dropped, d.Digest)
		}
		return after
	}
	if _, err := w.run(ctx); err != nil {
		return Pruned{}, fault.New(fault.Registry, err)
	}
	p := Pruned{Attempts: w.saved.Attempts}
	for id := range taken {
		if id.mount {
			p.Mounts++
		} else {
			p.Records++
		}
	}
	for _, d := range slices.Sorted(maps.Keys(dropped)) {
		p.Blobs = append(p.Blobs, dropped[d])
	}
	return p, nil
}

func (k Keep) item(it item) bool {
	if it.mount != nil {
		return k.Mount == nil || k.Mount(*it.mount)
	}
	return k.Record == nil || k.Record(it.entry)
}

// Remove takes a scope's catalog out of a store, whoever signed it. One that is not there is no error. What is no catalog stays, and is
// an error of kind Usage.
func Remove(ctx context.Context, store remote.Store, name Name) error {
	fail := func(err error) error {
		return fault.Errorf(fault.Registry, "remove the catalog of scope %q from %s: %w", name.Scope, store.Name(), err)
	}
	doc, err := read(ctx, store, name, Options{}.withDefaults())
	switch why := new(untrusted); {
	case errors.As(err, &why) && (why.held == other || why.held == buildKit):
		return fault.Errorf(fault.Usage, "the tag %s in %s stands for an image, or something else that larder did not write: it is not removed", name.Tag, store.Name())
	case why.held == broken && why.damaged && !scopeTag.MatchString(name.Tag):
		return fault.Errorf(fault.Usage, "what stands under the tag %s in %s is damaged, and may have been an image: it is not removed. "+
			"A build with that tag in --cache-to writes over it", name.Tag, store.Name())
	case why.elsewhere:
		// Registries delete what a tag stands for with all its tags: the catalog that this is a copy of would go too.
		w := newWriter(store, name, Options{})
		if _, err := w.write(ctx, current{document: document{version: doc.version}, all: newState()}, newState(), true); err != nil {
			return fail(err)
		}
	case err != nil && !errors.Is(err, ErrAbsent):
		return fail(err)
	}
	tags, err := store.Names(ctx, pagePrefix(name.Tag))
	if err != nil && !errors.Is(err, remote.ErrUnsupported) {
		return fault.Errorf(fault.Registry, "list the pages of scope %q in %s: %w", name.Scope, store.Name(), err)
	}
	// The first page goes first: nobody may find one that names pages which are gone.
	if err := store.DeleteManifest(ctx, name.Tag); err != nil {
		return fail(err)
	}
	for _, tag := range tags {
		if !isPageOf(name.Tag, tag) {
			continue
		}
		if err := removePage(ctx, store, tag); err != nil {
			return fail(err)
		}
	}
	return nil
}

// holds tells what stands under a tag.
func holds(ctx context.Context, store remote.Store, tag string) (kind, error) {
	raw, err := store.Manifest(ctx, tag)
	if errors.Is(err, remote.ErrDamaged) {
		return broken, nil
	}
	if err != nil {
		return broken, err
	}
	_, held := parse(raw.Bytes)
	return held, nil
}

// removePage takes the tag of a further page away. What is no page stays: anybody can have given it such a tag, and a registry deletes
// what a tag stands for with all its other tags.
func removePage(ctx context.Context, store remote.Store, tag string) error {
	switch held, err := holds(ctx, store, tag); {
	case err == nil && (held == other || held == buildKit):
		return nil
	case err != nil && !errors.Is(err, remote.ErrNotFound): // a directory may have the tag without its document
		return err
	}
	return store.DeleteManifest(ctx, tag)
}

// Summary describes one catalog of a store.
type Summary struct {
	Name     Name
	Sequence uint64
	Time     time.Time // when it was last written, UTC
	SignedBy string    // the trusted key that signed it; "" where signatures are not checked
	Records  int
	Blobs    int
	Bytes    int64 // of those blobs, compressed; catalogs may share some
	Pages    int   // further ones
	// Err says why the catalog does not count, or cannot be read; only Name.Tag is set then.
	Err    error
	Mounts []Mount // cache mounts, the most recently used first
}

// List describes the catalogs of all scopes of a store, sorted by scope. Those under other tags than ScopeTag's are not found; images
// whose tags begin alike are left out.
func List(ctx context.Context, store remote.Store, opt Options) ([]Summary, error) {
	tags, err := store.Names(ctx, tagPrefix)
	if err != nil {
		return nil, fault.Errorf(fault.Registry, "list the catalogs of %s: %w", store.Name(), err)
	}
	tags = slices.DeleteFunc(tags, isPageTag)
	list := make([]Summary, len(tags))
	inParallel(tags, func(i int, tag string) { list[i] = summarise(ctx, store, tag, opt) })
	list = slices.DeleteFunc(list, Summary.foreign)
	slices.SortFunc(list, func(a, b Summary) int {
		return strings.Compare(a.Name.Scope+"\x00"+a.Name.Tag, b.Name.Scope+"\x00"+b.Name.Tag)
	})
	return list, ctx.Err()
}

// foreign tells what is no catalog, for all that can be seen.
func (s Summary) foreign() bool {
	if why := new(untrusted); errors.As(s.Err, &why) {
		return why.held == other || why.held == buildKit || why.held == broken && !scopeTag.MatchString(s.Name.Tag)
	}
	return errors.Is(s.Err, ErrAbsent) && !scopeTag.MatchString(s.Name.Tag) // it has lost its document
}

func summarise(ctx context.Context, store remote.Store, tag string, opt Options) Summary {
	opt = opt.withDefaults()
	what := fmt.Sprintf("the catalog under the tag %s in %s", tag, store.Name())
	doc, err := readTag(ctx, store, tag, what, opt, func(scope string) bool { return ScopeTag(scope) == tag })
	if err != nil {
		return Summary{Name: Name{Tag: tag}, Err: err}
	}
	name := Name{doc.page.Scope, tag}
	c := newCatalog(store, name, opt, doc)
	all := c.all(ctx)
	blobs := all.blobs()
	s := Summary{Name: name, Sequence: c.Sequence(), Time: c.Time(), SignedBy: c.SignedBy(), Records: len(all.records), Blobs: len(blobs), Pages: c.Pages(), Mounts: all.sortedMounts()}
	for _, d := range blobs {
		s.Bytes += d.Size
	}
	return s
}

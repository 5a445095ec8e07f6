package catalog

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"larder/internal/remote"
)

// write puts a version into the store: further pages first, then the first page's blob, then the document, if the one that is there is
// still cur.
func (w *writer) write(ctx context.Context, cur current, next state, calm bool) (remote.Version, error) {
	l := lay(next, cur.pages, w.opt.Limits, calm, w.start)
	fresh, err := w.writePages(ctx, l.fresh)
	if err != nil {
		return remote.Absent, err
	}
	now := w.opt.Now().UTC()
	p := newPage(scopeName(w.name), now, l.first)
	p.Repository, p.Sequence = repository(w.store), w.nextSequence(cur)
	p.Pages = fresh
	for _, k := range l.kept {
		p.Pages = append(p.Pages, k.ref)
	}
	p.Retired = w.retire(cur, p.Pages, now)
	blob, err := p.encode()
	if err != nil {
		return remote.Absent, err
	}
	doc, config, err := makeDocument(blob, l.first.blobs(), w.opt.Limits.Inline, w.opt.Keys)
	if err != nil {
		return remote.Absent, err
	}
	if err := w.upload(ctx, config, blob); err != nil {
		return remote.Absent, err
	}
	version, err := w.store.PutManifest(ctx, w.name.Tag, doc, cur.version)
	if err != nil {
		return remote.Absent, err
	}
	w.saved.Bytes += int64(len(doc))
	if w.opt.Keys.Sign != nil {
		w.opt.memory(w.store).note(p.Repository, p.Scope, sighting{p.Sequence, p.Time})
	}
	return version, nil
}

func (w *writer) upload(ctx context.Context, desc ocispecs.Descriptor, b []byte) error {
	since := time.Now()
	_, err := w.store.Put(ctx, remote.Upload{Desc: desc, New: true, Open: func(context.Context) (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(b)), nil
	}})
	if err == nil {
		w.saved.Bytes += int64(len(b))
		w.pace.took(time.Since(since) / 2) // two requests
	}
	return err
}

// writePages stores further pages, each under a tag of its own, and names them. The time in it makes each page different from all
// that were ever there, so that removing an old tag cannot hit a new page.
func (w *writer) writePages(ctx context.Context, pages []state) ([]pageRef, error) {
	refs := make([]pageRef, 0, len(pages))
	for _, s := range pages {
		blob, err := newPage(scopeName(w.name), w.opt.Now(), s).encode()
		if err != nil {
			return nil, err
		}
		doc, config, err := makeDocument(blob, s.blobs(), 0, nil)
		if err != nil {
			return nil, err
		}
		ref := pageRef{Tag: pagePrefix(w.name.Tag) + digest.FromBytes(doc).Encoded()[:pageDigits], Blob: blobOf(config)}
		if err := w.upload(ctx, config, blob); err != nil {
			return nil, err
		}
		if _, err := w.store.PutManifest(ctx, ref.Tag, doc, remote.Any); err != nil {
			return nil, err
		}
		w.saved.Bytes += int64(len(doc))
		w.pages[ref.Tag], w.made[ref.Tag] = s, true
		refs = append(refs, ref)
	}
	return refs, nil
}

// retire lists the further pages that are no longer named. Another writer may have read the version that named one and name it again;
// it needs minutes for that at most, so a page that nobody named for an hour can go.
func (w *writer) retire(cur current, named []pageRef, now time.Time) []retirement {
	var list []retirement
	w.expired = nil
	add := func(tag string, since time.Time) {
		switch {
		case slices.ContainsFunc(named, func(r pageRef) bool { return r.Tag == tag }),
			slices.ContainsFunc(list, func(r retirement) bool { return r.Tag == tag }):
		case now.Sub(since) > grace:
			w.expired = append(w.expired, tag)
		default:
			list = append(list, retirement{tag, since.UTC()})
		}
	}
	if cur.page != nil {
		for _, r := range cur.page.Retired {
			add(r.Tag, r.Since)
		}
		for _, p := range cur.page.Pages {
			add(p.Tag, now)
		}
	}
	for tag := range w.made {
		add(tag, now)
	}
	return list[max(0, len(list)-maxRetired):]
}

// strays tells whether there are further pages that the catalog neither names nor has noted as retired.
func (w *writer) strays(cur current) bool {
	for tag := range w.made {
		if !slices.ContainsFunc(cur.page.Pages, func(p pageRef) bool { return p.Tag == tag }) &&
			!slices.ContainsFunc(cur.page.Retired, func(r retirement) bool { return r.Tag == tag }) {
			return true
		}
	}
	return false
}

// tidy removes the tags of pages that nobody needs, where the store can. What stays costs a little room.
func (w *writer) tidy(ctx context.Context) {
	inParallel(w.expired, func(_ int, tag string) { _ = removePage(ctx, w.store, tag) })
	w.expired = nil
}

// miss notes the blobs that a document named and the store does not have. Where the store does not say which, each is asked for.
func (w *writer) miss(ctx context.Context, list []digest.Digest, next state) error {
	named := map[digest.Digest]bool{}
	for _, d := range next.blobs() {
		named[d.Digest] = true
	}
	if len(list) == 0 {
		var (
			mu     sync.Mutex
			failed error
		)
		inParallel(next.blobs(), func(_ int, d ocispecs.Descriptor) {
			there, err := w.store.Has(ctx, d)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				failed = err
			} else if !there {
				list = append(list, d.Digest)
			}
		})
		if failed != nil {
			return fmt.Errorf("save the catalog of scope %q in %s: %w", w.name.Scope, w.store.Name(), failed)
		}
	}
	for _, d := range list {
		if named[d] && !w.missing[d] {
			w.missing[d] = true
			w.saved.Missing = append(w.saved.Missing, d)
		}
	}
	return nil
}

// nextSequence is the number of the next version: after the one that is there, and never below the clock, so that it goes up even
// where a catalog was lost.
func (w *writer) nextSequence(cur current) uint64 {
	n := uint64(max(w.opt.Now().UnixMilli(), 1))
	if cur.page != nil {
		n = max(n, cur.page.Sequence+1)
	}
	n = max(n, w.opt.memory(w.store).last(repository(w.store), scopeName(w.name)).Sequence+1)
	return min(n, maxSequence)
}

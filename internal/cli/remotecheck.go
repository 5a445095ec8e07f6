package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"larder/internal/cacheref"
	"larder/internal/catalog"
	"larder/internal/fault"
	"larder/internal/inline"
	"larder/internal/remote"
)

// verify looks whether every blob of the catalogs is there; with full they are read and compared. Blobs that are not as they should
// be are listed, and are an error of kind Build.
func (r *remoteCache) verify(ctx context.Context, full bool) error {
	bad := 0
	err := r.each(ctx, func(store remote.Store, c *catalog.Catalog) error {
		scope := oneLine(c.Name().Scope)
		problems, err := catalog.Check(ctx, store, c, full)
		if err != nil {
			return fault.New(fault.Registry, err)
		}
		for _, p := range problems {
			fmt.Fprintf(r.out, "%s: %s: %s%s\n", scope, p.Blob.Digest, lossText(p.Err), neededBy(p.Records))
		}
		bad += len(problems)
		if len(problems) > 0 {
			return nil
		}
		what := "there"
		if full {
			what = "there and undamaged"
		}
		fmt.Fprintf(r.out, "%s: %s, %s, all %s\n", scope, count(len(c.Entries(ctx)), "record"), count(len(c.Blobs(ctx)), "blob"), what)
		return nil
	})
	if err != nil {
		return err
	}
	if bad > 0 {
		return fault.Errorf(fault.Build, "missing or damaged: %s; a build that needs one runs its step again, and puts it right", count(bad, "blob"))
	}
	return nil
}

func lossText(err error) string {
	switch {
	case errors.Is(err, remote.ErrNotFound):
		return "missing"
	case errors.Is(err, remote.ErrDamaged):
		return "damaged"
	}
	return oneLine(err.Error())
}

func neededBy(records []string) string {
	var named []string
	for _, n := range records {
		if n != "" {
			named = append(named, oneLine(n))
		}
	}
	if len(named) == 0 {
		return ""
	}
	return ", needed by " + strings.Join(named, "; ")
}

// removed is what a prune took out of catalogs.
type removed struct {
	records, mounts, scopes int
	blobs                   []ocispecs.Descriptor // that those named
}

// prune takes the records and cache mounts out that were not used for so long; unused 0 removes whole catalogs.
func (r *remoteCache) prune(ctx context.Context, unused time.Duration) error {
	store, err := r.open(ctx, r.ref)
	if err != nil {
		return err
	}
	prune := func() (removed, error) { return r.pruneUnused(ctx, store, unused) }
	if unused <= 0 {
		prune = func() (removed, error) { return r.removeAll(ctx, store) }
	}
	gone, err := prune()
	if err != nil {
		return err
	}
	dropped := distinct(gone.blobs)
	fate := "the registry drops those that no image needs when it next collects garbage"
	switch r.ref.Type {
	case cacheref.Local:
		fate = "the directory drops those that were not touched for an hour"
	case cacheref.S3:
		fate = "they are deleted"
		if dropped, err = deleteUnnamed(ctx, store, dropped); err != nil {
			return err
		}
	}
	var bytes int64
	for _, d := range dropped {
		bytes += d.Size
	}
	line := "Removed " + count(gone.records, "record")
	if gone.mounts > 0 {
		line += " and " + count(gone.mounts, "cache mount")
	}
	line += " of " + count(gone.scopes, "scope")
	if len(dropped) > 0 {
		line += fmt.Sprintf("; %s, %s, no longer needed: %s", count(len(dropped), "blob"), size(bytes), fate)
	}
	_, err = fmt.Fprintln(r.out, line)
	return err
}

// count says how many things there are.
func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// removeAll removes catalogs, those that do not count too. What is no catalog stays.
func (r *remoteCache) removeAll(ctx context.Context, store remote.Store) (gone removed, err error) {
	var names []catalog.Name
	if r.scope != "" {
		names = []catalog.Name{catalog.NameOf(r.scope)}
	} else {
		list, err := catalog.List(ctx, store, r.opt)
		if err != nil {
			return gone, err
		}
		for _, s := range list {
			names = append(names, s.Name)
		}
	}
	for _, name := range names {
		c, err := catalog.Load(ctx, store, name, r.opt)
		switch {
		case err == nil:
			gone.records += len(c.Entries(ctx))
			gone.mounts += len(c.Mounts(ctx))
			gone.blobs = append(gone.blobs, c.Blobs(ctx)...)
			gone.scopes++
		case errors.Is(err, catalog.ErrAbsent):
		default:
			return gone, fault.New(fault.Registry, err)
		}
		if err := catalog.Remove(ctx, store, name); err != nil {
			return gone, err
		}
	}
	return gone, nil
}

func (r *remoteCache) pruneUnused(ctx context.Context, store remote.Store, unused time.Duration) (gone removed, err error) {
	names, err := r.names(ctx, store)
	if err != nil {
		return gone, err
	}
	oldest := r.now.Add(-unused)
	for _, name := range names {
		p, err := catalog.Prune(ctx, store, name, catalog.Keep{
			Record: func(e catalog.Entry) bool { return e.Used.After(oldest) },
			Mount:  func(m catalog.Mount) bool { return m.Used.After(oldest) },
		}, r.opt)
		if errors.Is(err, catalog.ErrAbsent) {
			return gone, fault.Errorf(fault.Usage, "%w; 'larder cache ls' lists the scopes that there are", err)
		}
		if err != nil {
			return gone, err
		}
		gone.records += p.Records
		gone.mounts += p.Mounts
		gone.blobs = append(gone.blobs, p.Blobs...)
		gone.scopes++
	}
	return gone, nil
}

// distinct drops what is there twice: scopes share blobs.
func distinct(list []ocispecs.Descriptor) []ocispecs.Descriptor {
	seen := map[digest.Digest]bool{}
	var out []ocispecs.Descriptor
	for _, d := range list {
		if !seen[d.Digest] {
			seen[d.Digest] = true
			out = append(out, d)
		}
	}
	return out
}

// deleteUnnamed deletes the blobs that no document of a store names any more, and gives them: for a store that nobody else
// collects. A build that relies on one at this very moment runs the step again.
func deleteUnnamed(ctx context.Context, store remote.Store, blobs []ocispecs.Descriptor) ([]ocispecs.Descriptor, error) {
	names, err := store.Names(ctx, "")
	if err != nil {
		return nil, fault.New(fault.Registry, err)
	}
	named := map[digest.Digest]bool{}
	for _, name := range names {
		doc, err := store.Manifest(ctx, name)
		if errors.Is(err, remote.ErrNotFound) {
			continue // somebody has just removed it
		}
		if err != nil { // nobody knows what it names
			return nil, fault.Errorf(fault.Registry, "no blob is deleted: %w", err)
		}
		for _, d := range inline.Blobs(doc.Bytes) {
			named[d.Digest] = true
		}
	}
	var gone []ocispecs.Descriptor
	for _, d := range blobs {
		if named[d.Digest] {
			continue
		}
		if err := store.Delete(ctx, d.Digest); err != nil {
			return nil, fault.New(fault.Registry, err)
		}
		gone = append(gone, d)
	}
	return gone, nil
}

package build

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"larder/internal/cache"
	"larder/internal/cacheref"
	"larder/internal/catalog"
	"larder/internal/fault"
	"larder/internal/inline"
	"larder/internal/registry"
	"larder/internal/remote"
	remotelocal "larder/internal/remote/local"
	remoteregistry "larder/internal/remote/registry"
	"larder/internal/remote/s3"
)

// Remotes opens remote stores, each once.
type Remotes struct {
	engine *Engine
	writes map[string]bool         // what will be written to, by the same names as stores
	stores map[string]remote.Store // by all that their references say but for the tag
	close  []func() error
}

// Remotes gives an opener of remote stores. Close it.
func (e *Engine) Remotes() *Remotes {
	return &Remotes{engine: e, writes: map[string]bool{}, stores: map[string]remote.Store{}}
}

// Close gives up all stores.
func (r *Remotes) Close() error {
	var errs []error
	for _, c := range slices.Backward(r.close) {
		errs = append(errs, c())
	}
	r.close = nil
	return errors.Join(errs...)
}

// Options says how catalogs are read and written.
func (r *Remotes) Options(keys *catalog.Keys) catalog.Options {
	return catalog.Options{Keys: keys, Seen: catalog.OpenSeen(filepath.Join(r.engine.root, "seen"))}
}

// identify tells stores apart: by all that a reference says of one, its credentials included, but not which document is meant.
func identify(ref cacheref.Ref) string {
	return fmt.Sprintf("%q %q %q %t %q %q", ref.Type, ref.Repository.Host, ref.Repository.Repo, ref.Insecure, ref.Dir, ref.Attrs)
}

// Open opens the store that a reference names.
func (r *Remotes) Open(ref cacheref.Ref) (remote.Store, error) {
	id := identify(ref)
	if have := r.stores[id]; have != nil {
		return have, nil
	}
	var store remote.Store
	var err error
	switch ref.Type {
	case cacheref.Registry:
		client := r.engine.registry
		if ref.Insecure {
			client = r.engine.newRegistry(ref.Repository.Host)
			r.close = append(r.close, func() error { client.Close(); return nil })
		}
		repository := remoteregistry.New(client, ref.Repository)
		if r.writes[id] {
			repository = repository.ForWriting()
		}
		store = repository
	case cacheref.Local:
		store, err = remotelocal.New(ref.Dir)
	case cacheref.S3:
		var cfg s3.Config
		if cfg, err = s3.FromAttrs(ref.Attrs, os.Getenv); err == nil {
			store, err = s3.New(cfg)
		}
	default:
		return nil, fault.Errorf(fault.Usage, "a cache of type %s has no store", ref.Type)
	}
	if err != nil {
		return nil, err
	}
	store = remote.Wrap(store, remote.Options{Policy: r.engine.cfg.Patience.Remote})
	r.stores[id] = store
	r.close = append(r.close, store.Close)
	return store, nil
}

// source makes a catalog of a store readable.
func (r *Remotes) source(store remote.Store, name catalog.Name, keys *catalog.Keys) *cache.Source {
	label := fmt.Sprintf("cache %s, scope %s", store.Name(), name.Scope)
	return &cache.Source{
		Label: label, ID: store.Name() + "#" + name.Scope + "@" + keys.ID(), Store: store,
		Load: func(ctx context.Context) (catalog.Reader, error) {
			return catalog.Load(ctx, store, name, r.Options(keys))
		},
	}
}

// session makes the catalogs of all references readable, each once, and gives the targets.
func (r *Remotes) session(c *Cache) (sources []*cache.Source, targets []*cache.Target, err error) {
	for _, ref := range c.To {
		r.writes[identify(ref)] = true
	}
	byID := map[string]*cache.Source{}
	once := func(src *cache.Source) *cache.Source {
		if have := byID[src.ID]; have != nil {
			return have
		}
		byID[src.ID] = src
		return src
	}
	add := func(src *cache.Source) {
		if !slices.Contains(sources, src) {
			sources = append(sources, src)
		}
	}
	for _, ref := range c.From {
		store, err := r.Open(ref)
		if err != nil {
			return nil, nil, fmt.Errorf("cache %s: %w", ref.Text, err)
		}
		if ref.Tag != "" {
			add(once(r.foreign(store, ref, c.Keys)))
			continue
		}
		for _, scope := range c.scopes() {
			src := once(r.source(store, catalog.NameOf(scope), c.Keys))
			src.Everyone = scope == DefaultScope
			add(src)
		}
	}
	for _, ref := range c.To {
		if ref.Type == cacheref.Inline {
			c.Inline = true
			continue
		}
		store, err := r.Open(ref)
		if err != nil {
			return nil, nil, fmt.Errorf("cache %s: %w", ref.Text, err)
		}
		scope := c.scopes()[0]
		if ref.Tag != "" {
			scope = catalog.TagScope + ref.Tag
		}
		name := catalog.NameOf(scope)
		targets = append(targets, &cache.Target{
			Own: once(r.source(store, name, c.Keys)), Max: ref.Max, IgnoreError: ref.IgnoreError,
			Save: func(ctx context.Context, change catalog.Change) (catalog.Saved, error) {
				return catalog.Save(ctx, store, name, change, r.Options(c.Keys))
			},
		})
	}
	return sources, targets, nil
}

// foreign makes what lies under a tag readable: larder's catalog, an image with larder's records in it, or something that another
// builder left, of which only the blobs are of use.
func (r *Remotes) foreign(store remote.Store, ref cacheref.Ref, keys *catalog.Keys) *cache.Source {
	src := r.source(store, catalog.NameOf(catalog.TagScope+ref.Tag), keys)
	src.Label = "cache " + ref.Text
	load := src.Load
	src.Load = func(ctx context.Context) (catalog.Reader, error) {
		reader, absent := load(ctx)
		if !errors.Is(absent, catalog.ErrAbsent) || errors.Is(absent, remote.ErrNotFound) {
			return reader, absent
		}
		doc, err := store.Manifest(ctx, ref.Tag)
		if err != nil {
			return nil, err
		}
		found, err := inline.Inspect(ctx, doc.Bytes, fetcher(store), nil)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", catalog.ErrAbsent, err)
		}
		if found.Kind == inline.Catalog {
			return nil, absent
		}
		for _, b := range found.Blobs {
			src.Holds = append(src.Holds, b.Digest)
		}
		data := found.Records()
		switch {
		case data == nil && len(found.Problems) > 0:
			return nil, fmt.Errorf("%w: %w", catalog.ErrAbsent, errors.Join(found.Problems...))
		case data == nil:
			return nil, fmt.Errorf("%w: it is %s; its layers still spare transfers", catalog.ErrAbsent, found.Kind)
		case keys.ID() != "":
			return nil, fmt.Errorf("%w: records in an image are not signed, and --cache-verify-key asks for signatures", catalog.ErrAbsent)
		}
		return data.Reader(), nil
	}
	return src
}

// fetcher reads what an index or a manifest of a store names.
func fetcher(store remote.Store) inline.Fetcher {
	return func(ctx context.Context, desc ocispecs.Descriptor) ([]byte, error) {
		switch desc.MediaType {
		case ocispecs.MediaTypeImageManifest, ocispecs.MediaTypeImageIndex, registry.MediaTypeDockerManifest, registry.MediaTypeDockerList:
			doc, err := store.Manifest(ctx, desc.Digest.String())
			return doc.Bytes, err
		}
		rc, err := store.Open(ctx, desc)
		if err != nil {
			return nil, err
		}
		defer rc.Close()
		return io.ReadAll(io.LimitReader(rc, desc.Size+1))
	}
}

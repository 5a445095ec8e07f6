package build

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"

	"github.com/docker/go-units"

	"larder/internal/cache"
	"larder/internal/cacheref"
	"larder/internal/catalog"
	"larder/internal/fault"
	"larder/internal/inline"
	"larder/internal/key"
	"larder/internal/layer"
	"larder/internal/progress"
	"larder/internal/registry"
)

// DefaultScope is the scope that is written where none is said, and read after all others.
const DefaultScope = "default"

// Cache says which remote caches a build reads and writes, and how far it believes them.
type Cache struct {
	From, To []cacheref.Ref
	// Scope is who this build writes as; empty for DefaultScope. ReadScopes are read after it, in order, and then DefaultScope.
	Scope      string
	ReadScopes []string
	Keys       *catalog.Keys
	// Strict fails the build where a cache could not be read or written.
	Strict bool
	// Inline puts records into the image.
	Inline bool
	// Verify runs hits again and compares.
	Verify bool
	// Refresh says from which age on results are made anew.
	Refresh Refresh
}

// scopes lists what is read, in order.
func (c *Cache) scopes() []string {
	own := c.Scope
	if own == "" {
		own = DefaultScope
	}
	list := append([]string{own}, c.ReadScopes...)
	list = append(list, DefaultScope)
	var out []string
	for _, s := range list {
		if !slices.Contains(out, s) {
			out = append(out, s)
		}
	}
	return out
}

// form is how layers are packed that no image carries: fast, unless --cache-to says otherwise.
func (c *Cache) form() layer.ExportOptions {
	for _, ref := range c.To {
		if ref.Compression != nil {
			return layer.ExportOptions{Compression: *ref.Compression, Level: ref.Level}
		}
		if ref.Level != nil { // BuildKit's default is gzip, and its levels are meant
			return layer.ExportOptions{Level: ref.Level}
		}
	}
	return layer.ExportOptions{Compression: layer.Zstd}
}

// session begins a build's use of its remote caches.
func (e *Engine) session(ctx context.Context, remotes *Remotes, r *Request, stream *progress.Stream) (*cache.Session, error) {
	c := &r.Cache
	if v := r.Args["BUILDKIT_INLINE_CACHE"]; v != "" {
		on, err := strconv.ParseBool(v)
		if err != nil {
			return nil, fault.Errorf(fault.Usage, "--build-arg BUILDKIT_INLINE_CACHE=%s: 1 or 0 is expected", v)
		}
		c.Inline = c.Inline || on
	}
	note := func(msg string) { stream.Begin(msg).Done(nil) }
	for _, ref := range slices.Concat(c.From, c.To) {
		for _, n := range ref.Notes {
			e.warn("%s", n)
		}
	}
	for _, ref := range c.To {
		for _, tag := range r.Tags {
			image, err := registry.ParseRef(tag)
			if err == nil && ref.Type == cacheref.Registry && ref.Tag != "" && image.Name() == ref.Repository.Name() && image.Tag == ref.Tag {
				return nil, fault.Errorf(fault.Usage, "the image and the cache are both to be %s: choose another tag for --cache-to, or --cache %s, which needs none", ref.Text, image.Name())
			}
		}
	}
	sources, targets, err := remotes.session(c)
	if err != nil {
		return nil, err
	}
	domain := mountDomain(sources, targets, r.Mounts)
	var found []*cache.Source // in which cache mounts are looked for
	if r.Mounts.Restore {
		found = sources
	}
	if r.NoCache {
		sources = nil // what they say of file operations and base images is not to count either
	}
	if len(targets) > 0 && c.Keys.ID() != "" && len(c.Keys.Sign) == 0 {
		note("nothing is written to the cache: --cache-verify-key asks for signatures, and without --cache-sign-key there would be none")
		targets = nil
	}
	return cache.Open(ctx, cache.Config{
		Records: e.records, Layers: e.layers, Blobs: e.blobs, Sources: sources, Mounts: found, Targets: targets, Domain: domain,
		Kept: c.form(), Distrust: c.Verify || r.NoCache,
		Warn: func(msg string) { e.warn("%s", msg) }, Note: note,
	}), nil
}

// save waits for what is on its way to the caches and saves the records of this build.
func (b *building) save(ctx context.Context) error {
	b.flush(ctx)
	if !b.session.Writes() {
		return b.strict()
	}
	line := b.stream.Begin("saving to the cache")
	b.session.Save(progress.With(ctx, line))
	sent := b.session.Sent()
	switch {
	case b.session.Err() != nil:
	case sent == (cache.Sent{}):
		line.Note("nothing is new")
	default:
		line.Note(fmt.Sprintf("%d records, %d blobs of %s sent", sent.Records, sent.Blobs, units.BytesSize(float64(sent.Bytes))))
	}
	line.Done(nil)
	return b.strict()
}

// strict gives what the caches failed to do, where that is to fail the build.
func (b *building) strict() error {
	if err := b.session.Err(); err != nil && b.req.Cache.Strict {
		return fault.Errorf(fault.Registry, "--cache-strict: %w", err)
	}
	return nil
}

// inline gives the fields of an image's config that carry this build's records, where that was asked for.
func (j *job) inline(ctx context.Context, part int, layers []*layer.Blob) (map[string]json.RawMessage, error) {
	if !j.req.Cache.Inline {
		return nil, nil
	}
	data := &inline.Data{Layers: map[key.Digest][]catalog.Blob{}}
	for i, l := range j.parts[part].State.Layers() {
		if l.Blob != nil {
			continue
		}
		k, err := layer.BlobKey(l.Identity, false, form(j.out, j.epoch))
		if err != nil {
			return nil, err
		}
		data.Layers[l.Identity] = []catalog.Blob{{Key: k, Desc: layers[i].Desc, DiffID: layers[i].DiffID}}
	}
	data.Records = j.session.Records(ctx, func(id key.Digest) bool { return len(data.Layers[id]) > 0 })
	if j.epoch != nil {
		data = data.Clamped(*j.epoch)
	}
	b, err := data.Marshal()
	if err != nil { // too much of it: the image is none the worse (DESIGN invariant 7)
		j.e.warn("the image carries no cache: %v", err)
		return nil, nil
	}
	return map[string]json.RawMessage{inline.Field: b}, nil
}

// Package registry pushes images.
package registry

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"

	"larder/internal/content"
	"larder/internal/export"
	"larder/internal/image"
	"larder/internal/registry"
)

// parallel is how many blobs are on their way at once.
const parallel = 5

// Options say how an image is pushed.
type Options struct {
	Client *registry.Client
	Store  *content.Store // where layers without a Fetch are
	// ByDigest pushes without a tag; names are repositories then.
	ByDigest bool
	// Event, where set, is told what is being done ("pushing layers"). Calls come one at a time.
	Event func(what string)
}

// Result tells what a push cost.
type Result struct {
	Tags int // tags that pointed elsewhere before, or nowhere
	Sent int // blobs whose bytes were sent
}

// Push brings an image into the registries under each of its names. A tag that points to the image already costs the one
// HEAD that tells so, and nothing is sent. Blobs go before the manifests that name them.
func Push(ctx context.Context, img *image.Image, names []string, opt Options) (Result, error) {
	p := &pusher{img: img, opt: opt, items: export.Items(img, opt.Store), holders: map[string]bool{}}
	for _, n := range names {
		ref, err := registry.ParseRef(n)
		if err != nil {
			return p.res, err
		}
		if opt.ByDigest {
			ref = ref.WithDigest(img.Desc.Digest)
		}
		if err := p.push(ctx, ref); err != nil {
			return p.res, err
		}
	}
	return p.res, nil
}

type pusher struct {
	img   *image.Image
	opt   Options
	items []export.Item
	res   Result

	holders map[string]bool // repositories that have got all blobs
}

func (p *pusher) event(format string, args ...any) {
	if p.opt.Event != nil {
		p.opt.Event(fmt.Sprintf(format, args...))
	}
}

func (p *pusher) push(ctx context.Context, ref registry.Ref) error {
	desc, err := p.opt.Client.ResolvePush(ctx, ref)
	switch {
	case err == nil && desc.Digest == p.img.Desc.Digest:
		p.event("%s is up to date", ref)
		return nil
	case err != nil && !errors.Is(err, registry.ErrNotFound) && !errors.Is(err, registry.ErrDenied):
		return err // some registries deny a look at what does not exist yet; the push itself tells then
	}
	p.event("pushing layers")
	if err := p.blobs(ctx, ref, false); err != nil {
		return err
	}
	p.event("pushing manifest for %s", ref)
	err = p.manifests(ctx, ref)
	var re *registry.Error
	if errors.As(err, &re) && (re.Code == "MANIFEST_BLOB_UNKNOWN" || re.Code == "BLOB_UNKNOWN" || re.Status == http.StatusNotFound) {
		// The registry has not what it was believed to have: ask for each blob and try once more.
		if err = p.blobs(ctx, ref, true); err == nil {
			err = p.manifests(ctx, ref)
		}
	}
	if err == nil {
		p.res.Tags++
	}
	return err
}

// blobs brings layers and configs into a repository.
func (p *pusher) blobs(ctx context.Context, ref registry.Ref, check bool) error {
	if p.holders[ref.Name()] && !check {
		return nil
	}
	var others []string // a neighbour that has everything can be mounted from
	for name := range p.holders {
		others = append(others, name)
	}
	slices.Sort(others)
	var mu sync.Mutex
	eg, ctx := errgroup.WithContext(ctx)
	eg.SetLimit(parallel)
	for _, it := range p.items {
		if p.isDocument(it) {
			continue
		}
		eg.Go(func() error {
			up := registry.Upload{Desc: it.Desc, Open: it.Open, Check: check, Origin: slices.Clone(others)}
			if it.Layer != nil {
				up.Origin = append(up.Origin, it.Layer.Origin...)
			}
			sent, err := p.opt.Client.PushBlob(ctx, ref, up)
			if sent {
				mu.Lock()
				p.res.Sent++
				mu.Unlock()
			}
			return err
		})
	}
	err := eg.Wait()
	if err == nil {
		p.holders[ref.Name()] = true
	}
	return err
}

// isDocument tells manifests and the index from blobs.
func (p *pusher) isDocument(it export.Item) bool {
	if it.Desc.Digest == p.img.Desc.Digest {
		return true
	}
	return slices.ContainsFunc(p.img.Manifests, func(m image.Manifest) bool { return m.Desc.Digest == it.Desc.Digest })
}

// manifests pushes the manifests of an index by digest, then the root under the tag.
func (p *pusher) manifests(ctx context.Context, ref registry.Ref) error {
	if p.img.Index == nil {
		m := p.img.Manifests[0]
		return p.opt.Client.PushManifest(ctx, ref, m.Desc.MediaType, m.Bytes)
	}
	eg, egctx := errgroup.WithContext(ctx)
	eg.SetLimit(parallel)
	for _, m := range p.img.Manifests {
		eg.Go(func() error {
			return p.opt.Client.PushManifest(egctx, ref.WithDigest(m.Desc.Digest), m.Desc.MediaType, m.Bytes)
		})
	}
	if err := eg.Wait(); err != nil {
		return err
	}
	return p.opt.Client.PushManifest(ctx, ref, p.img.Desc.MediaType, p.img.Index)
}

package inline

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"larder/internal/catalog"
	"larder/internal/key"
	"larder/internal/registry"
)

// Fetcher gets what a document names: manifests, and configs. Inspect asks for several at once, and verifies what it gets.
type Fetcher func(ctx context.Context, desc ocispecs.Descriptor) ([]byte, error)

// Found is what a name stands for.
type Found struct {
	// Kind is that of the most useful part.
	Kind Kind
	// Images are the images of the platforms that were asked for; none for a cache that is no image.
	Images []Part
	// Blobs are the layers that all parts name, each once. The repository has them.
	Blobs []ocispecs.Descriptor
	// Problems say what could not be read or is damaged; it counts as absent.
	Problems []error
}

// Part is the image of one platform.
type Part struct {
	Platform ocispecs.Platform
	Kind     Kind
	// Data are larder's records, for Kind Inline. The layers that they name are in the image.
	Data *Data
}

// Records gives the records of all platforms together; nil where there are none.
func (f *Found) Records() *Data {
	var all *Data
	for _, p := range f.Images {
		if p.Data == nil {
			continue
		}
		if all == nil {
			all = &Data{Layers: map[key.Digest][]catalog.Blob{}}
		}
		all.Records = append(all.Records, p.Data.Records...)
		for id, copies := range p.Data.Layers {
			for _, c := range copies {
				if !slices.ContainsFunc(all.Layers[id], func(have catalog.Blob) bool { return have.Desc.Digest == c.Desc.Digest && have.Key == c.Key }) {
					all.Layers[id] = append(all.Layers[id], c)
				}
			}
		}
	}
	return all
}

// Bounds of what is fetched.
const (
	maxParts   = 64 // images of an index
	inParallel = 8
)

// Inspect looks into the document of a name: root is its bytes, which the caller has verified. Of an index the images of the
// platforms are looked at, of all platforms where none are given. An error says that root is no manifest, or that ctx ended;
// whatever is wrong below it is a Problem.
func Inspect(ctx context.Context, root []byte, fetch Fetcher, wanted []ocispecs.Platform) (*Found, error) {
	m, err := parse(root)
	if err != nil {
		return nil, err
	}
	f := &Found{Kind: m.kind(nil), Blobs: m.blobs()}
	if f.Kind != Image {
		return f, nil
	}
	images := []candidate{{manifest: m}}
	if m.Manifests != nil {
		images = choose(m.Manifests, wanted)
	}
	if len(images) > maxParts {
		f.Problems = append(f.Problems, fmt.Errorf("an index of %d images: only the first %d are looked at", len(images), maxParts))
		images = images[:maxParts]
	}
	eg := new(errgroup.Group)
	eg.SetLimit(inParallel)
	for i := range images {
		eg.Go(func() error {
			images[i].problem = images[i].read(ctx, fetch)
			return nil
		})
	}
	_ = eg.Wait() // each image keeps its own problem
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	for _, img := range images {
		if img.problem != nil {
			f.Problems = append(f.Problems, img.problem)
		}
		if img.manifest == nil {
			continue
		}
		f.Images = append(f.Images, img.part)
		f.Kind = max(f.Kind, img.part.Kind)
		f.Blobs = append(f.Blobs, img.manifest.blobs()...)
	}
	f.Blobs = unique(f.Blobs)
	return f, nil
}

// candidate is a part on its way.
type candidate struct {
	desc     ocispecs.Descriptor // of its manifest, where that is still to be fetched
	manifest *manifest
	part     Part
	problem  error
}

// choose picks the images of an index.
func choose(entries []ocispecs.Descriptor, wanted []ocispecs.Platform) []candidate {
	var matchers []platforms.Matcher
	for _, p := range wanted {
		matchers = append(matchers, platforms.NewMatcher(p))
	}
	var out []candidate
	for _, d := range entries {
		if d.MediaType != ocispecs.MediaTypeImageManifest && d.MediaType != registry.MediaTypeDockerManifest || isAttestation(d) {
			continue
		}
		matches := func(m platforms.Matcher) bool { return m.Match(*d.Platform) }
		if d.Platform == nil || len(wanted) == 0 || slices.ContainsFunc(matchers, matches) {
			out = append(out, candidate{desc: d})
		}
	}
	return out
}

// read fetches the manifest, where it is not there yet, and the config. An error leaves what was read before it.
func (img *candidate) read(ctx context.Context, fetch Fetcher) error {
	if img.manifest == nil {
		b, err := get(ctx, fetch, img.desc, registry.MaxManifest)
		if err != nil {
			return fmt.Errorf("manifest %s: %w", img.desc.Digest, err)
		}
		m, err := parse(b)
		if err != nil {
			return fmt.Errorf("manifest %s: %w", img.desc.Digest, err)
		}
		img.manifest = m
	}
	if img.desc.Platform != nil {
		img.part.Platform = *img.desc.Platform
	}
	if img.part.Kind = img.manifest.kind(nil); img.part.Kind != Image {
		return nil
	}
	desc := *img.manifest.Config
	config, err := get(ctx, fetch, desc, maxConfig)
	if err != nil {
		return fmt.Errorf("image config %s: %w", desc.Digest, err)
	}
	if img.desc.Platform == nil {
		var p ocispecs.Platform
		if err := json.Unmarshal(config, &p); err != nil {
			return fmt.Errorf("image config %s: %w", desc.Digest, err)
		}
		img.part.Platform = platforms.Normalize(p)
	}
	kind := img.manifest.kind(config)
	if kind == Inline {
		d, _, err := FromConfig(config)
		if err != nil {
			return fmt.Errorf("image config %s: %w", desc.Digest, err)
		}
		d.keep(img.manifest.blobs())
		img.part.Data = d
	}
	img.part.Kind = kind
	return nil
}

// keep drops copies that are no layers of the image: nothing keeps a registry from deleting those, and who copies an image and
// compresses it anew makes other blobs.
func (d *Data) keep(layers []ocispecs.Descriptor) {
	size := make(map[digest.Digest]int64, len(layers))
	for _, l := range layers {
		size[l.Digest] = l.Size
	}
	for id, copies := range d.Layers {
		copies = slices.DeleteFunc(copies, func(c catalog.Blob) bool { return size[c.Desc.Digest] != c.Desc.Size })
		if len(copies) == 0 {
			delete(d.Layers, id)
			continue
		}
		d.Layers[id] = copies
	}
}

// get fetches what desc names, with a bound on its size, and compares the digest.
func get(ctx context.Context, fetch Fetcher, desc ocispecs.Descriptor, most int64) ([]byte, error) {
	if err := desc.Digest.Validate(); err != nil {
		return nil, err
	}
	if desc.Size <= 0 || desc.Size > most {
		return nil, fmt.Errorf("%d bytes (the limit is %d)", desc.Size, most)
	}
	b, err := fetch(ctx, desc)
	if err != nil {
		return nil, err
	}
	if int64(len(b)) != desc.Size || desc.Digest.Algorithm().FromBytes(b) != desc.Digest {
		return nil, errors.New("other bytes came than were asked for")
	}
	return b, nil
}

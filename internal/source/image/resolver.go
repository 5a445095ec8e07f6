package image

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"larder/internal/content"
	"larder/internal/fault"
	"larder/internal/layer"
	"larder/internal/registry"
)

// Mode says how much a registry is asked about a tag. The values are those of LLB's image.resolvemode.
type Mode string

// The modes.
const (
	Default     Mode = "default" // ask what the tag points to
	Pull        Mode = "pull"    // the same: larder never believes an old tag
	PreferLocal Mode = "local"   // believe what the tag pointed to when it was last asked for
)

const (
	maxConfig = 8 << 20 // bytes of an image config
	maxLayers = 1000    // of an image
)

// Image is a base image for one platform. It is immutable.
type Image struct {
	Ref      string              // as it was asked for, with all parts spelt out
	Desc     ocispecs.Descriptor // what the reference points to, an index or a manifest
	Manifest ocispecs.Descriptor // the manifest of the platform
	Config   []byte
	Layers   []*layer.Blob // the bottom one first
}

// Digest is what pins the image: of the index where there is one, as BuildKit does it.
func (i *Image) Digest() digest.Digest { return i.Desc.Digest }

// Options are what a Resolver works with.
type Options struct {
	Registry *registry.Client
	Store    *content.Store
	// Tags is a directory that remembers what tags pointed to; it is made when it is needed. Empty remembers nothing.
	Tags string
	// Layouts are the directories of OCI layouts by the name that a build gives them.
	Layouts map[string]string
}

// Resolver finds base images for one build: each tag is asked for once in its life. It is safe for concurrent use.
type Resolver struct {
	opt  Options
	mu   sync.Mutex
	tags map[string]*tag
}

// tag is what one tag points to, in this build.
type tag struct {
	mu   sync.Mutex // held while the registry is asked
	desc ocispecs.Descriptor
}

// New makes a Resolver for one build.
func New(opt Options) *Resolver { return &Resolver{opt: opt, tags: make(map[string]*tag)} }

// Resolve finds an image in its registry. platform nil means this machine's.
func (r *Resolver) Resolve(ctx context.Context, name string, platform *ocispecs.Platform, mode Mode) (*Image, error) {
	switch mode {
	case "", Default, Pull, PreferLocal:
	default:
		return nil, fault.Errorf(fault.Usage, "image %s: resolve mode %q is none of default, pull, local", name, mode)
	}
	ref, err := registry.ParseRef(name)
	if err != nil {
		return nil, err
	}
	src := &remote{r: r, ref: ref}
	desc, err := r.root(ctx, src, mode)
	if err != nil {
		return nil, err
	}
	return load(ctx, src, ref.String(), desc, platform)
}

// root finds out what a reference points to.
func (r *Resolver) root(ctx context.Context, src *remote, mode Mode) (ocispecs.Descriptor, error) {
	ref := src.ref
	if ref.Digest != "" {
		return ocispecs.Descriptor{Digest: ref.Digest}, nil
	}
	r.mu.Lock()
	t := r.tags[ref.String()]
	if t == nil {
		t = &tag{}
		r.tags[ref.String()] = t
	}
	r.mu.Unlock()
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.desc.Digest != "" {
		return t.desc, nil
	}
	old, known := r.recall(ref)
	if known && mode == PreferLocal {
		t.desc = ocispecs.Descriptor{Digest: old}
		return t.desc, nil
	}
	if known {
		if _, err := r.opt.Store.Stat(old); err != nil {
			known = false
		}
	}
	var err error
	if known {
		// Most probably it points to what is here already.
		t.desc, err = r.opt.Registry.Resolve(ctx, ref)
	} else {
		// The document would be asked for next: a GET tells both at once.
		var b []byte
		if t.desc, b, err = r.opt.Registry.Fetch(ctx, ref); err == nil {
			src.keep(ctx, t.desc.Digest, b)
		}
	}
	if err == nil && t.desc.Digest != old {
		r.remember(ref, t.desc.Digest)
	}
	return t.desc, err
}

// source is where an image's documents and layers come from.
type source interface {
	// document gives a manifest, index or config, verified. Size is 0 where it is not known.
	document(ctx context.Context, desc ocispecs.Descriptor, manifest bool) ([]byte, error)
	// blob makes a layer fetchable.
	blob(desc ocispecs.Descriptor) *layer.Blob
}

// remote is a repository in a registry.
type remote struct {
	r   *Resolver
	ref registry.Ref
}

func (s *remote) document(ctx context.Context, desc ocispecs.Descriptor, manifest bool) ([]byte, error) {
	limit := int64(maxConfig)
	if manifest {
		limit = registry.MaxManifest
	}
	if desc.Size > limit {
		return nil, fault.Errorf(fault.Registry, "%s: document %s has %d bytes, more than %d are not read", s.ref, desc.Digest, desc.Size, limit)
	}
	b, err := s.r.opt.Store.ReadAll(ctx, desc.Digest, limit)
	if err == nil || ctx.Err() != nil {
		return b, err
	}
	if manifest {
		b, err = s.r.opt.Registry.Manifest(ctx, s.ref, desc)
	} else if b, err = s.config(ctx, desc); errors.Is(err, registry.ErrDamaged) {
		b, err = s.config(ctx, desc) // it may have been hurt on its way
	}
	if err == nil {
		s.keep(ctx, desc.Digest, b)
	}
	return b, err
}

func (s *remote) config(ctx context.Context, desc ocispecs.Descriptor) ([]byte, error) {
	rc, err := s.r.opt.Registry.Blob(ctx, s.ref, desc)
	if err != nil {
		return nil, err
	}
	defer rc.Close()
	return io.ReadAll(rc)
}

// keep stores a document for the next build. It is a cache: failure costs a request, nothing else.
func (s *remote) keep(ctx context.Context, d digest.Digest, b []byte) {
	s.r.opt.Store.Ingest(ctx, bytes.NewReader(b), d, int64(len(b)))
}

func (s *remote) blob(desc ocispecs.Descriptor) *layer.Blob {
	return &layer.Blob{Desc: desc, Origin: []string{s.ref.Name()}, Fetch: func(ctx context.Context) (io.ReadCloser, error) {
		return s.r.opt.Registry.Blob(ctx, s.ref, desc)
	}}
}

// load reads an image's documents.
func load(ctx context.Context, src source, name string, root ocispecs.Descriptor, platform *ocispecs.Platform) (*Image, error) {
	c := &chooser{src: src, name: name, match: matcher(platform)}
	m, err := c.choose(ctx, root, 0)
	if err != nil {
		return nil, err
	}
	img := &Image{Ref: name, Desc: c.root, Manifest: m.desc, Config: m.config}
	bad := func(format string, args ...any) error {
		return fault.Errorf(fault.Registry, "%s is no image that can be built on: %w", name, fmt.Errorf(format, args...))
	}
	if m.config == nil {
		if img.Config, err = src.document(ctx, m.doc.Config, false); err != nil {
			return nil, describe(name, err)
		}
	}
	var config ocispecs.Image
	if err := json.Unmarshal(img.Config, &config); err != nil {
		return nil, bad("its config is not one of an image (type %.100q)", m.doc.Config.MediaType)
	}
	if len(config.RootFS.DiffIDs) != len(m.doc.Layers) {
		return nil, bad("its config names %d layers, its manifest %d", len(config.RootFS.DiffIDs), len(m.doc.Layers))
	}
	if len(m.doc.Layers) > maxLayers {
		return nil, bad("it has %d layers", len(m.doc.Layers))
	}
	for i, d := range m.doc.Layers {
		if err := errors.Join(d.Digest.Validate(), config.RootFS.DiffIDs[i].Validate()); err != nil || d.Size < 0 {
			return nil, bad("layer %d: digest %.100q, size %d", i, d.Digest, d.Size)
		}
		b := src.blob(d)
		b.DiffID = config.RootFS.DiffIDs[i]
		img.Layers = append(img.Layers, b)
	}
	return img, nil
}

// describe adds the image's name to an error that has none.
func describe(name string, err error) error {
	var re *registry.Error
	if errors.As(err, &re) {
		return err // it names what was asked for
	}
	return fmt.Errorf("image %s: %w", name, err)
}

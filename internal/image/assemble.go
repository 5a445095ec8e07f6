package image

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/containerd/platforms"
	"github.com/moby/buildkit/exporter/containerimage/exptypes"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"larder/internal/fault"
	"larder/internal/layer"
)

// maxLayers bounds the layers of an image: no runtime mounts more, and a manifest stays far below 4 MiB.
const maxLayers = 1000

// Part is the image of one platform before it is assembled.
type Part struct {
	Platform ocispecs.Platform
	Config   []byte       // as the frontend made it; nil for one that only names the platform
	Base     []byte       // config of the image that it was made from, nil for scratch
	State    *layer.State // nil for an image without layers
}

// Options say what kind of image is made.
type Options struct {
	// Docker writes Docker's media types instead of OCI's.
	Docker bool
	// Index writes an index. It must be set for more than one part.
	Index       bool
	Annotations Annotations
	// Epoch is SOURCE_DATE_EPOCH: no time in config or history is later, those of the base image excepted.
	Epoch *time.Time
	// Blob gives a layer as a blob, as a rule layer.Export. It is called for several layers at once and may be called
	// twice for a layer.
	Blob func(ctx context.Context, l *layer.Layer) (*layer.Blob, error)
	// Made tells how a layer came to be; nil knows nothing of any.
	Made func(l *layer.Layer) Made
	// Extra gives fields that are added to the config of part i, whose layers have these blobs, the bottom one first; nil adds
	// none. The same parts must get the same fields. They stand instead of what a
	// base image left under their names; what says how the image is run or made up cannot be named.
	Extra func(part int, layers []*layer.Blob) (map[string]json.RawMessage, error)
	// Parallel bounds how many layers Blob is busy with at once, at least 1.
	Parallel int
}

// Image is a finished image: small documents in memory, layers as descriptors. It is immutable.
type Image struct {
	// Desc names the root document, an index or a manifest.
	Desc ocispecs.Descriptor
	// Index is the index's bytes, nil for an image without.
	Index []byte
	// Manifests has the image of each part, in their order.
	Manifests []Manifest
}

// Manifest is the image of one platform.
type Manifest struct {
	Platform   ocispecs.Platform
	Desc       ocispecs.Descriptor // of Bytes
	Bytes      []byte
	ConfigDesc ocispecs.Descriptor // of Config
	Config     []byte
	Layers     []*layer.Blob         // the bottom one first
	LayerDescs []ocispecs.Descriptor // the same as the manifest names them
}

// Assemble makes an image. The same parts, blobs and times give the same bytes.
func Assemble(ctx context.Context, parts []Part, opt Options) (*Image, error) {
	if len(parts) == 0 {
		return nil, errors.New("an image needs a platform")
	}
	if len(parts) > 1 && !opt.Index {
		return nil, fault.New(fault.Usage, errors.New("an image of several platforms needs an index: multi-platform=false is not possible"))
	}
	for i := range parts {
		parts[i].Platform = platforms.Normalize(parts[i].Platform)
	}
	if err := opt.Annotations.check(parts, opt); err != nil {
		return nil, fault.New(fault.Usage, err)
	}
	blobs, err := exportLayers(ctx, parts, opt)
	if err != nil {
		return nil, err
	}
	img := &Image{}
	for i, p := range parts {
		m, err := assembleOne(i, p, blobs[i], opt)
		if err != nil {
			return nil, fmt.Errorf("image for %s: %w", platforms.FormatAll(p.Platform), err)
		}
		img.Manifests = append(img.Manifests, *m)
	}
	if !opt.Index {
		img.Desc = img.Manifests[0].Desc
		return img, nil
	}
	return img, img.addIndex(opt)
}

// exportLayers makes blobs of all layers of all parts, each layer once.
func exportLayers(ctx context.Context, parts []Part, opt Options) ([][]*layer.Blob, error) {
	eg, ctx := errgroup.WithContext(ctx)
	eg.SetLimit(max(opt.Parallel, 1))
	out := make([][]*layer.Blob, len(parts))
	type place struct{ part, layer int }
	wanted := map[*layer.Layer][]place{}
	var order []*layer.Layer
	for i, p := range parts {
		layers := p.State.Layers()
		if len(layers) > maxLayers {
			return nil, fmt.Errorf("an image of %d layers: more than %d cannot be used", len(layers), maxLayers)
		}
		out[i] = make([]*layer.Blob, len(layers))
		for j, l := range layers {
			if wanted[l] == nil {
				order = append(order, l)
			}
			wanted[l] = append(wanted[l], place{i, j})
		}
	}
	for _, l := range order {
		places := wanted[l]
		eg.Go(func() error {
			b, err := opt.Blob(ctx, l)
			if err != nil {
				return err
			}
			for _, p := range places {
				out[p.part][p.layer] = b
			}
			return nil
		})
	}
	return out, eg.Wait()
}

func assembleOne(i int, p Part, blobs []*layer.Blob, opt Options) (*Manifest, error) {
	config := p.Config
	var err error
	if len(config) == 0 {
		if config, err = defaultConfig(p.Platform); err != nil {
			return nil, err
		}
	}
	history, err := configHistory(config)
	if err != nil {
		return nil, err
	}
	made := make([]Made, len(blobs))
	if opt.Made != nil {
		for i, l := range p.State.Layers() {
			made[i] = opt.Made(l)
		}
	}
	config, err = finishConfig(config, blobs, finishHistory(history, made), opt.Epoch, p.Base)
	if err != nil {
		return nil, err
	}
	if opt.Extra != nil {
		if config, err = addFields(config, i, blobs, opt.Extra); err != nil {
			return nil, err
		}
	}
	m := &Manifest{Platform: p.Platform, Config: config, Layers: blobs}
	manifestType, configType := ocispecs.MediaTypeImageManifest, ocispecs.MediaTypeImageConfig
	if opt.Docker {
		manifestType, configType = dockerManifest, dockerConfig
	}
	m.ConfigDesc = ocispecs.Descriptor{MediaType: configType, Digest: digest.FromBytes(config), Size: int64(len(config))}
	for _, b := range blobs {
		d := b.Desc
		if d.MediaType, err = layerType(d.MediaType, opt.Docker); err != nil {
			return nil, err
		}
		d.Annotations, d.URLs = layerAnnotations(d.Annotations, opt.Docker), nil
		m.LayerDescs = append(m.LayerDescs, d)
	}
	doc := ocispecs.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: manifestType, Config: m.ConfigDesc, Layers: m.LayerDescs,
		Annotations: opt.Annotations.of(exptypes.AnnotationManifest, &p.Platform),
	}
	if m.Bytes, err = json.MarshalIndent(doc, "", "  "); err != nil {
		return nil, err
	}
	platform := p.Platform
	m.Desc = ocispecs.Descriptor{
		MediaType: manifestType, Digest: digest.FromBytes(m.Bytes), Size: int64(len(m.Bytes)), Platform: &platform,
		Annotations: opt.Annotations.of(exptypes.AnnotationManifestDescriptor, &p.Platform),
	}
	return m, nil
}

func (img *Image) addIndex(opt Options) error {
	index := ocispecs.Index{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispecs.MediaTypeImageIndex,
		Annotations: opt.Annotations.of(exptypes.AnnotationIndex, nil),
	}
	if opt.Docker {
		index.MediaType = dockerList
	}
	for _, m := range img.Manifests {
		index.Manifests = append(index.Manifests, m.Desc)
	}
	b, err := json.MarshalIndent(index, "", "  ")
	if err != nil {
		return err
	}
	img.Index = b
	img.Desc = ocispecs.Descriptor{
		MediaType: index.MediaType, Digest: digest.FromBytes(b), Size: int64(len(b)),
		Annotations: opt.Annotations.of(exptypes.AnnotationIndexDescriptor, nil),
	}
	return nil
}

// ConfigDigest is what --iidfile and docker's image ID mean by an image of one platform; empty for an index.
func (img *Image) ConfigDigest() digest.Digest {
	if img.Index != nil {
		return ""
	}
	return img.Manifests[0].ConfigDesc.Digest
}

// Metadata is what --metadata-file says of an image; names are those that it was given.
func (img *Image) Metadata(names []string) map[string]any {
	out := map[string]any{"containerimage.digest": img.Desc.Digest.String(), "containerimage.descriptor": img.Desc}
	if d := img.ConfigDigest(); d != "" {
		out["containerimage.config.digest"] = d.String()
	}
	if len(names) > 0 {
		out["image.name"] = strings.Join(names, ",")
	}
	return out
}

package inline

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"larder/internal/catalog"
	"larder/internal/registry"
)

// Kind says what a name in a registry or directory stands for.
type Kind int

// The kinds, the most useful for a build last.
const (
	Other          Kind = iota // nothing that larder can use
	Image                      // an image of which no cache is known
	BuildKitCache              // what BuildKit's --export-cache type=registry or local writes
	BuildKitInline             // an image with what its type=inline writes
	Inline                     // an image with larder's records
	Catalog                    // a catalog, which package catalog reads
)

// String says it to people, after "REF is".
func (k Kind) String() string {
	return [...]string{
		"neither an image nor a cache",
		"an image without cache records",
		"a cache that BuildKit wrote, whose keys mean nothing to larder",
		"an image with BuildKit's inline cache, whose keys mean nothing to larder",
		"an image with larder's inline cache",
		"a larder cache",
	}[k]
}

// The media types that tell kinds apart, beside those of images.
const (
	buildKitType = "application/vnd.buildkit.cacheconfig.v0"
	dockerConfig = "application/vnd.docker.container.image.v1+json"

	buildKitField = "moby.buildkit.cache.v0" // of a config
)

// manifest has the fields of a manifest and of an index.
type manifest struct {
	MediaType    string                `json:"mediaType"`
	ArtifactType string                `json:"artifactType"`
	Config       *ocispecs.Descriptor  `json:"config"`
	Layers       []ocispecs.Descriptor `json:"layers"`
	Manifests    []ocispecs.Descriptor `json:"manifests"`
}

// parse reads a manifest or an index.
func parse(b []byte) (*manifest, error) {
	if len(b) > registry.MaxManifest {
		return nil, fmt.Errorf("a manifest of %d bytes (the limit is %d)", len(b), registry.MaxManifest)
	}
	m := new(manifest)
	if err := json.Unmarshal(b, m); err != nil {
		return nil, fmt.Errorf("no manifest: %w", err)
	}
	if m.Manifests != nil && (m.Config != nil || m.Layers != nil) {
		return nil, errors.New("a document that is an index to one reader and an image to another")
	}
	return m, nil
}

// Recognise tells what a manifest or index is. config is what a manifest's config descriptor names; nil where it is not known,
// which makes an image with records look like one without. An index of images is an Image: Inspect looks into it.
func Recognise(manifestOrIndex, config []byte) Kind {
	m, err := parse(manifestOrIndex)
	if err != nil {
		return Other
	}
	return m.kind(config)
}

func (m *manifest) kind(config []byte) Kind {
	if m.ArtifactType == catalog.ArtifactType {
		return Catalog
	}
	if m.Manifests != nil {
		kind := Other
		for _, d := range m.Manifests {
			switch d.MediaType {
			case buildKitType:
				return BuildKitCache
			case ocispecs.MediaTypeImageManifest, registry.MediaTypeDockerManifest:
				if !isAttestation(d) {
					kind = Image
				}
			}
		}
		return kind
	}
	if m.Config == nil {
		return Other
	}
	switch m.Config.MediaType {
	case buildKitType:
		return BuildKitCache
	case ocispecs.MediaTypeImageConfig, dockerConfig:
	default:
		return Other
	}
	var fields map[string]json.RawMessage
	if len(config) > maxConfig || json.Unmarshal(config, &fields) != nil {
		return Image
	}
	switch {
	case fields[Field] != nil:
		return Inline
	case fields[buildKitField] != nil:
		return BuildKitInline
	}
	return Image
}

// isAttestation tells an entry of an index that says something about another entry.
func isAttestation(d ocispecs.Descriptor) bool {
	return d.Annotations["vnd.docker.reference.type"] != "" || d.Platform != nil && d.Platform.OS == "unknown"
}

// maxBlobs bounds how many layers a document is taken to name.
const maxBlobs = 10_000

// Blobs lists the layers that a manifest or a cache's index names, each once: media type, digest and size. The repository that
// the document is in has them. Those that lie elsewhere (with URLs) are left out.
func Blobs(manifestOrIndex []byte) []ocispecs.Descriptor {
	m, err := parse(manifestOrIndex)
	if err != nil {
		return nil
	}
	return m.blobs()
}

func (m *manifest) blobs() []ocispecs.Descriptor {
	list := m.Layers
	if m.Manifests != nil && m.kind(nil) == BuildKitCache { // its layers stand where an index has manifests
		list = slices.DeleteFunc(slices.Clone(m.Manifests), func(d ocispecs.Descriptor) bool { return d.MediaType == buildKitType })
	}
	var out []ocispecs.Descriptor
	for _, d := range list {
		if d.Digest.Validate() == nil && d.Size > 0 && len(d.URLs) == 0 {
			out = append(out, ocispecs.Descriptor{MediaType: d.MediaType, Digest: d.Digest, Size: d.Size})
		}
	}
	return unique(out)
}

// unique drops what is there twice, and what is too much.
func unique(list []ocispecs.Descriptor) []ocispecs.Descriptor {
	seen := map[digest.Digest]bool{}
	var out []ocispecs.Descriptor
	for _, d := range list {
		if !seen[d.Digest] && len(out) < maxBlobs {
			seen[d.Digest] = true
			out = append(out, d)
		}
	}
	return out
}

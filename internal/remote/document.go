package remote

import (
	"encoding/json"
	"fmt"
	"regexp"

	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"larder/internal/registry"
)

// maxBlobs bounds how many blobs a document names.
const maxBlobs = 20_000

var tag = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$`)

// CheckName tells whether a document can be stored under a name: those are the tags of a registry, so that a catalog can move
// from any store to any other.
func CheckName(name string) error {
	if !tag.MatchString(name) {
		return Mark(fmt.Errorf("%.200q is no name for a document: 128 letters, digits, '.', '_' and '-' at most", name), ErrFinal)
	}
	return nil
}

// IsDigest tells the digest of a document from a name.
func IsDigest(name string) bool { return digest.Digest(name).Validate() == nil }

// Blobs lists what a document names: its config, then its layers. Bytes that are no OCI image manifest are an error.
func Blobs(b []byte) ([]ocispecs.Descriptor, error) {
	if len(b) > registry.MaxManifest {
		return nil, Mark(fmt.Errorf("a document of %d bytes (the limit is %d)", len(b), registry.MaxManifest), ErrFinal)
	}
	var m ocispecs.Manifest
	if err := json.Unmarshal(b, &m); err != nil {
		return nil, Mark(fmt.Errorf("no image manifest: %w", err), ErrFinal)
	}
	if m.SchemaVersion != 2 || m.Config.Digest == "" || len(m.Layers) >= maxBlobs {
		return nil, Mark(fmt.Errorf("no image manifest: schema %d, config %.100q, %d layers", m.SchemaVersion, m.Config.Digest, len(m.Layers)), ErrFinal)
	}
	list := append([]ocispecs.Descriptor{m.Config}, m.Layers...)
	for _, d := range list {
		if err := d.Digest.Validate(); err != nil || d.Size < 0 {
			return nil, Mark(fmt.Errorf("no image manifest: it names a blob %.100q of %d bytes", d.Digest, d.Size), ErrFinal)
		}
	}
	return list, nil
}

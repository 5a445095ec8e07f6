package catalog

import (
	"encoding/json"

	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

// kind says what a document is, as far as that can be told without its blobs.
type kind int

const (
	broken   kind = iota // no document that anybody can read
	ours                 // a catalog, or a further page of one, whatever state it is in
	buildKit             // a cache that BuildKit wrote
	other                // an image, or something else that larder did not write
)

// buildKitType is the media type of the config of BuildKit's registry cache, as an image manifest or in an index.
const buildKitType = "application/vnd.buildkit.cacheconfig.v0"

// head is what is read of a document. The blobs that it names are for the store: its page says them too.
type head struct {
	ArtifactType string              `json:"artifactType"`
	Config       ocispecs.Descriptor `json:"config"`
	Annotations  map[string]string   `json:"annotations"`
	Manifests    []struct {
		MediaType string `json:"mediaType"`
	} `json:"manifests"`
}

// parse reads a document's head, and says what the document is.
func parse(b []byte) (head, kind) {
	var h head
	if len(b) > maxDocument || CountJSON(b) > maxHead {
		return h, other
	}
	if json.Unmarshal(b, &h) != nil {
		return head{}, broken
	}
	switch {
	case h.ArtifactType == ArtifactType, h.Config.MediaType == pageMediaType:
		return h, ours
	case h.Config.MediaType == buildKitType:
		return h, buildKit
	}
	for _, m := range h.Manifests {
		if m.MediaType == buildKitType {
			return h, buildKit
		}
	}
	return h, other
}

package local

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"github.com/opencontainers/image-spec/specs-go"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"larder/internal/remote"
)

// maxIndex bounds index.json, in bytes.
const maxIndex = 16 << 20

func emptyIndex() ocispecs.Index {
	return ocispecs.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispecs.MediaTypeImageIndex, Manifests: []ocispecs.Descriptor{}}
}

// readIndex gives an empty index where there is none, and ErrDamaged for what is none.
func (s *Store) readIndex() (ocispecs.Index, error) {
	b, err := readFile(context.Background(), s.path(ocispecs.ImageIndexFile), maxIndex)
	if errors.Is(err, fs.ErrNotExist) {
		return emptyIndex(), nil
	}
	if err != nil {
		return ocispecs.Index{}, err
	}
	var index ocispecs.Index
	if err := json.Unmarshal(b, &index); err != nil {
		return ocispecs.Index{}, fmt.Errorf("index.json: %w: %w", err, remote.ErrDamaged)
	}
	return index, nil
}

func (s *Store) writeIndex(index ocispecs.Index) error {
	b, err := json.Marshal(index)
	if err != nil {
		return err
	}
	return s.write(s.path(ocispecs.ImageIndexFile), b, true)
}

// find gives the place of a name, -1 where it is not there.
func find(index ocispecs.Index, name string) int {
	return slices.IndexFunc(index.Manifests, func(d ocispecs.Descriptor) bool { return d.Annotations[ocispecs.AnnotationRefName] == name })
}

// without leaves out the entries of a name or of a digest.
func without(list []ocispecs.Descriptor, name string) []ocispecs.Descriptor {
	return slices.DeleteFunc(list, func(d ocispecs.Descriptor) bool {
		return d.Annotations[ocispecs.AnnotationRefName] == name || d.Digest.String() == name
	})
}

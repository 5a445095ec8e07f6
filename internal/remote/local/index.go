package local

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

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
	if err = json.Unmarshal(b, &index); err == nil && index.SchemaVersion != 2 {
		err = fmt.Errorf("schema %d", index.SchemaVersion)
	}
	if err != nil {
		return ocispecs.Index{}, fmt.Errorf("index.json is no index: %w: %w (the next write sets it aside as index.json%s..., and no blob is removed for %d days)",
			err, remote.ErrDamaged, aside, int(spared.Hours()/24))
	}
	return index, nil
}

const (
	aside  = ".damaged-"         // goes before the time in the name of an index that was set aside
	spared = 30 * 24 * time.Hour // for how long nothing is swept then: nobody knows which blobs it named
)

// setAside gives index.json another name. The exclusive lock is held.
func (s *Store) setAside() error {
	path := s.path(ocispecs.ImageIndexFile)
	if err := touch(path); err != nil {
		return err
	}
	return os.Rename(path, path+aside+time.Now().UTC().Format("20060102T150405.000000000Z"))
}

// mourns tells whether an index was set aside not long ago.
func (s *Store) mourns() bool {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return true
	}
	return slices.ContainsFunc(entries, func(e fs.DirEntry) bool {
		if !strings.HasPrefix(e.Name(), ocispecs.ImageIndexFile+aside) {
			return false
		}
		st, err := e.Info()
		return err != nil || time.Since(st.ModTime()) < spared
	})
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

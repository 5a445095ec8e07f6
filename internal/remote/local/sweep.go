package local

import (
	"context"
	"encoding/json"
	"os"
	"time"

	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"larder/internal/flock"
	"larder/internal/registry"
)

// grace is how long a blob stays that no document names: its writer is about to name it. Putting a blob that is there, or asking for
// it, starts the hour anew. A writer that takes longer is told by PutManifest, and puts the blob again.
const grace = time.Hour

// sweepSometimes sweeps where the last time was an hour ago.
func (s *Store) sweepSometimes(index ocispecs.Index) {
	if st, err := os.Lstat(s.path(".larder", "swept")); err == nil && time.Since(st.ModTime()) < grace && time.Since(st.ModTime()) > -grace {
		return
	}
	s.sweep(index)
}

// sweep removes old blobs that no document of index names, and what interrupted writers left. The exclusive lock is held. What cannot
// be removed is left for the next time; so are all blobs where a document cannot be read, or an index could not, as nobody knows what
// it names.
func (s *Store) sweep(index ocispecs.Index) {
	s.write(s.path(".larder", "swept"), nil, false) // where the disk is full, the next sweep comes soon
	s.sweepWriters()
	if s.mourns() {
		return
	}
	named := map[digest.Digest]bool{}
	for _, d := range index.Manifests {
		if !s.reach(d, named, 0) {
			return
		}
	}
	dir := s.path(ocispecs.ImageBlobsDir, "sha256")
	entries, err := os.ReadDir(dir)
	if err != nil {
		return
	}
	for _, e := range entries {
		d := digest.NewDigestFromEncoded(digest.SHA256, e.Name())
		if d.Validate() != nil || named[d] {
			continue
		}
		if st, err := e.Info(); err == nil && st.Mode().IsRegular() && time.Since(st.ModTime()) > grace {
			os.Remove(s.path(ocispecs.ImageBlobsDir, "sha256", e.Name()))
		}
	}
}

// maxDepth bounds indexes within indexes.
const maxDepth = 4

// reach adds to named what a manifest or index names, and what these name. It says false where something that may name more
// cannot be read. A document that is lost names nothing.
func (s *Store) reach(d ocispecs.Descriptor, named map[digest.Digest]bool, depth int) bool {
	if named[d.Digest] {
		return true
	}
	named[d.Digest] = true
	path, err := s.blob(d.Digest)
	if err != nil {
		return false
	}
	b, err := readFile(context.Background(), path, registry.MaxManifest)
	if os.IsNotExist(err) {
		return true
	}
	var doc struct {
		Config    *ocispecs.Descriptor  `json:"config"`
		Layers    []ocispecs.Descriptor `json:"layers"`
		Manifests []ocispecs.Descriptor `json:"manifests"`
		Blobs     []ocispecs.Descriptor `json:"blobs"`
		Subject   *ocispecs.Descriptor  `json:"subject"`
	}
	if err != nil || json.Unmarshal(b, &doc) != nil || depth > maxDepth {
		return false
	}
	for _, list := range [][]ocispecs.Descriptor{doc.Layers, doc.Blobs} {
		for _, l := range list {
			named[l.Digest] = true
		}
	}
	if doc.Config != nil {
		named[doc.Config.Digest] = true
	}
	for _, m := range doc.Manifests {
		if isManifest(m.MediaType) {
			if !s.reach(m, named, depth+1) {
				return false
			}
		} else {
			named[m.Digest] = true // BuildKit's local cache lists its layers so
		}
	}
	return doc.Subject == nil || s.reach(*doc.Subject, named, depth+1)
}

func isManifest(mediaType string) bool {
	switch mediaType {
	case ocispecs.MediaTypeImageManifest, ocispecs.MediaTypeImageIndex, registry.MediaTypeDockerManifest, registry.MediaTypeDockerList:
		return true
	}
	return false
}

// sweepWriters removes the files of writers that live no more: nobody holds their lock.
func (s *Store) sweepWriters() {
	entries, err := os.ReadDir(s.path(".larder", "tmp"))
	if err != nil {
		return
	}
	for _, e := range entries {
		if !e.Type().IsRegular() { // no writer's
			continue
		}
		if lock, err := flock.Try(s.path(".larder", "tmp", e.Name()), flock.Exclusive); err == nil {
			lock.Remove()
		}
	}
}

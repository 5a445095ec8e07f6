package catalog

import (
	"fmt"
	"iter"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"larder/internal/key"
)

// Mount is a cache mount's content at one time as a catalog keeps it: segments (package generation), and the packs that they name.
type Mount struct {
	Key      key.Digest // what tells cache mounts apart
	ID       string     // as the Dockerfile has it, for people
	Platform string
	// United says that its layout is content-addressed: what several writers add is united. Otherwise one writer's row of segments
	// counts, whole.
	United bool
	// Segments are applied in order. The first one says everything. One that says everything in a later place, where two writers met, adds to
	// what stands before it.
	Segments []Segment

	Saved  time.Time // when the last segment was added, UTC, to the second
	Used   time.Time // when a build last used it, UTC, to the second. As with records, a use within a quarter of Limits.Age may not have been noted
	Builds int64     // how many have
	Files  int64     // files in it
	Size   int64     // bytes of them
	Hit    int64     // how many of the files that it was restored with the last build used
	Had    int64     // how many that were
}

// Segment is a blob that says a part of a mount's content, and the packs that hold the contents which it names.
type Segment struct {
	Blob  ocispecs.Descriptor
	Packs []ocispecs.Descriptor
}

// MountPut is what a build did to a cache mount.
type MountPut struct {
	// Mount is what the catalog shall hold where it holds the same Base as the build began with, or nothing. Its last segments
	// are the build's own. A mount that the build only used has the segments of Base. Used is the time of the Save.
	Mount Mount
	// Base are the blobs of the segments that it began with, by digest; none for an empty mount, or one from another catalog.
	Base []key.Digest
}

// Blobs goes through all that a mount names, what it names twice twice.
func (m Mount) Blobs() iter.Seq[ocispecs.Descriptor] { return blobsOf(m.Segments) }

// Packs gives the packs that a mount names, by their digests.
func (m Mount) Packs() map[key.Digest]ocispecs.Descriptor {
	out := map[key.Digest]ocispecs.Descriptor{}
	for _, seg := range m.Segments {
		for _, p := range seg.Packs {
			if d, err := key.FromOCI(p.Digest); err == nil {
				out[d] = p
			}
		}
	}
	return out
}

func blobsOf(row []Segment) iter.Seq[ocispecs.Descriptor] {
	return func(yield func(ocispecs.Descriptor) bool) {
		for _, seg := range row {
			if !yield(seg.Blob) {
				return
			}
			for _, p := range seg.Packs {
				if !yield(p) {
					return
				}
			}
		}
	}
}

// names tells whether a mount needs one of some blobs.
func (m Mount) names(blobs map[digest.Digest]bool) bool {
	for d := range m.Blobs() {
		if blobs[d.Digest] {
			return true
		}
	}
	return false
}

// bounded tells whether a row is within the bounds of what is kept: any page has room for its blobs.
func bounded(row []Segment) bool {
	n := 0
	for range blobsOf(row) {
		n++
	}
	return len(row) <= maxSegments && n <= maxNamed
}

func (m Mount) check() error {
	if m.Key.IsZero() || len(m.ID) > maxName || len(m.Platform) > maxPlatform || len(m.Segments) == 0 || !bounded(m.Segments) {
		return fmt.Errorf("a cache mount out of bounds")
	}
	for _, n := range []int64{m.Builds, m.Files, m.Size, m.Hit, m.Had} {
		if n < 0 || n > maxCount {
			return fmt.Errorf("a cache mount out of bounds")
		}
	}
	for d := range m.Blobs() {
		if err := blobOf(d).check(); err != nil {
			return err
		}
	}
	return nil
}

// sameMount tells whether two mounts say the same, but for when and how they were used.
func sameMount(a, b Mount) bool {
	return a.Key == b.Key && a.ID == b.ID && a.Platform == b.Platform && a.United == b.United && sameRow(a.Segments, b.Segments)
}

func sameRow(a, b []Segment) bool {
	return slices.EqualFunc(a, b, func(a, b Segment) bool {
		return sameDesc(a.Blob, b.Blob) && slices.EqualFunc(a.Packs, b.Packs, sameDesc)
	})
}

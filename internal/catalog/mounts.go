package catalog

import (
	"time"

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
	United   bool
	Segments []Segment // to be applied in order

	Saved  time.Time // when the last segment was added, UTC, to the second
	Used   time.Time // when a build last used it
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
	// are the build's own.
	Mount Mount
	// Base are the blobs of the segments that it began with, by digest; none for an empty mount, or one from another catalog.
	Base []key.Digest
}

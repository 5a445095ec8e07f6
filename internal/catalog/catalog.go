// Package catalog keeps the records and cache mounts of a scope in a remote store (DESIGN sections 2 and 5): one small signed document that
// an empty machine reads with one request, and that many jobs write at once.
package catalog

import (
	"context"
	"errors"
	"time"

	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"larder/internal/key"
	"larder/internal/record"
)

// ErrAbsent is wrapped by Load where there is no catalog that counts: none at all, a damaged one, one of another scope or
// repository, one without a signature that is trusted. The text says which. None at all is remote.ErrNotFound as well.
var ErrAbsent = errors.New("no catalog")

// Name says which catalog of a store is meant.
type Name struct {
	Scope string // who wrote it, as users say it: "main", "feature/x"
	Tag   string // the document's name in the store: ScopeTag(Scope), or what --cache-to ref=REPO:TAG says
}

// Blob is a copy of a layer in the store.
type Blob struct {
	Key    key.Digest          // layer.BlobKey: the identity, compression, level and epoch that it was made for
	Desc   ocispecs.Descriptor // media type, digest and size; nothing else is kept
	DiffID digest.Digest
}

// Entry is a record with the time, UTC and to the second, when a build last used it. A use within a quarter of Limits.Age after that time
// may not have been noted.
type Entry struct {
	Record *record.Record
	Used   time.Time
}

// Put is a record that a build wants in the catalog.
type Put struct {
	Record *record.Record
	// Replaces is the digest (record.Record.Digest) of a record that this one stands for: one whose blobs were gone, that was too
	// old, or that knew less. Without it, or where the catalog holds another one meanwhile, the record that is there stays.
	Replaces key.Digest
	// Unite says that the record is a hint, and the hint a list of digests, the ones to try first in front: it is united with the list that is
	// there, so that several builds can add to one. Lists are short: the digests that came first go.
	Unite bool
}

// Change is what one build adds to a catalog. Every blob that it names is stored already (DESIGN invariant 1).
type Change struct {
	Put    []Put
	Trees  map[key.Digest]ocispecs.Descriptor // tree's own digest (record.Layer.Tree) -> blob, zstd-compressed
	Layers map[key.Digest][]Blob              // identity -> copies
	Mounts []MountPut                         // merged in this order
	// Used are keys whose records this build used, and with them those that they keep (record.Record.With).
	Used []key.Digest
	// Gone are blobs of the catalog that turned out to be missing or damaged: what names them goes.
	Gone []digest.Digest

	writes int // how often Save has written this already, see united
}

// Reader looks things up in one scope's catalog. Load makes it. It is safe for concurrent use. Later pages are fetched when a
// look-up misses in the first; failing that, the look-up is a miss.
type Reader interface {
	// Record gives the record of a key.
	Record(ctx context.Context, k key.Digest) (Entry, bool)
	// Tree gives the blob of a tree.
	Tree(ctx context.Context, d key.Digest) (ocispecs.Descriptor, bool)
	// Layer gives the copies of a layer.
	Layer(ctx context.Context, identity key.Digest) []Blob
	// Mount gives a cache mount.
	Mount(ctx context.Context, k key.Digest) (Mount, bool)
}

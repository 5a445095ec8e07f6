package layer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"larder/internal/key"
	"larder/internal/tree"
)

// ErrNoContent is wrapped by a Source that does not know a digest.
var ErrNoContent = errors.New("content is not here")

// GoneError says that a layer which a record promised cannot be had: its blob was deleted from the remote cache, is damaged,
// or its store does not answer. The step that makes the layer has to run again (DESIGN invariant 2).
type GoneError struct {
	Identity key.Digest
	Copy     digest.Digest // the blob that could not be had; empty where none is known
	Store    string        // where it was to be had from, as Blob.Origin names it; empty where that is not known
	Err      error         // why
}

// ErrOther is wrapped by a GoneError of a copy that is not the layer which it is said to be.
var ErrOther = errors.New("it is another layer")

func (e *GoneError) Error() string { return fmt.Sprintf("layer %s is gone: %v", e.Identity, e.Err) }

func (e *GoneError) Unwrap() error { return e.Err }

// Source opens the contents of files by digest. What it hands out may be edited meanwhile (a build context):
// whoever copies it into a layer, image or directory compares the digest while reading (DESIGN invariant 10), see
// Verified. It is safe for concurrent use.
type Source interface {
	// Open gives the bytes of the file with this digest and size. The caller closes the reader. An error wraps
	// ErrNoContent where the source has no such file.
	Open(ctx context.Context, d key.Digest, size int64) (io.ReadCloser, error)
}

// Blob is a layer as an image carries it: a tar, mostly compressed.
type Blob struct {
	// Desc names the compressed bytes: media type, digest, size.
	Desc ocispecs.Descriptor
	// DiffID names the uncompressed tar.
	DiffID digest.Digest
	// Origin says which repositories are known to hold the blob ("host/name"), so that a push to one of them
	// sends nothing and a push to a neighbour mounts it.
	Origin []string
	// Fetch streams the compressed bytes from where they are; the reader verifies them against Desc before its
	// io.EOF. Nil where they are only in the local blobs.
	Fetch func(ctx context.Context) (io.ReadCloser, error)
}

// Layer is a difference between two file systems (DESIGN section 2). It is immutable to its users and safe for
// concurrent use.
type Layer struct {
	// Identity is what enters the keys of the steps above: for a layer of a base image its diff ID, for one that larder
	// made its tree's identity (DESIGN section 3).
	Identity key.Digest
	// Pinned tells a layer of a base image or RUN from an observed one (file operations, contexts).
	Pinned bool
	// Blob is set for a layer that came from an image; for others an exporter makes blobs when it needs them.
	Blob *Blob
	// Contents opens every File of the tree. It may be nil for a layer whose contents lie in the local layers
	// directory or are unpacked there from Blob when somebody asks: package snapshot finds those.
	Contents Source

	load func(ctx context.Context) (*tree.Node, error)
	mu   sync.Mutex
	root *tree.Node
}

// New makes a layer whose tree is in memory.
func New(identity key.Digest, pinned bool, root *tree.Node, contents Source) *Layer {
	return &Layer{Identity: identity, Pinned: pinned, Contents: contents, root: root}
}

// Lazy makes a layer whose tree is loaded when first asked for. A load that failed is tried again by the next call.
func Lazy(identity key.Digest, pinned bool, contents Source, load func(ctx context.Context) (*tree.Node, error)) *Layer {
	return &Layer{Identity: identity, Pinned: pinned, Contents: contents, load: load}
}

// FromBlob makes a layer of a base image. load yields its tree, as a rule by unpacking the blob.
func FromBlob(blob *Blob, load func(ctx context.Context) (*tree.Node, error)) (*Layer, error) {
	id, err := key.FromOCI(blob.DiffID)
	if err != nil {
		return nil, err
	}
	return &Layer{Identity: id, Pinned: true, Blob: blob, load: load}, nil
}

// Tree gives the layer's tree: with Whiteouts and Opaque directories, parents present with the metadata that they have
// in the merged file system.
func (l *Layer) Tree(ctx context.Context) (*tree.Node, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.root == nil {
		root, err := l.load(ctx)
		if err != nil {
			return nil, err
		}
		l.root = root
	}
	return l.root, nil
}

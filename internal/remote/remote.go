// Package remote is where a remote cache lies: blobs by digest, and small documents by name, in a registry, in a
// directory or in an S3 bucket. It knows nothing of what they mean; package catalog does.
//
// The implementations are in packages registry, local and s3 below this one; storetest is the suite that each passes.
// Retry, Verify and Limit decorate any of them.
package remote

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

// What the errors of a Store wrap.
var (
	// ErrNotFound says that a blob or document is not there.
	ErrNotFound = errors.New("not in the store")
	// ErrConflict is PutManifest's answer where the document is another than the caller has seen.
	ErrConflict = errors.New("somebody else wrote the document meanwhile")
	// ErrDamaged says that bytes came which are not those that were asked for.
	ErrDamaged = errors.New("damaged bytes")
	// ErrDenied says that the store refuses the credentials, or writing.
	ErrDenied = errors.New("the store does not allow it")
	// ErrImmutable is PutManifest's answer of a store in which a name that is taken cannot be written again.
	ErrImmutable = errors.New("names in this store cannot be written twice")
	// ErrUnsupported says that the store has no such operation.
	ErrUnsupported = errors.New("the store cannot do that")
	// ErrDown says that the store has been failing for so long that Retry does not ask it any more.
	ErrDown = errors.New("the store is down")
)

// MissingError is PutManifest's answer where the document names blobs that are not in the store.
type MissingError struct {
	Digests []digest.Digest // those that are known to be missing; none where the store does not tell
}

func (e *MissingError) Error() string {
	if len(e.Digests) == 0 {
		return "the document names blobs that are not in the store"
	}
	list := make([]string, len(e.Digests))
	for i, d := range e.Digests {
		list[i] = d.String()
	}
	return fmt.Sprintf("the document names blobs that are not in the store: %s", strings.Join(list, ", "))
}

// Version names what a document was when it was read: Absent, or the digest of its bytes, or whatever the store compares.
type Version string

// Absent is the version of a document that does not exist; Any, given to PutManifest, overwrites whatever is there.
const (
	Absent Version = ""
	Any    Version = "*"
)

// Document is an OCI image manifest, kept under a name. The store keeps the blobs that it names (config and layers)
// for as long as the document is there.
type Document struct {
	Bytes   []byte
	Version Version
}

// Upload is a blob on its way into a store.
type Upload struct {
	Desc ocispecs.Descriptor
	// Open gives the bytes, from the beginning, each time it is called.
	Open func(ctx context.Context) (io.ReadCloser, error)
	// Origin lists repositories that hold the blob ("host/name"), as layer.Blob does.
	Origin []string
	// New says that the blob has just been made, so that asking for it first would be a wasted request.
	New bool
}

// Store keeps blobs and documents. It is safe for concurrent use. Errors name the store and the object, never credentials. A
// reader fails when the ctx that it was opened with ends.
type Store interface {
	// Name says where the store is, for messages, signatures and origins: "registry.example/app" (what layer.Blob's
	// Origin calls a repository), "local:/absolute/dir", "s3://bucket/prefix", "s3://minio.example:9000/bucket/prefix".
	Name() string

	// Manifest reads the document of a name; ErrNotFound where there is none. name is a tag, or the digest of a document
	// that was stored under some name. It is at most registry.MaxManifest long: a longer one, or bytes that their version does
	// not fit, are ErrDamaged. What PutManifest stored is what the next Manifest of anybody reads.
	Manifest(ctx context.Context, name string) (Document, error)
	// PutManifest stores a document, an OCI image manifest, under a name (CheckName) where what is there has the version old, and
	// gives its version. Another version is ErrConflict; a document that is damaged is overwritten with Any. Where Conditional is false, two writers at the same moment can both succeed, and one of
	// the documents is lost; the store keeps that moment as short as it can (it looks again right before it writes). Every
	// blob that the document names must be there before: *MissingError otherwise. (A store that does not look by itself, as a
	// bucket, asks Has for each.)
	PutManifest(ctx context.Context, name string, b []byte, old Version) (Version, error)
	// Conditional tells whether PutManifest's comparison and writing are one step.
	Conditional() bool
	// Names lists the documents whose names begin with prefix, sorted.
	Names(ctx context.Context, prefix string) ([]string, error)
	// DeleteManifest removes a name; none is no error. ErrUnsupported where the store cannot. Other names of the same bytes may go
	// with it: registries delete by digest.
	DeleteManifest(ctx context.Context, name string) error

	// Open streams a blob. Wrapped in Verify, size and digest are compared before io.EOF. ErrNotFound where it is not there.
	Open(ctx context.Context, desc ocispecs.Descriptor) (io.ReadCloser, error)
	// OpenRange streams n bytes of a blob from off on. The digest cannot be compared. A range that the blob does not have is an
	// error. ErrUnsupported where the store has no ranges; the caller reads the whole blob then.
	OpenRange(ctx context.Context, desc ocispecs.Descriptor, off, n int64) (io.ReadCloser, error)
	// Has asks whether a blob is there.
	Has(ctx context.Context, desc ocispecs.Descriptor) (bool, error)
	// Put brings a blob in; sent tells whether its bytes travelled. One that is there already is no error. Bytes that do not fit
	// the descriptor are an error, and nothing is stored then. New overwrites, so that a damaged blob is healed by making it again.
	Put(ctx context.Context, up Upload) (sent bool, err error)
	// Delete removes a blob; one that is not there is no error. ErrUnsupported where only the store's own collector removes
	// blobs.
	Delete(ctx context.Context, d digest.Digest) error

	// Close gives up connections and locks.
	Close() error
}

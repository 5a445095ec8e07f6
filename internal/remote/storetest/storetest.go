// Package storetest is the contract of remote.Store as tests: each implementation passes them, bare and decorated.
package storetest

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"math/rand/v2"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"larder/internal/remote"
)

// Run holds a store against the contract. open gives an empty store each time it is called, and closes it at the end of the test that
// it is given. A store that cannot do an operation at all (remote.ErrUnsupported, Conditional is false) is not asked for more of it.
func Run(t *testing.T, open func(t *testing.T) remote.Store) {
	for _, c := range []struct {
		name string
		test func(t *testing.T, s remote.Store)
	}{
		{"Blobs", testBlobs},
		{"BigBlob", testBigBlob},
		{"Ranges", testRanges},
		{"WrongBytes", testWrongBytes},
		{"SameBlobAtOnce", testSameBlobAtOnce},
		{"HealBlob", testHealBlob},
		{"DeleteBlob", testDeleteBlob},
		{"Documents", testDocuments},
		{"Versions", testVersions},
		{"MissingBlobs", testMissingBlobs},
		{"Names", testNames},
		{"BadNames", testBadNames},
		{"DeleteDocument", testDeleteDocument},
		{"LargeDocument", testLargeDocument},
		{"CompareAndSwap", testCompareAndSwap},
		{"Cancelled", testCancelled},
		{"Nothing", testNothing},
	} {
		t.Run(c.name, func(t *testing.T) { c.test(t, open(t)) })
	}
}

// Bytes gives n bytes that look random and are the same for the same seed.
func Bytes(seed uint64, n int) []byte {
	var key [32]byte
	binary.LittleEndian.PutUint64(key[:], seed)
	b := make([]byte, n)
	rand.NewChaCha8(key).Read(b)
	return b
}

// Describe gives the descriptor of bytes.
func Describe(b []byte) ocispecs.Descriptor {
	return ocispecs.Descriptor{MediaType: "application/octet-stream", Digest: digest.FromBytes(b), Size: int64(len(b))}
}

// Upload makes an upload of bytes.
func Upload(b []byte) remote.Upload {
	return remote.Upload{Desc: Describe(b), Open: func(context.Context) (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b)), nil }}
}

// Put stores bytes and gives their descriptor.
func Put(t testing.TB, s remote.Store, b []byte) ocispecs.Descriptor {
	t.Helper()
	if _, err := s.Put(t.Context(), Upload(b)); err != nil {
		t.Fatalf("put %d bytes: %v", len(b), err)
	}
	return Describe(b)
}

// Read gives a whole blob.
func Read(ctx context.Context, s remote.Store, desc ocispecs.Descriptor) ([]byte, error) {
	rc, err := s.Open(ctx, desc)
	if err != nil {
		return nil, err
	}
	defer rc.Close()
	return io.ReadAll(rc)
}

// Document makes a document whose bytes differ by note, and which names blobs: the first as its config.
func Document(note string, blobs ...ocispecs.Descriptor) []byte {
	m := ocispecs.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispecs.MediaTypeImageManifest,
		ArtifactType: "application/vnd.larder.storetest", Config: blobs[0], Layers: blobs[1:], Annotations: map[string]string{"note": note}}
	if m.Layers == nil {
		m.Layers = []ocispecs.Descriptor{}
	}
	b, err := json.Marshal(m)
	if err != nil {
		panic(err)
	}
	return b
}

// Note gives the note of a document.
func Note(t testing.TB, doc remote.Document) string {
	t.Helper()
	var m ocispecs.Manifest
	if err := json.Unmarshal(doc.Bytes, &m); err != nil {
		t.Fatal(err)
	}
	return m.Annotations["note"]
}

func want(t *testing.T, err, is error, doing string) {
	t.Helper()
	if !errors.Is(err, is) {
		t.Errorf("%s: %v, want an error that wraps %q", doing, err, is)
	}
}

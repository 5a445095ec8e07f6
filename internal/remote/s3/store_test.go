package s3

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/minio/minio-go/v7"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"larder/internal/remote"
)

func blob(b []byte) remote.Upload {
	return remote.Upload{
		Desc: ocispecs.Descriptor{Digest: digest.FromBytes(b), Size: int64(len(b))},
		Open: func(context.Context) (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b)), nil },
	}
}

// document stores a config blob and makes a manifest of it and other blobs.
func document(t *testing.T, s remote.Store, text string, layers ...ocispecs.Descriptor) []byte {
	t.Helper()
	up := blob([]byte(text))
	if _, err := s.Put(t.Context(), up); err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(ocispecs.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispecs.MediaTypeImageManifest, Config: up.Desc, Layers: layers,
	})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func noise(seed uint64, n int) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{byte(seed), 1}).Read(b)
	return b
}

func TestBlobs(t *testing.T) {
	s := open(t, bucket(t))
	if got, want := s.Name(), "s3://"+s.host+"/"+s.cfg.Bucket+"/team"; got != want {
		t.Errorf("name %s, want %s", got, want)
	}
	for _, n := range []int{0, 1, 100_000, partSize, partSize + 1, 3*partSize - 7} {
		b := noise(uint64(n), n)
		up := blob(b)
		if ok, err := s.Has(t.Context(), up.Desc); ok || err != nil {
			t.Fatalf("%d bytes, before: %v, %v", n, ok, err)
		}
		if sent, err := s.Put(t.Context(), up); !sent || err != nil {
			t.Fatalf("%d bytes: %v, %v", n, sent, err)
		}
		if sent, err := s.Put(t.Context(), up); sent || err != nil {
			t.Errorf("%d bytes, again: %v, %v", n, sent, err)
		}
		rc, err := s.Open(t.Context(), up.Desc)
		if got := content(t, rc, err); got != string(b) {
			t.Errorf("%d bytes: %d other bytes came back", n, len(got))
		}
		if n < 2 {
			continue
		}
		for _, r := range [][2]int{{0, n}, {0, 1}, {n - 1, 1}, {n / 2, n / 3}, {n, 0}} {
			rc, err := s.OpenRange(t.Context(), up.Desc, int64(r[0]), int64(r[1]))
			if got := content(t, rc, err); got != string(b[r[0]:r[0]+r[1]]) {
				t.Errorf("%d bytes: range %v gives %d other bytes", n, r, len(got))
			}
		}
		if _, err := s.OpenRange(t.Context(), up.Desc, int64(n)-1, 2); err == nil {
			t.Errorf("%d bytes: a range goes beyond the end", n)
		}
	}
	d := digest.FromString("hello")
	if got := keys(t, s); !slices.Contains(got, "team/blobs/sha256/"+blob(nil).Desc.Digest.Encoded()) {
		t.Errorf("keys: %v", got)
	}
	if err := s.Delete(t.Context(), d); err != nil {
		t.Errorf("delete what is not there: %v", err)
	}
	if err := s.Delete(t.Context(), blob(nil).Desc.Digest); err != nil {
		t.Error(err)
	}
	if _, err := s.Open(t.Context(), blob(nil).Desc); !errors.Is(err, remote.ErrNotFound) {
		t.Errorf("open what was deleted: %v", err)
	}
}

// TestWrongBytes puts blobs whose bytes are not what their digest says: nothing of them stays, in one part or in several.
func TestWrongBytes(t *testing.T) {
	s := open(t, bucket(t))
	broken := errors.New("the disk is broken")
	for _, n := range []int{1000, 2*partSize + 5} {
		b := noise(7, n)
		flipped := bytes.Clone(b)
		flipped[n-1] ^= 1
		for name, src := range map[string]func() (io.Reader, error){
			"flipped":  func() (io.Reader, error) { return bytes.NewReader(flipped), nil },
			"short":    func() (io.Reader, error) { return bytes.NewReader(b[:n-1]), nil },
			"long":     func() (io.Reader, error) { return bytes.NewReader(append(bytes.Clone(b), 'x')), nil },
			"broken":   func() (io.Reader, error) { return io.MultiReader(bytes.NewReader(b[:n-1]), failing{broken}), nil },
			"unopened": func() (io.Reader, error) { return nil, broken },
		} {
			up := blob(b)
			up.Open = func(context.Context) (io.ReadCloser, error) {
				r, err := src()
				return io.NopCloser(r), err
			}
			sent, err := s.Put(t.Context(), up)
			if want := []bool{name == "broken" || name == "unopened"}; sent || err == nil || want[0] != errors.Is(err, broken) {
				t.Errorf("%s, %d bytes: %v, %v", name, n, sent, err)
			}
		}
	}
	if got := keys(t, s); len(got) != 0 {
		t.Errorf("left behind: %v", got)
	}
	left, err := s.client.ListMultipartUploads(t.Context(), s.cfg.Bucket, "", "", "", "", 100)
	if err != nil || len(left.Uploads) != 0 {
		t.Errorf("uploads left behind: %v, %v", left.Uploads, err)
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

// TestDamagedObject overwrites a blob with something shorter: it counts as missing, and Put mends it.
func TestDamagedObject(t *testing.T) {
	s := open(t, bucket(t))
	up := blob([]byte("whole"))
	key, _ := s.blobKey(up.Desc.Digest)
	if _, err := s.putBytes(t.Context(), key, []byte("who"), minio.PutObjectOptions{}); err != nil {
		t.Fatal(err)
	}
	if ok, err := s.Has(t.Context(), up.Desc); ok || err != nil {
		t.Errorf("has it: %v, %v", ok, err)
	}
	if _, err := s.Open(t.Context(), up.Desc); !errors.Is(err, remote.ErrDamaged) {
		t.Errorf("open: %v", err)
	}
	if _, err := s.OpenRange(t.Context(), up.Desc, 4, 1); !errors.Is(err, remote.ErrDamaged) {
		t.Errorf("range: %v", err)
	}
	if sent, err := s.Put(t.Context(), up); !sent || err != nil {
		t.Errorf("put: %v, %v", sent, err)
	}
	rc, err := s.Open(t.Context(), up.Desc)
	if got := content(t, rc, err); got != "whole" {
		t.Errorf("got %q", got)
	}
}

func TestDocuments(t *testing.T) {
	s := open(t, bucket(t))
	if !s.Conditional() {
		t.Error("versitygw compares before it writes, and that is not seen")
	}
	if _, err := s.Manifest(t.Context(), "main"); !errors.Is(err, remote.ErrNotFound) {
		t.Errorf("before: %v", err)
	}
	one, two := document(t, s, "one"), document(t, s, "two")
	v1, err := s.PutManifest(t.Context(), "main", one, remote.Absent)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.PutManifest(t.Context(), "main", two, remote.Absent); !errors.Is(err, remote.ErrConflict) {
		t.Errorf("second first: %v", err)
	}
	if doc, err := s.Manifest(t.Context(), "main"); err != nil || string(doc.Bytes) != string(one) || doc.Version != v1 {
		t.Errorf("%v, %v", doc, err)
	}
	v2, err := s.PutManifest(t.Context(), "main", two, v1)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.PutManifest(t.Context(), "main", document(t, s, "three"), v1); !errors.Is(err, remote.ErrConflict) {
		t.Errorf("stale version: %v", err)
	}
	if _, err := s.PutManifest(t.Context(), "other", document(t, s, "three"), v1); !errors.Is(err, remote.ErrConflict) {
		t.Errorf("a version where nothing is: %v", err)
	}
	if v, err := s.PutManifest(t.Context(), "main", two, v1); err != nil || v != v2 {
		t.Errorf("what is there already: %v, %v", v, err)
	}
	if _, err := s.PutManifest(t.Context(), "other", one, remote.Any); err != nil {
		t.Error(err)
	}
	info, err := s.client.StatObject(t.Context(), s.cfg.Bucket, "team/manifests/main", minio.StatObjectOptions{})
	if got := info.UserMetadata[digestField]; err != nil || got != digest.FromBytes(two).String() {
		t.Errorf("the digest beside the document is %q, %v", got, err)
	}
	for _, b := range [][]byte{one, two} {
		if doc, err := s.Manifest(t.Context(), digest.FromBytes(b).String()); err != nil || string(doc.Bytes) != string(b) {
			t.Errorf("by digest: %v, %v", doc, err)
		}
	}
	for prefix, want := range map[string][]string{"": {"main", "other"}, "ma": {"main"}, "x": nil, ".larder": nil, "sha256": nil} {
		if got, err := s.Names(t.Context(), prefix); err != nil || !slices.Equal(got, want) {
			t.Errorf("names with %q: %v, %v", prefix, got, err)
		}
	}
	for range 2 {
		if err := s.DeleteManifest(t.Context(), "main"); err != nil {
			t.Error(err)
		}
	}
	for _, name := range []string{"main", digest.FromBytes(two).String()} {
		if _, err := s.Manifest(t.Context(), name); !errors.Is(err, remote.ErrNotFound) {
			t.Errorf("after: %v", err)
		}
	}
	for _, name := range []string{"", ".larder-probe", "a/b", strings.Repeat("x", 200)} {
		if _, err := s.PutManifest(t.Context(), name, one, remote.Any); !errors.Is(err, remote.ErrFinal) {
			t.Errorf("a document is called %q: %v", name, err)
		}
	}
}

func TestMissingBlobs(t *testing.T) {
	s := open(t, bucket(t))
	there, gone := blob([]byte("there")), blob([]byte("gone"))
	if _, err := s.Put(t.Context(), there); err != nil {
		t.Fatal(err)
	}
	doc := document(t, s, "config", there.Desc, gone.Desc, gone.Desc)
	var missing *remote.MissingError
	if _, err := s.PutManifest(t.Context(), "main", doc, remote.Absent); !errors.As(err, &missing) || !slices.Equal(missing.Digests, []digest.Digest{gone.Desc.Digest}) {
		t.Errorf("got %v", err)
	}
	if _, err := s.Manifest(t.Context(), "main"); !errors.Is(err, remote.ErrNotFound) {
		t.Errorf("it is there nevertheless: %v", err)
	}
}

package store

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"larder/internal/content"
	"larder/internal/image"
	"larder/internal/key"
	"larder/internal/layer"
)

func TestPut(t *testing.T) {
	dir := t.TempDir()
	blobs, err := content.Open(filepath.Join(dir, "blobs"))
	if err != nil {
		t.Fatal(err)
	}
	defer blobs.Close()
	ctx := context.Background()
	bytesOf := []byte("a layer from afar")
	fetched := 0
	blob := &layer.Blob{
		Desc:   ocispecs.Descriptor{MediaType: ocispecs.MediaTypeImageLayer, Digest: digest.FromBytes(bytesOf), Size: int64(len(bytesOf))},
		DiffID: digest.FromBytes(bytesOf),
		Fetch: func(context.Context) (io.ReadCloser, error) {
			fetched++
			return io.NopCloser(bytes.NewReader(bytesOf)), nil
		},
	}
	l, err := layer.FromBlob(blob, nil)
	if err != nil {
		t.Fatal(err)
	}
	img, err := image.Assemble(ctx, []image.Part{{Platform: ocispecs.Platform{OS: "linux", Architecture: "amd64"}, State: layer.Stack(l)}},
		image.Options{Blob: func(context.Context, *layer.Layer) (*layer.Blob, error) { return blob, nil }})
	if err != nil {
		t.Fatal(err)
	}
	s := &Images{Dir: filepath.Join(dir, "images"), Blobs: blobs}
	for range 2 {
		if err := s.Put(ctx, img, []string{"docker.io/library/a:1", "docker.io/library/a:2"}, time.Now()); err != nil || fetched != 1 {
			t.Fatal(err, fetched)
		}
	}
	r, err := s.Get("docker.io/library/a:2")
	if err != nil || r.Desc.Digest != img.Desc.Digest || len(r.Keep) != 3 {
		t.Error(r, err)
	}
	kept, err := s.Kept()
	if err != nil || len(kept) != 3 || !kept[blob.Desc.Digest] || !kept[img.Manifests[0].ConfigDesc.Digest] {
		t.Error(kept, err)
	}
	for d := range kept {
		if _, err := blobs.ReadAll(ctx, d, 1<<20); err != nil {
			t.Error(err)
		}
	}
	if err := s.Remove("docker.io/library/a:2"); err != nil {
		t.Error(err)
	}
	if _, err := s.Get("docker.io/library/a:2"); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	if err := s.Put(ctx, img, nil, time.Now()); err != nil {
		t.Error(err)
	}
	os.WriteFile(filepath.Join(s.Dir, key.Bytes([]byte("docker.io/library/a:1")).Hex()[:32]+".json"), []byte(`{"name":`), 0o644)
	if list, err := s.List(); err != nil || len(list) != 1 || list[0].Name != img.Desc.Digest.String() {
		t.Error(list, err)
	}
}

package layer

import (
	"testing"
	"time"

	"larder/internal/key"
)

// TestBlobKey fails when the keys change: blobs that are indexed, and catalogs that name them, would be lost.
func TestBlobKey(t *testing.T) {
	id, nine, epoch := key.Bytes([]byte("layer")), 9, time.Unix(1000, 5)
	for _, c := range []struct {
		opt        ExportOptions
		ours, base string // keys of a layer that larder made, and of a base image's
	}{
		{ExportOptions{}, "452f23f99f463761c43cb0250b8b5bc23d5d3037d7ee323f9ee2c77e02653f04", "452f23f99f463761c43cb0250b8b5bc23d5d3037d7ee323f9ee2c77e02653f04"},
		{ExportOptions{Level: &nine}, "0a43662740d2c4d4322055ff82555aac78b3e3d80f486da045b2c71d17ef5084", "0a43662740d2c4d4322055ff82555aac78b3e3d80f486da045b2c71d17ef5084"},
		{ExportOptions{Compression: Zstd, Epoch: &epoch}, "43b315bff4561eac98f226b168982764e93c65511191e998fdfb6ed0dcc0a0ce", "f14600387f21514c907a4a7cb43085e92d928ddbb18aeead8fcba840515bfb95"},
		{ExportOptions{Compression: Uncompressed, ForceCompression: true}, "c5e88991c0954141db11486531d316bf21d3dadef28f54ba6fb766065c8c98c7", "c5e88991c0954141db11486531d316bf21d3dadef28f54ba6fb766065c8c98c7"},
	} {
		for fromImage, want := range map[bool]string{false: c.ours, true: c.base} {
			got, err := BlobKey(id, fromImage, c.opt)
			if err != nil || got.Hex() != want {
				t.Errorf("%+v, from an image: %v: %s, %v", c.opt, fromImage, got.Hex(), err)
			}
		}
	}
	if _, err := BlobKey(id, false, ExportOptions{Compression: Zstd, Level: new(int)}); err == nil {
		t.Error("zstd has no level 0")
	}
}

// TestPacked finds by its key what was exported, as long as its bytes are there.
func TestPacked(t *testing.T) {
	needRoot(t)
	l, store, epoch := layerOf(t, sampleDir(t)), openStore(t), time.Unix(1000, 0)
	for _, opt := range []ExportOptions{{}, {Compression: Zstd}, {Epoch: &epoch}} {
		k, err := BlobKey(l.Identity, false, opt)
		if err != nil {
			t.Fatal(err)
		}
		if b, ok := packed(store, k); ok {
			t.Errorf("%+v: %v before it was exported", opt, b)
		}
		blob, err := Export(t.Context(), l, store, opt)
		if err != nil {
			t.Fatal(err)
		}
		if b, ok := packed(store, k); !ok || b.Desc.Digest != blob.Desc.Digest || b.DiffID != blob.DiffID {
			t.Errorf("%+v: found %v, exported %v", opt, b, blob)
		}
		if err := store.Delete(blob.Desc.Digest); err != nil {
			t.Fatal(err)
		}
		if b, ok := packed(store, k); ok {
			t.Errorf("%+v: %v after its bytes were deleted", opt, b)
		}
	}
}

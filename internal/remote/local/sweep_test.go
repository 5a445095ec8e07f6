package local

import (
	"bytes"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"larder/internal/remote"
	"larder/internal/remote/storetest"
)

// age makes all blobs so old that a sweep may take them, and the last sweep as well.
func age(t *testing.T, s *Store) {
	t.Helper()
	old := time.Now().Add(-2 * grace)
	files, err := filepath.Glob(s.path("blobs", "sha256", "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range append(files, s.path(".larder", "swept")) {
		if err := os.Chtimes(f, old, old); err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
	}
}

func count(t *testing.T, s *Store) int {
	t.Helper()
	files, err := os.ReadDir(s.path("blobs", "sha256"))
	if err != nil {
		t.Fatal(err)
	}
	return len(files)
}

// TestForeignEntriesStay: images that others keep in the layout, with or without names, are not touched, nor are their blobs.
func TestForeignEntriesStay(t *testing.T) {
	s := open(t)
	store(t, s, "first")
	// BuildKit's local cache: an index whose entries are its layers. And an index of images.
	put := func(b []byte) ocispecs.Descriptor { return storetest.Put(t, s, b) }
	leaf, config := put([]byte("a layer of an image")), put([]byte("a config"))
	image := put(storetest.Document("image", config, leaf))
	image.MediaType = ocispecs.MediaTypeImageManifest
	layer, cacheConfig := put([]byte("a layer of BuildKit's cache")), put([]byte("a config of BuildKit's cache"))
	layer.MediaType, cacheConfig.MediaType = ocispecs.MediaTypeImageLayerGzip, "application/vnd.buildkit.cacheconfig.v0"
	list, err := json.Marshal(ocispecs.Index{MediaType: ocispecs.MediaTypeImageIndex, Manifests: []ocispecs.Descriptor{image, layer, cacheConfig}})
	if err != nil {
		t.Fatal(err)
	}
	foreign := put(list)
	foreign.MediaType = ocispecs.MediaTypeImageIndex
	index, err := s.readIndex()
	if err != nil {
		t.Fatal(err)
	}
	index.Manifests = append(index.Manifests, foreign)
	if err := s.writeIndex(index); err != nil {
		t.Fatal(err)
	}
	stray := put([]byte("what nobody names"))
	age(t, s)
	if err := s.DeleteManifest(t.Context(), "first"); err != nil {
		t.Fatal(err)
	}
	for _, d := range []ocispecs.Descriptor{leaf, config, image, layer, cacheConfig, foreign} {
		if _, err := storetest.Read(t.Context(), s, d); err != nil {
			t.Errorf("%s: %v", d.MediaType, err)
		}
	}
	if _, err := storetest.Read(t.Context(), s, stray); !errors.Is(err, remote.ErrNotFound) {
		t.Errorf("what nobody names: %v", err)
	}
	if index, err := s.readIndex(); err != nil || len(index.Manifests) != 1 || index.Manifests[0].Digest != foreign.Digest {
		t.Errorf("%+v, %v", index, err)
	}
}

func TestSweep(t *testing.T) {
	s := open(t)
	ctx := t.Context()
	store(t, s, "keep")
	store(t, s, "drop")
	if n := count(t, s); n != 5 { // two documents, two layers, one config for both
		t.Fatal(n)
	}
	// Young blobs stay: somebody may be about to name them.
	if err := s.DeleteManifest(ctx, "drop"); err != nil || count(t, s) != 5 {
		t.Errorf("%d blobs, %v", count(t, s), err)
	}
	store(t, s, "drop")
	age(t, s)
	if err := s.DeleteManifest(ctx, "drop"); err != nil || count(t, s) != 3 {
		t.Errorf("%d blobs, %v", count(t, s), err)
	}
	// What a write replaces goes too, an hour after the last sweep.
	store(t, s, "keep2")
	doc, err := s.Manifest(ctx, "keep2")
	if err != nil {
		t.Fatal(err)
	}
	config := storetest.Describe([]byte("{}"))
	age(t, s)
	if _, err := s.PutManifest(ctx, "keep2", storetest.Document("without a layer", config), doc.Version); err != nil {
		t.Fatal(err)
	}
	if n := count(t, s); n != 4 {
		t.Errorf("%d blobs", n)
	}
	for name, has := range map[string]bool{"keep": true, "keep2": true, "drop": false} {
		if _, err := s.Manifest(ctx, name); (err == nil) != has {
			t.Errorf("%s: %v", name, err)
		}
	}
	// Asking for a blob, or putting it again, keeps it.
	asked, again := storetest.Put(t, s, []byte("asked")), storetest.Put(t, s, []byte("again"))
	age(t, s)
	if ok, err := s.Has(ctx, asked); !ok || err != nil {
		t.Error(ok, err)
	}
	storetest.Put(t, s, []byte("again"))
	if err := s.DeleteManifest(ctx, "keep2"); err != nil {
		t.Fatal(err)
	}
	for _, d := range []ocispecs.Descriptor{asked, again} {
		if ok, err := s.Has(ctx, d); !ok || err != nil {
			t.Error(ok, err)
		}
	}
}

// TestSweepFearsWhatItCannotRead: a document that is damaged may name anything.
func TestSweepFearsWhatItCannotRead(t *testing.T) {
	s := open(t)
	store(t, s, "keep")
	store(t, s, "drop")
	doc, err := s.Manifest(t.Context(), "keep")
	if err != nil {
		t.Fatal(err)
	}
	path, _ := s.blob(digest.Digest(doc.Version))
	if err := os.WriteFile(path, bytes.Repeat([]byte{0}, len(doc.Bytes)), 0o644); err != nil {
		t.Fatal(err)
	}
	age(t, s)
	if err := s.DeleteManifest(t.Context(), "drop"); err != nil || count(t, s) != 5 {
		t.Errorf("%d blobs, %v", count(t, s), err)
	}
	// The damage is told from absence, and overwritten.
	if _, err := s.Manifest(t.Context(), "keep"); !errors.Is(err, remote.ErrDamaged) {
		t.Error(err)
	}
	store(t, s, "keep")
	if doc, err := s.Manifest(t.Context(), "keep"); err != nil || storetest.Note(t, doc) != "keep" {
		t.Error(err)
	}
}

// TestInterruptedWritersLeaveNothing: what a killed writer left is swept, what a living one writes is not.
func TestInterruptedWritersLeaveNothing(t *testing.T) {
	s := open(t)
	store(t, s, "tag")
	dead, alive := s.path(".larder", "tmp", "DEAD"), (*incoming)(nil)
	if err := os.WriteFile(dead, []byte("half a blob"), 0o644); err != nil {
		t.Fatal(err)
	}
	alive, err := s.create()
	if err != nil {
		t.Fatal(err)
	}
	defer alive.drop()
	s.sweepWriters()
	if _, err := os.Stat(dead); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	if _, err := os.Stat(alive.Name()); err != nil {
		t.Error(err)
	}
	alive.drop()
	if files, err := os.ReadDir(s.path(".larder", "tmp")); err != nil || len(files) != 0 {
		t.Error(files, err)
	}
}

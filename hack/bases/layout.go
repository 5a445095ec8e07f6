package main

import (
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/pkg/archive"
	"github.com/klauspost/pgzip"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

// image collects the parts of one OCI image in a layout directory.
type image struct {
	dir    string
	config ocispecs.Image
	layers []ocispecs.Descriptor
}

func newImage(dir string) (*image, error) {
	if err := os.MkdirAll(filepath.Join(dir, "blobs", "sha256"), 0o755); err != nil {
		return nil, err
	}
	img := &image{dir: dir}
	img.config.Architecture = runtime.GOARCH
	img.config.OS = "linux"
	img.config.RootFS.Type = "layers"
	img.config.Config.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
	return img, nil
}

// inherit starts the image with the layers of another layout, unpacked into root.
func (img *image) inherit(ctx context.Context, parent, root string) error {
	var index ocispecs.Index
	if err := readJSON(filepath.Join(parent, ocispecs.ImageIndexFile), &index); err != nil {
		return err
	}
	var manifest ocispecs.Manifest
	if err := readJSON(blobPath(parent, index.Manifests[0].Digest), &manifest); err != nil {
		return err
	}
	if err := readJSON(blobPath(parent, manifest.Config.Digest), &img.config); err != nil {
		return err
	}
	img.layers = manifest.Layers
	for _, l := range manifest.Layers {
		src := blobPath(parent, l.Digest)
		if err := unpack(ctx, src, root); err != nil {
			return err
		}
		// A hard link: a parent that is made anew replaces its files, it never writes into them.
		if err := os.Link(src, blobPath(img.dir, l.Digest)); err != nil {
			return err
		}
	}
	return nil
}

func unpack(ctx context.Context, blob, root string) error {
	f, err := os.Open(blob)
	if err != nil {
		return err
	}
	defer f.Close()
	zr, err := gzip.NewReader(f)
	if err != nil {
		return err
	}
	_, err = archive.Apply(ctx, root, zr)
	return err
}

// addLayer makes a layer of what differs between two directories; before may be empty.
func (img *image) addLayer(ctx context.Context, comment, before, after string) error {
	tmp, err := os.CreateTemp(img.dir, "layer-")
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name())
	defer tmp.Close()
	compressed, diffID := digest.Canonical.Digester(), digest.Canonical.Digester()
	zw := pgzip.NewWriter(io.MultiWriter(tmp, compressed.Hash()))
	if err := archive.WriteDiff(ctx, io.MultiWriter(zw, diffID.Hash()), before, after); err != nil {
		return err
	}
	if err := zw.Close(); err != nil {
		return err
	}
	info, err := tmp.Stat()
	if err != nil {
		return err
	}
	if err := tmp.Chmod(0o644); err != nil {
		return err
	}
	d := compressed.Digest()
	if err := os.Rename(tmp.Name(), blobPath(img.dir, d)); err != nil {
		return err
	}
	img.layers = append(img.layers, ocispecs.Descriptor{
		MediaType: ocispecs.MediaTypeImageLayerGzip, Digest: d, Size: info.Size(),
	})
	now := time.Now().UTC()
	img.config.RootFS.DiffIDs = append(img.config.RootFS.DiffIDs, diffID.Digest())
	img.config.History = append(img.config.History, ocispecs.History{Created: &now, CreatedBy: comment})
	img.config.Created = &now
	return nil
}

// setConfig adds variables, later ones of a name replacing earlier ones, and sets the command where there is one.
func (img *image) setConfig(env, cmd []string) {
	values := map[string]string{}
	for _, kv := range append(slices.Clone(img.config.Config.Env), env...) {
		name, value, _ := strings.Cut(kv, "=")
		values[name] = value
	}
	img.config.Config.Env = nil
	for _, name := range slices.Sorted(maps.Keys(values)) {
		img.config.Config.Env = append(img.config.Config.Env, name+"="+values[name])
	}
	if cmd != nil {
		img.config.Config.Cmd = cmd
	}
}

// write stores config, manifest and index.
func (img *image) write(tag string) error {
	config, err := img.putJSON(ocispecs.MediaTypeImageConfig, img.config)
	if err != nil {
		return err
	}
	manifest, err := img.putJSON(ocispecs.MediaTypeImageManifest, ocispecs.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: ocispecs.MediaTypeImageManifest,
		Config:    config,
		Layers:    img.layers,
	})
	if err != nil {
		return err
	}
	manifest.Annotations = map[string]string{ocispecs.AnnotationRefName: tag}
	manifest.Platform = &ocispecs.Platform{OS: img.config.OS, Architecture: img.config.Architecture}
	index := ocispecs.Index{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: ocispecs.MediaTypeImageIndex,
		Manifests: []ocispecs.Descriptor{manifest},
	}
	if err := writeJSON(filepath.Join(img.dir, ocispecs.ImageIndexFile), index); err != nil {
		return err
	}
	return writeJSON(filepath.Join(img.dir, ocispecs.ImageLayoutFile), ocispecs.ImageLayout{Version: ocispecs.ImageLayoutVersion})
}

func (img *image) putJSON(mediaType string, v any) (ocispecs.Descriptor, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return ocispecs.Descriptor{}, err
	}
	d := digest.FromBytes(b)
	return ocispecs.Descriptor{MediaType: mediaType, Digest: d, Size: int64(len(b))}, os.WriteFile(blobPath(img.dir, d), b, 0o644)
}

func blobPath(layout string, d digest.Digest) string {
	return filepath.Join(layout, "blobs", d.Algorithm().String(), d.Encoded())
}

func readJSON(path string, v any) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, v); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

func writeJSON(path string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return os.WriteFile(path, b, 0o644)
}

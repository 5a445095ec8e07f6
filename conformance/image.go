package main

import (
	"archive/tar"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

// maxJSON bounds an index, manifest or config: a registry's own limit for a manifest.
const maxJSON = 4 << 20

// An image is one platform's image as read back from a builder's output.
type image struct {
	platform string
	config   map[string]any
	root     *node
}

// A layout is an OCI layout inside a tar file, read by offset.
type layout struct {
	f     *os.File
	files map[string]*io.SectionReader
}

// readImages reads every image of the layout in the tar at path, in the order of its index, and checks on the way that the
// layout is sound: each blob has the digest and size that it is named by, each layer its diff ID. Attestations are left out.
func readImages(path string) ([]*image, error) {
	l, err := openLayout(path)
	if err != nil {
		return nil, err
	}
	defer l.f.Close()
	listed, err := l.index()
	if err != nil {
		return nil, err
	}
	images, err := l.images(listed, 0)
	if err == nil && len(images) == 0 {
		err = errors.New("no image in the layout")
	}
	return images, err
}

// differ tells whether two layouts name different images.
func differ(a, b string) (bool, error) {
	first, err := imageDigests(a)
	if err != nil {
		return false, err
	}
	second, err := imageDigests(b)
	return !slices.Equal(first, second), err
}

// imageDigests lists what the index of the layout in the tar at path names.
func imageDigests(path string) ([]digest.Digest, error) {
	l, err := openLayout(path)
	if err != nil {
		return nil, err
	}
	defer l.f.Close()
	listed, err := l.index()
	if err != nil {
		return nil, err
	}
	var out []digest.Digest
	for _, m := range listed {
		out = append(out, m.Digest)
	}
	return out, nil
}

// index reads what the layout's index names.
func (l *layout) index() ([]ocispecs.Descriptor, error) {
	r, ok := l.files["index.json"]
	if !ok {
		return nil, errors.New("no index.json")
	}
	var index ocispecs.Index
	if err := json.NewDecoder(r).Decode(&index); err != nil {
		return nil, fmt.Errorf("index.json: %w", err)
	}
	return index.Manifests, nil
}

func openLayout(path string) (*layout, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	l := &layout{f: f, files: map[string]*io.SectionReader{}}
	tr := tar.NewReader(f)
	for {
		h, err := tr.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			f.Close()
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		if h.Typeflag != tar.TypeReg {
			continue
		}
		// archive/tar reads the file in whole blocks and no further: the position is where the content starts.
		at, err := f.Seek(0, io.SeekCurrent)
		if err != nil {
			f.Close()
			return nil, err
		}
		l.files[strings.TrimPrefix(h.Name, "./")] = io.NewSectionReader(f, at, h.Size)
	}
	if _, ok := l.files["oci-layout"]; !ok {
		f.Close()
		return nil, errors.New("no oci-layout file")
	}
	return l, nil
}

func (l *layout) images(descs []ocispecs.Descriptor, depth int) ([]*image, error) {
	if depth > 4 {
		return nil, errors.New("indexes nested too deeply")
	}
	var out []*image
	for _, d := range descs {
		if d.Annotations["vnd.docker.reference.type"] != "" {
			continue
		}
		data, err := l.json(d)
		if err != nil {
			return nil, err
		}
		if strings.Contains(d.MediaType, "index") || strings.Contains(d.MediaType, "manifest.list") {
			var index ocispecs.Index
			if err := json.Unmarshal(data, &index); err != nil {
				return nil, fmt.Errorf("index %s: %w", d.Digest, err)
			}
			inner, err := l.images(index.Manifests, depth+1)
			if err != nil {
				return nil, err
			}
			out = append(out, inner...)
			continue
		}
		img, err := l.image(data)
		if err != nil {
			return nil, fmt.Errorf("manifest %s: %w", d.Digest, err)
		}
		out = append(out, img)
	}
	return out, nil
}

func (l *layout) image(manifest []byte) (*image, error) {
	var m ocispecs.Manifest
	if err := json.Unmarshal(manifest, &m); err != nil {
		return nil, err
	}
	data, err := l.json(m.Config)
	if err != nil {
		return nil, fmt.Errorf("config: %w", err)
	}
	var config ocispecs.Image
	if err := json.Unmarshal(data, &config); err != nil {
		return nil, fmt.Errorf("config: %w", err)
	}
	img := &image{root: newRoot(), platform: config.OS + "/" + config.Architecture}
	if config.Variant != "" {
		img.platform += "/" + config.Variant
	}
	if err := json.Unmarshal(data, &img.config); err != nil {
		return nil, fmt.Errorf("config: %w", err)
	}
	if len(config.RootFS.DiffIDs) != len(m.Layers) {
		return nil, fmt.Errorf("%d diff IDs for %d layers", len(config.RootFS.DiffIDs), len(m.Layers))
	}
	layers := 0
	for _, h := range config.History {
		if !h.EmptyLayer {
			layers++
		}
	}
	if len(config.History) > 0 && layers != len(m.Layers) {
		return nil, fmt.Errorf("history tells of %d layers, there are %d", layers, len(m.Layers))
	}
	for i, d := range m.Layers {
		if err := l.apply(img.root, i, d, config.RootFS.DiffIDs[i].String()); err != nil {
			return nil, fmt.Errorf("layer %d (%s): %w", i, d.Digest, err)
		}
	}
	return img, nil
}

// apply adds one layer to root and verifies its digest, its size and its diff ID.
func (l *layout) apply(root *node, number int, d ocispecs.Descriptor, diffID string) error {
	blob, err := l.blob(d)
	if err != nil {
		return err
	}
	compressed, plain := sha256.New(), sha256.New()
	r, err := decompress(io.TeeReader(blob, compressed), d.MediaType)
	if err != nil {
		return err
	}
	defer r.Close()
	tee := io.TeeReader(r, plain)
	if err := applyLayer(root, number, tar.NewReader(tee)); err != nil {
		return err
	}
	// What follows the end marker of the tar belongs to the blob too.
	if _, err := io.Copy(io.Discard, tee); err != nil {
		return err
	}
	if _, err := io.Copy(compressed, blob); err != nil {
		return err
	}
	if got := "sha256:" + hex.EncodeToString(compressed.Sum(nil)); got != d.Digest.String() {
		return fmt.Errorf("blob has digest %s", got)
	}
	if got := "sha256:" + hex.EncodeToString(plain.Sum(nil)); got != diffID {
		return fmt.Errorf("tar has diff ID %s, config says %s", got, diffID)
	}
	return nil
}

func decompress(r io.Reader, mediaType string) (io.ReadCloser, error) {
	switch {
	case strings.HasSuffix(mediaType, "gzip"):
		return gzip.NewReader(r)
	case strings.HasSuffix(mediaType, "zstd"):
		z, err := zstd.NewReader(r)
		if err != nil {
			return nil, err
		}
		return z.IOReadCloser(), nil
	case strings.HasSuffix(mediaType, "tar"):
		return io.NopCloser(r), nil
	}
	return nil, fmt.Errorf("media type %q", mediaType)
}

func (l *layout) blob(d ocispecs.Descriptor) (*io.SectionReader, error) {
	r, ok := l.files["blobs/sha256/"+d.Digest.Encoded()]
	if !ok {
		return nil, fmt.Errorf("blob %s is not in the layout", d.Digest)
	}
	if r.Size() != d.Size {
		return nil, fmt.Errorf("blob %s has %d bytes, its descriptor says %d", d.Digest, r.Size(), d.Size)
	}
	return io.NewSectionReader(r, 0, r.Size()), nil
}

func (l *layout) json(d ocispecs.Descriptor) ([]byte, error) {
	r, err := l.blob(d)
	if err != nil {
		return nil, err
	}
	if d.Size > maxJSON {
		return nil, fmt.Errorf("blob %s has %d bytes", d.Digest, d.Size)
	}
	data, err := io.ReadAll(r)
	if err != nil {
		return nil, err
	}
	if sum := sha256.Sum256(data); hex.EncodeToString(sum[:]) != d.Digest.Encoded() {
		return nil, fmt.Errorf("blob %s has another digest", d.Digest)
	}
	return data, nil
}

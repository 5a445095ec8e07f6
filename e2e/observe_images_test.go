package e2e

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"testing"

	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

// differ says in which files, and in what else, the images of two OCI archives differ.
func differ(t *testing.T, a, b string) string {
	t.Helper()
	ia, ib := readImage(t, a), readImage(t, b)
	var out strings.Builder
	if ia.config != ib.config {
		fmt.Fprintf(&out, "config:\n  %s\n  %s\n", ia.config, ib.config)
	}
	for i := range max(len(ia.layers), len(ib.layers)) {
		var la, lb []string
		if i < len(ia.layers) {
			la = ia.layers[i]
		}
		if i < len(ib.layers) {
			lb = ib.layers[i]
		}
		for _, line := range la {
			if !slices.Contains(lb, line) {
				fmt.Fprintf(&out, "layer %d: - %s\n", i, line)
			}
		}
		for _, line := range lb {
			if !slices.Contains(la, line) {
				fmt.Fprintf(&out, "layer %d: + %s\n", i, line)
			}
		}
	}
	return out.String()
}

// imageDigest is the image that --metadata-file names.
func imageDigest(t *testing.T, metadata string) string {
	t.Helper()
	b, err := os.ReadFile(metadata)
	if err != nil {
		t.Fatal(err)
	}
	var meta struct {
		Digest string `json:"containerimage.digest"`
	}
	if err := json.Unmarshal(b, &meta); err != nil || meta.Digest == "" {
		t.Fatalf("--metadata-file names no digest (%v): %s", err, b)
	}
	return meta.Digest
}

// imageText is an image with a line for each file of each layer.
type imageText struct {
	config string
	layers [][]string
}

func readImage(t *testing.T, archive string) imageText {
	t.Helper()
	f, err := os.Open(archive)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	blobs := map[string][]byte{}
	files(t, f, func(h *tar.Header, data []byte) { blobs[strings.TrimPrefix(h.Name, "blobs/sha256/")] = data })
	var index ocispecs.Index
	var manifest ocispecs.Manifest
	err = json.Unmarshal(blobs["index.json"], &index)
	if err == nil && len(index.Manifests) != 1 {
		err = errors.New("not one manifest")
	}
	if err == nil {
		err = json.Unmarshal(blobs[index.Manifests[0].Digest.Encoded()], &manifest)
	}
	if err != nil {
		t.Fatalf("%s: %v", archive, err)
	}
	out := imageText{config: string(blobs[manifest.Config.Digest.Encoded()])}
	for _, l := range manifest.Layers {
		zr, err := gzip.NewReader(bytes.NewReader(blobs[l.Digest.Encoded()]))
		if err != nil {
			t.Fatalf("%s: %v", archive, err)
		}
		var lines []string
		files(t, zr, func(h *tar.Header, data []byte) {
			lines = append(lines, fmt.Sprintf("%s %c %o %d:%d %d:%d %s %v %v %x", h.Name, h.Typeflag, h.Mode, h.Uid, h.Gid, h.Devmajor, h.Devminor,
				h.Linkname, h.ModTime.UTC(), h.PAXRecords, sha256.Sum256(data)))
		})
		out.layers = append(out.layers, lines)
	}
	return out
}

// files reads a tar to its end.
func files(t *testing.T, r io.Reader, each func(h *tar.Header, data []byte)) {
	t.Helper()
	tr := tar.NewReader(r)
	for {
		h, err := tr.Next()
		if err == io.EOF {
			return
		}
		var data []byte
		if err == nil {
			data, err = io.ReadAll(tr)
		}
		if err != nil {
			t.Fatal(err)
		}
		each(h, data)
	}
}

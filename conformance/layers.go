package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"fmt"
	"runtime"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

const (
	mediaTypeDockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
	mediaTypeDockerConfig   = "application/vnd.docker.container.image.v1+json"
	mediaTypeDockerLayer    = "application/vnd.docker.image.rootfs.diff.tar.gzip"
)

// baseTime is the mtime and creation time of everything in a base image.
var baseTime = time.Date(2023, 4, 5, 6, 7, 8, 0, time.UTC)

// A tarLayer collects the entries of one base layer. The first error sticks and shows in bytes.
type tarLayer struct {
	buf bytes.Buffer
	tw  *tar.Writer
	err error
}

func newTarLayer() *tarLayer {
	l := &tarLayer{}
	l.tw = tar.NewWriter(&l.buf)
	return l
}

func (l *tarLayer) add(h tar.Header, content string) *tarLayer {
	h.ModTime, h.Format, h.Size = baseTime, tar.FormatPAX, int64(len(content))
	if l.err == nil {
		l.err = l.tw.WriteHeader(&h)
	}
	if l.err == nil {
		_, l.err = l.tw.Write([]byte(content))
	}
	return l
}

func (l *tarLayer) dir(name string, mode int64) *tarLayer {
	return l.add(tar.Header{Typeflag: tar.TypeDir, Name: name + "/", Mode: mode}, "")
}

func (l *tarLayer) file(name string, mode int64, content string) *tarLayer {
	return l.add(tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: mode}, content)
}

func (l *tarLayer) link(name, target string) *tarLayer {
	return l.add(tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: target, Mode: 0o777}, "")
}

func (l *tarLayer) bytes() ([]byte, error) {
	if l.err == nil {
		l.err = l.tw.Close()
	}
	return l.buf.Bytes(), l.err
}

func descriptor(mediaType, dgst string, size int) ocispecs.Descriptor {
	return ocispecs.Descriptor{MediaType: mediaType, Digest: digest.Digest(dgst), Size: int64(size)}
}

// A form says how a base image is written down: builders must take all of them.
type form struct {
	manifest, config, layer string
	zstd                    bool
}

var (
	ociForm    = form{ocispecs.MediaTypeImageManifest, ocispecs.MediaTypeImageConfig, ocispecs.MediaTypeImageLayerGzip, false}
	zstdForm   = form{ocispecs.MediaTypeImageManifest, ocispecs.MediaTypeImageConfig, ocispecs.MediaTypeImageLayerZstd, true}
	dockerForm = form{mediaTypeDockerManifest, mediaTypeDockerConfig, mediaTypeDockerLayer, false}
)

// image stores an image of the layers and returns its manifest's descriptor. config is an ocispecs.Image, or what adds
// Docker's own fields to one; setRootFS puts the diff IDs into it.
func (r *registry) image(f form, layers []*tarLayer, config func(ocispecs.RootFS, []ocispecs.History) any) (ocispecs.Descriptor, error) {
	var m struct {
		specs.Versioned
		MediaType string                `json:"mediaType"`
		Config    ocispecs.Descriptor   `json:"config"`
		Layers    []ocispecs.Descriptor `json:"layers"`
	}
	m.SchemaVersion, m.MediaType = 2, f.manifest
	rootfs := ocispecs.RootFS{Type: "layers"}
	var history []ocispecs.History
	for i, l := range layers {
		plain, err := l.bytes()
		if err != nil {
			return ocispecs.Descriptor{}, fmt.Errorf("layer %d: %w", i, err)
		}
		packed, err := f.compress(plain)
		if err != nil {
			return ocispecs.Descriptor{}, fmt.Errorf("layer %d: %w", i, err)
		}
		m.Layers = append(m.Layers, descriptor(f.layer, r.add(packed), len(packed)))
		rootfs.DiffIDs = append(rootfs.DiffIDs, digest.FromBytes(plain))
		history = append(history, ocispecs.History{Created: &baseTime, CreatedBy: fmt.Sprintf("layer %d", i)})
	}
	var err error
	if m.Config, err = r.addJSON(f.config, config(rootfs, history)); err != nil {
		return ocispecs.Descriptor{}, err
	}
	return r.addJSON(f.manifest, m)
}

func (f form) compress(data []byte) ([]byte, error) {
	var buf bytes.Buffer
	if f.zstd {
		z, err := zstd.NewWriter(&buf)
		if err != nil {
			return nil, err
		}
		if _, err := z.Write(data); err != nil {
			return nil, err
		}
		err = z.Close()
		return buf.Bytes(), err
	}
	z := gzip.NewWriter(&buf)
	if _, err := z.Write(data); err != nil {
		return nil, err
	}
	err := z.Close()
	return buf.Bytes(), err
}

// platform is this machine's: RUN steps need no emulation.
func platform() ocispecs.Platform {
	return ocispecs.Platform{OS: "linux", Architecture: runtime.GOARCH}
}

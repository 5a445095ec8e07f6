package image

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"larder/internal/fault"
	"larder/internal/key"
	"larder/internal/layer"
	"larder/internal/registry"
)

// LayoutDigest finds what a tag means in an OCI layout: the entry of its index.json that has the tag as its
// org.opencontainers.image.ref.name, alone or as the tag of a whole reference. Without a tag, the layout's only entry, or
// "latest".
func LayoutDigest(dir, tag string) (digest.Digest, error) {
	b, err := readSmall(filepath.Join(dir, ocispecs.ImageIndexFile), registry.MaxManifest)
	if err != nil {
		return "", fault.Errorf(fault.Usage, "OCI layout %s: %w", dir, err)
	}
	var index ocispecs.Index
	if err := json.Unmarshal(b, &index); err != nil {
		return "", fault.Errorf(fault.Usage, "OCI layout %s: index.json: %w", dir, err)
	}
	if tag == "" && len(index.Manifests) == 1 {
		return index.Manifests[0].Digest, nil
	}
	want := tag
	if want == "" {
		want = "latest"
	}
	for _, m := range index.Manifests {
		name := m.Annotations[ocispecs.AnnotationRefName]
		if name == want || strings.HasSuffix(name, ":"+want) {
			return m.Digest, nil
		}
	}
	return "", fault.Errorf(fault.Usage, "OCI layout %s has no image %q among its %d", dir, want, len(index.Manifests))
}

// ResolveLayout finds an image in one of the layouts of Options by the digest of its manifest or index. platform nil means this machine's.
func (r *Resolver) ResolveLayout(ctx context.Context, name string, d digest.Digest, platform *ocispecs.Platform) (*Image, error) {
	dir, ok := r.opt.Layouts[name]
	if !ok {
		return nil, fault.Errorf(fault.Usage, "there is no OCI layout %s: give it as  --build-context NAME=oci-layout://DIRECTORY", name)
	}
	if err := d.Validate(); err != nil {
		return nil, fault.Errorf(fault.Usage, "OCI layout %s: digest %.100q: %w", name, d, err)
	}
	return load(ctx, &directory{dir: dir}, "oci-layout://"+name+"@"+d.String(), ocispecs.Descriptor{Digest: d}, platform)
}

// directory is an OCI layout.
type directory struct{ dir string }

func (s *directory) path(d digest.Digest) string {
	return filepath.Join(s.dir, ocispecs.ImageBlobsDir, string(d.Algorithm()), d.Encoded())
}

func (s *directory) document(_ context.Context, desc ocispecs.Descriptor, manifest bool) ([]byte, error) {
	if err := desc.Digest.Validate(); err != nil {
		return nil, fmt.Errorf("digest %.100q: %w", desc.Digest, err)
	}
	limit := int64(maxConfig)
	if manifest {
		limit = registry.MaxManifest
	}
	b, err := readSmall(s.path(desc.Digest), limit)
	if err != nil {
		return nil, fmt.Errorf("OCI layout %s: %w", s.dir, err)
	}
	if desc.Digest.Algorithm().FromBytes(b) != desc.Digest {
		return nil, fmt.Errorf("OCI layout %s: blob %s is damaged", s.dir, desc.Digest)
	}
	return b, nil
}

func (s *directory) blob(desc ocispecs.Descriptor) *layer.Blob {
	return &layer.Blob{Desc: desc, Fetch: func(context.Context) (io.ReadCloser, error) {
		d, err := key.FromOCI(desc.Digest)
		if err != nil {
			return nil, err
		}
		f, err := os.Open(s.path(desc.Digest))
		if err != nil {
			return nil, fmt.Errorf("OCI layout %s: %w", s.dir, err)
		}
		return struct {
			io.Reader
			io.Closer
		}{layer.Verified(f, d, desc.Size, f.Name()), f}, nil
	}}
}

// readSmall reads a file of at most limit bytes.
func readSmall(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var b bytes.Buffer
	n, err := b.ReadFrom(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, err
	}
	if n > limit {
		return nil, errors.New(filepath.Base(path) + " is too large")
	}
	return b.Bytes(), nil
}

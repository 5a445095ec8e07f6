package inline

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"larder/internal/catalog"
	"larder/internal/image"
	"larder/internal/key"
	"larder/internal/layer"
	"larder/internal/registry"
	"larder/internal/tree"
)

// repository serves documents by digest.
type repository struct {
	docs  map[digest.Digest][]byte
	asked atomic.Int64
}

func (r *repository) add(b []byte) ocispecs.Descriptor {
	if r.docs == nil {
		r.docs = map[digest.Digest][]byte{}
	}
	d := digest.FromBytes(b)
	r.docs[d] = b
	return ocispecs.Descriptor{Digest: d, Size: int64(len(b))}
}

func (r *repository) fetch(_ context.Context, desc ocispecs.Descriptor) ([]byte, error) {
	r.asked.Add(1)
	b, ok := r.docs[desc.Digest]
	if !ok {
		return nil, errors.New("not found")
	}
	return b, nil
}

// fixtures loads what BuildKit wrote.
func fixtures(t testing.TB) (*repository, func(name string) []byte) {
	t.Helper()
	r := &repository{}
	paths, err := filepath.Glob("testdata/buildkit/*.json")
	if err != nil || len(paths) == 0 {
		t.Fatal(paths, err)
	}
	byName := map[string][]byte{}
	for _, p := range paths {
		b, err := os.ReadFile(p)
		if err != nil {
			t.Fatal(err)
		}
		r.add(b)
		byName[strings.TrimSuffix(filepath.Base(p), ".json")] = b
	}
	return r, func(name string) []byte {
		b, ok := byName[name]
		if !ok {
			t.Fatalf("no fixture %s", name)
		}
		return b
	}
}

// TestWhatBuildKitWrote recognises documents that the real one made, and finds their layers.
func TestWhatBuildKitWrote(t *testing.T) {
	r, doc := fixtures(t)
	amd64 := []ocispecs.Platform{{OS: "linux", Architecture: "amd64"}}
	for _, tc := range []struct {
		name     string
		alone    Kind // without the config
		kind     Kind
		images   int
		layers   int
		requests int64
		wanted   []ocispecs.Platform
	}{
		{name: "plain", alone: Image, kind: Image, images: 1, layers: 4, requests: 1},
		{name: "manifest", alone: BuildKitCache, kind: BuildKitCache, layers: 5},
		{name: "index", alone: BuildKitCache, kind: BuildKitCache, layers: 5},
		{name: "list", alone: BuildKitCache, kind: BuildKitCache, layers: 5},
		{name: "inline", alone: Image, kind: BuildKitInline, images: 1, layers: 4, requests: 1},
		{name: "inline-docker", alone: Image, kind: BuildKitInline, images: 1, layers: 4, requests: 1},
		{name: "attested", alone: Image, kind: BuildKitInline, images: 1, layers: 4, requests: 2, wanted: amd64},
		{name: "attested", alone: Image, kind: BuildKitInline, images: 1, layers: 4, requests: 2},
		{name: "multi", alone: Image, kind: BuildKitInline, images: 1, layers: 2, requests: 2, wanted: amd64},
		{name: "multi", alone: Image, kind: BuildKitInline, images: 2, layers: 2, requests: 4},
		{name: "multi", alone: Image, kind: Image, wanted: []ocispecs.Platform{{OS: "linux", Architecture: "s390x"}}},
		{name: "attested.1", alone: Other, kind: Other, layers: 1}, // an attestation by itself
	} {
		t.Run(tc.name, func(t *testing.T) {
			root := doc(tc.name)
			if k := Recognise(root, nil); k != tc.alone {
				t.Errorf("alone: %v", k)
			}
			if tc.images == 1 && tc.wanted == nil && tc.name != "attested" {
				if k := Recognise(root, doc(tc.name+".config")); k != tc.kind {
					t.Errorf("with its config: %v", k)
				}
			}
			r.asked.Store(0)
			f, err := Inspect(t.Context(), root, r.fetch, tc.wanted)
			if err != nil {
				t.Fatal(err)
			}
			if f.Kind != tc.kind || len(f.Images) != tc.images || len(f.Blobs) != tc.layers || f.Problems != nil || r.asked.Load() != tc.requests || f.Records() != nil {
				t.Errorf("%v, %d images, %d layers, problems %v, %d requests", f.Kind, len(f.Images), len(f.Blobs), f.Problems, r.asked.Load())
			}
			for _, d := range f.Blobs {
				if d.Annotations != nil || !strings.Contains(d.MediaType, "tar") && tc.kind != Other {
					t.Errorf("%+v", d)
				}
			}
			for _, img := range f.Images {
				if img.Platform.OS != "linux" || img.Platform.Architecture == "" {
					t.Errorf("%+v", img.Platform)
				}
			}
		})
	}
}

// built makes an image as larder does, with the records of dataOf in it.
func built(t testing.TB, r *repository, architectures ...string) (*image.Image, key.Digest) {
	t.Helper()
	l := layer.New(digestOf("final"), true, tree.Empty(), nil)
	blob := copyOf("final")
	var parts []image.Part
	for _, a := range architectures {
		parts = append(parts, image.Part{Platform: ocispecs.Platform{OS: "linux", Architecture: a}, State: (*layer.State)(nil).Push(l)})
	}
	img, err := image.Assemble(t.Context(), parts, image.Options{
		Index: len(parts) > 1,
		Blob: func(context.Context, *layer.Layer) (*layer.Blob, error) {
			return &layer.Blob{Desc: blob.Desc, DiffID: blob.DiffID}, nil
		},
		Extra: func(part int, layers []*layer.Blob) (map[string]json.RawMessage, error) {
			d := dataOf()
			d.Records = append(d.Records, recordOf("RUN on "+architectures[part], "final"))
			d.Layers[digestOf("builder")] = []catalog.Blob{copyOf("builder")} // which the image does not have
			value, err := d.Marshal()
			return map[string]json.RawMessage{Field: value}, err
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range img.Manifests {
		r.add(m.Bytes)
		r.add(m.Config)
	}
	return img, l.Identity
}

func TestInlineImage(t *testing.T) {
	r := &repository{}
	img, identity := built(t, r, "amd64")
	if k := Recognise(img.Manifests[0].Bytes, img.Manifests[0].Config); k != Inline {
		t.Error(k)
	}
	f, err := Inspect(t.Context(), img.Manifests[0].Bytes, r.fetch, nil)
	if err != nil || f.Kind != Inline || len(f.Images) != 1 || f.Problems != nil || len(f.Blobs) != 1 {
		t.Fatalf("%+v, %v", f, err)
	}
	if p := f.Images[0].Platform; p.OS != "linux" || p.Architecture != "amd64" {
		t.Error(p)
	}
	reader := f.Records().Reader()
	if _, ok := reader.Record(t.Context(), digestOf("key of RUN on amd64")); !ok {
		t.Error("a record is missing")
	}
	if copies := reader.Layer(t.Context(), identity); len(copies) != 1 || copies[0].Desc.Digest != copyOf("final").Desc.Digest {
		t.Error(copies)
	}
	if copies := reader.Layer(t.Context(), digestOf("builder")); copies != nil {
		t.Error("a copy that is not in the image", copies)
	}
}

func TestInlineIndex(t *testing.T) {
	r := &repository{}
	img, identity := built(t, r, "amd64", "arm64")
	f, err := Inspect(t.Context(), img.Index, r.fetch, nil)
	if err != nil || f.Kind != Inline || len(f.Images) != 2 || len(f.Blobs) != 1 {
		t.Fatalf("%+v, %v", f, err)
	}
	all := f.Records()
	for _, a := range []string{"amd64", "arm64"} {
		if _, ok := all.Reader().Record(t.Context(), digestOf("key of RUN on "+a)); !ok {
			t.Error("no record of", a)
		}
	}
	if len(all.Layers[identity]) != 1 {
		t.Error("one copy, twice", all.Layers)
	}
	one, err := Inspect(t.Context(), img.Index, r.fetch, []ocispecs.Platform{{OS: "linux", Architecture: "arm64"}})
	if err != nil || len(one.Images) != 1 || one.Images[0].Platform.Architecture != "arm64" {
		t.Errorf("%+v, %v", one, err)
	}

	// One platform is gone, or spoilt: the other serves.
	delete(r.docs, img.Manifests[0].Desc.Digest)
	f, err = Inspect(t.Context(), img.Index, r.fetch, nil)
	if err != nil || f.Kind != Inline || len(f.Images) != 1 || len(f.Problems) != 1 || !strings.Contains(f.Problems[0].Error(), img.Manifests[0].Desc.Digest.String()) {
		t.Errorf("%+v, %v", f, err)
	}
	r.docs[img.Manifests[0].Desc.Digest] = img.Manifests[1].Bytes
	f, err = Inspect(t.Context(), img.Index, r.fetch, nil)
	if err != nil || len(f.Images) != 1 || len(f.Problems) != 1 {
		t.Errorf("%+v, %v", f, err)
	}
}

// TestProblems: damage below the root is an absence with a word about it, and leaves what is known of the layers.
func TestProblems(t *testing.T) {
	r := &repository{}
	layers := `"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"` + digestOf("x").String() + `","size":5}]`
	manifest := func(config ocispecs.Descriptor) []byte {
		return []byte(fmt.Sprintf(`{"mediaType":%q,"config":{"mediaType":%q,"digest":%q,"size":%d},%s}`, ocispecs.MediaTypeImageManifest, ocispecs.MediaTypeImageConfig, config.Digest, config.Size, layers))
	}
	for name, config := range map[string]ocispecs.Descriptor{
		"damaged records": r.add([]byte(`{"os":"linux","architecture":"amd64","larder.cache.v1":"AAAA"}`)),
		"not JSON":        r.add([]byte(`x`)),
		"gone":            {Digest: digestOf("gone").OCI(), Size: 1},
		"too large":       {Digest: digestOf("gone").OCI(), Size: maxConfig + 1},
		"empty":           {Digest: digestOf("gone").OCI(), Size: 0},
		"bad digest":      {Digest: "sha256:x", Size: 1},
		"other size":      {Digest: r.add([]byte(`{}`)).Digest, Size: 3},
	} {
		f, err := Inspect(t.Context(), manifest(config), r.fetch, nil)
		if err != nil || f.Kind != Image || len(f.Problems) != 1 || len(f.Blobs) != 1 || f.Records() != nil {
			t.Errorf("%s: %+v, %v", name, f, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Inspect(ctx, manifest(r.add([]byte(`{}`))), r.fetch, nil); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestOddRoots(t *testing.T) {
	many := `{"manifests":[` + strings.Repeat(`{"mediaType":"`+ocispecs.MediaTypeImageManifest+`","digest":"`+digestOf("x").String()+`","size":5},`, 200) + `{}]}`
	for name, tc := range map[string]struct {
		root string
		kind Kind
	}{
		"a catalog":           {`{"mediaType":"application/vnd.oci.image.manifest.v1+json","artifactType":"application/vnd.larder.catalog.v1+json","config":{"mediaType":"application/vnd.larder.catalog.v1+zstd"},"layers":[]}`, Catalog},
		"a chart":             {`{"config":{"mediaType":"application/vnd.cncf.helm.config.v1+json"},"layers":[{"mediaType":"application/vnd.cncf.helm.chart.content.v1.tar+gzip"}]}`, Other},
		"a signature":         {`{"artifactType":"application/vnd.dev.cosign.artifact.sig.v1+json","config":{"mediaType":"application/vnd.oci.empty.v1+json"}}`, Other},
		"an empty index":      {`{"manifests":[]}`, Other},
		"an index of indexes": {`{"manifests":[{"mediaType":"` + ocispecs.MediaTypeImageIndex + `"}]}`, Other},
		"an empty document":   {`{}`, Other},
		"many images":         {many, Image},
	} {
		r := &repository{}
		f, err := Inspect(t.Context(), []byte(tc.root), r.fetch, nil)
		if err != nil || f.Kind != tc.kind || Recognise([]byte(tc.root), nil) != tc.kind || len(f.Images) != 0 {
			t.Errorf("%s: %+v, %v", name, f, err)
		}
		if r.asked.Load() > maxParts {
			t.Errorf("%s: %d requests", name, r.asked.Load())
		}
	}
	for name, root := range map[string]string{
		"nothing": "", "text": "<html>", "a list": "[]",
		"two things at once": `{"config":{},"manifests":[]}`,
		"too large":          `{"x":"` + strings.Repeat("x", registry.MaxManifest) + `"}`,
	} {
		if _, err := Inspect(t.Context(), []byte(root), nil, nil); err == nil || Recognise([]byte(root), nil) != Other || Blobs([]byte(root)) != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestBlobs(t *testing.T) {
	d := digestOf("x").String()
	got := Blobs([]byte(`{"config":{"mediaType":"m"},"layers":[
		{"mediaType":"a","digest":"` + d + `","size":5,"annotations":{"k":"v"},"data":"AAAA"},
		{"mediaType":"a","digest":"` + d + `","size":5},
		{"mediaType":"elsewhere","digest":"` + digestOf("y").String() + `","size":5,"urls":["https://example"]},
		{"mediaType":"bad","digest":"sha256:1","size":5},
		{"mediaType":"empty","digest":"` + digestOf("z").String() + `","size":0}]}`))
	if len(got) != 1 || got[0].MediaType != "a" || got[0].Annotations != nil || got[0].Data != nil {
		t.Errorf("%+v", got)
	}
	for k := Other; k <= Catalog; k++ {
		if k.String() == "" {
			t.Error(int(k))
		}
	}
}

func FuzzInspect(f *testing.F) {
	r, _ := fixtures(f)
	for _, b := range r.docs {
		f.Add(b, b)
	}
	img, _ := built(f, r, "amd64", "arm64")
	f.Add(img.Index, img.Manifests[0].Bytes)
	f.Add(img.Manifests[0].Bytes, img.Manifests[0].Config)
	f.Fuzz(func(t *testing.T, root, config []byte) {
		_ = Recognise(root, config)
		found, err := Inspect(context.Background(), root, func(_ context.Context, desc ocispecs.Descriptor) ([]byte, error) {
			return r.fetch(context.Background(), desc)
		}, nil)
		if err == nil && found.Kind == Inline && found.Records() == nil {
			t.Error("an inline cache without records")
		}
	})
}

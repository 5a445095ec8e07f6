package image

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"larder/internal/content"
	"larder/internal/fault"
	"larder/internal/layer"
	"larder/internal/registry"
	"larder/internal/testregistry"
)

// world is a registry, a client of it and a local store.
type world struct {
	t     *testing.T
	reg   *testregistry.Registry
	c     *registry.Client
	store *content.Store
	dir   string

	mu    sync.Mutex
	asked []string
}

func newWorld(t *testing.T) *world {
	w := &world{t: t, dir: t.TempDir()}
	w.reg = testregistry.StartWith(t, testregistry.Options{Wrap: func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			w.mu.Lock()
			w.asked = append(w.asked, r.Method)
			w.mu.Unlock()
			next.ServeHTTP(rw, r)
		})
	}})
	w.c = registry.New(registry.Config{Sleep: func(time.Duration, <-chan struct{}) {}})
	t.Cleanup(w.c.Close)
	w.reopen()
	return w
}

// reopen is a new process over the same root.
func (w *world) reopen() *Resolver {
	if w.store != nil {
		w.store.Close()
	}
	s, err := content.Open(filepath.Join(w.dir, "blobs"))
	if err != nil {
		w.t.Fatal(err)
	}
	w.store = s
	w.t.Cleanup(func() { s.Close() })
	return New(Options{Registry: w.c, Store: s, Tags: filepath.Join(w.dir, "tags")})
}

// requests gives the methods of what was asked since the last call, sorted.
func (w *world) requests() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := slices.Sorted(slices.Values(w.asked))
	w.asked = nil
	return strings.Join(s, " ")
}

// docs makes the documents of an image with one layer, by digest.
type docs map[digest.Digest][]byte

func (d docs) add(mt string, v any) ocispecs.Descriptor {
	b, ok := v.([]byte)
	if !ok {
		b, _ = json.Marshal(v)
	}
	desc := ocispecs.Descriptor{MediaType: mt, Digest: digest.FromBytes(b), Size: int64(len(b))}
	d[desc.Digest] = b
	return desc
}

func (d docs) image(p ocispecs.Platform, layer string) ocispecs.Descriptor {
	l := d.add(ocispecs.MediaTypeImageLayer, []byte(layer))
	config := d.add(ocispecs.MediaTypeImageConfig, ocispecs.Image{Platform: p, RootFS: ocispecs.RootFS{Type: "layers", DiffIDs: []digest.Digest{l.Digest}}})
	m := ocispecs.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispecs.MediaTypeImageManifest, Config: config, Layers: []ocispecs.Descriptor{l}}
	desc := d.add(m.MediaType, m)
	desc.Platform = &p
	return desc
}

func (d docs) index(entries ...ocispecs.Descriptor) ocispecs.Descriptor {
	return d.add(ocispecs.MediaTypeImageIndex, ocispecs.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispecs.MediaTypeImageIndex, Manifests: entries})
}

// push stores documents and tags the root.
func (w *world) push(d docs, name string, root ocispecs.Descriptor) string {
	w.t.Helper()
	ctx := context.Background()
	ref, err := registry.ParseRef(w.reg.Ref(name))
	if err != nil {
		w.t.Fatal(err)
	}
	for dg, b := range d {
		up := registry.Upload{Desc: ocispecs.Descriptor{Digest: dg, Size: int64(len(b))},
			Open: func(context.Context) (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b)), nil }}
		if _, err := w.c.PushBlob(ctx, ref, up); err != nil {
			w.t.Fatal(err)
		}
	}
	var manifests []ocispecs.Descriptor
	for dg, b := range d {
		var doc struct{ MediaType string }
		if json.Unmarshal(b, &doc); doc.MediaType == ocispecs.MediaTypeImageManifest {
			manifests = append(manifests, ocispecs.Descriptor{MediaType: doc.MediaType, Digest: dg})
		}
	}
	for _, m := range append(manifests, root) {
		to := ref.WithDigest(m.Digest)
		if m.Digest == root.Digest {
			to = ref
		}
		if err := w.c.PushManifest(ctx, to, m.MediaType, d[m.Digest]); err != nil {
			w.t.Fatal(err)
		}
	}
	w.requests()
	return ref.String()
}

var (
	amd64 = ocispecs.Platform{OS: "linux", Architecture: "amd64"}
	arm64 = ocispecs.Platform{OS: "linux", Architecture: "arm64"}
	armv7 = ocispecs.Platform{OS: "linux", Architecture: "arm", Variant: "v7"}
)

func TestRequests(t *testing.T) {
	w := newWorld(t)
	d := docs{}
	root := d.index(d.image(arm64, "arm"), d.image(amd64, "amd"))
	name := w.push(d, "base:1", root)
	ctx := context.Background()

	r := w.reopen()
	img, err := r.Resolve(ctx, name, &amd64, Default)
	if err != nil {
		t.Fatal(err)
	}
	if got := w.requests(); got != "GET GET GET" { // index, manifest, config
		t.Error(got)
	}
	if img.Digest() != root.Digest || img.Manifest.MediaType != ocispecs.MediaTypeImageManifest || len(img.Layers) != 1 || img.Desc.Size != root.Size {
		t.Errorf("%+v", img)
	}
	rc, err := img.Layers[0].Fetch(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(rc); err != nil || string(b) != "amd" || img.Layers[0].DiffID != digest.FromString("amd") {
		t.Error(string(b), err)
	}
	rc.Close()
	w.requests()
	pinned := name + "@" + root.Digest.String()
	for _, step := range []struct {
		what string
		r    *Resolver
		name string
		mode Mode
		want string
	}{
		{"again in the same build", r, name, Default, ""},
		{"pinned", r, pinned, Default, ""},
		{"pinned, next build", w.reopen(), pinned, Pull, ""},
		{"next build", w.reopen(), name, Default, "HEAD"},
		{"next build, local", w.reopen(), name, PreferLocal, ""},
	} {
		img, err := step.r.Resolve(ctx, step.name, &amd64, step.mode)
		if got := w.requests(); err != nil || img.Digest() != root.Digest || got != step.want {
			t.Errorf("%s: %q, %v", step.what, got, err)
		}
	}
	// The tag moves.
	d2 := docs{}
	root2 := d2.image(amd64, "new")
	w.push(d2, "base:1", root2)
	img, err = w.reopen().Resolve(ctx, name, &amd64, Default)
	if got := w.requests(); err != nil || img.Digest() != root2.Digest || got != "GET GET HEAD" {
		t.Error(got, err)
	}
	// The store is gone, or never was.
	os.RemoveAll(filepath.Join(w.dir, "blobs"))
	if _, err = w.reopen().Resolve(ctx, name, &amd64, Default); err != nil || w.requests() != "GET GET" {
		t.Error(err)
	}
}

func TestOneRequestForManyAskers(t *testing.T) {
	w := newWorld(t)
	d := docs{}
	name := w.push(d, "base:1", d.image(amd64, "x"))
	r := w.reopen()
	if _, err := r.Resolve(context.Background(), name, &amd64, Default); err != nil {
		t.Fatal(err)
	}
	w.requests()
	r = w.reopen()
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if _, err := r.Resolve(context.Background(), name, &amd64, Default); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if got := w.requests(); got != "HEAD" {
		t.Error(got)
	}
}

func TestPlatforms(t *testing.T) {
	w := newWorld(t)
	ctx := context.Background()
	d := docs{}
	attest := d.image(ocispecs.Platform{OS: "unknown", Architecture: "unknown"}, "attestation")
	v8 := ocispecs.Platform{OS: "linux", Architecture: "arm64", Variant: "v8"}
	multi := w.push(d, "multi:1", d.index(attest, d.image(armv7, "v7"), d.image(v8, "v8"), d.image(amd64, "amd")))
	n := docs{}
	noName := n.image(amd64, "quiet")
	noName.Platform = nil
	other := n.image(arm64, "quiet arm")
	other.Platform = nil
	quiet := w.push(n, "quiet:1", n.index(other, noName))
	s := docs{}
	single := w.push(s, "single:1", s.image(arm64, "arm only"))
	for _, tc := range []struct {
		name string
		p    ocispecs.Platform
		want string
	}{
		{multi, amd64, "amd"}, {multi, arm64, "v8"}, {multi, armv7, "v7"}, {multi, ocispecs.Platform{OS: "linux", Architecture: "amd64", Variant: "v3"}, "amd"},
		{quiet, amd64, "quiet"}, {quiet, arm64, "quiet arm"},
		{single, amd64, "arm only"}, // as BuildKit: an image without an index is taken as it is
	} {
		img, err := w.reopen().Resolve(ctx, tc.name, &tc.p, Default)
		if err != nil || img.Layers[0].DiffID != digest.FromString(tc.want) {
			t.Error(tc.name, tc.p, err)
		}
	}
	_, err := w.reopen().Resolve(ctx, multi, &ocispecs.Platform{OS: "linux", Architecture: "s390x"}, Default)
	if err == nil || !strings.Contains(err.Error(), "linux/amd64, linux/arm/v7, linux/arm64") || strings.Contains(err.Error(), "unknown") {
		t.Error(err)
	}
}

func TestNoImage(t *testing.T) {
	w := newWorld(t)
	ctx := context.Background()
	d := docs{}
	l := d.add(ocispecs.MediaTypeImageLayer, []byte("x"))
	chart := d.add("application/vnd.cncf.helm.config.v1+json", map[string]string{"name": "chart"})
	m := ocispecs.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispecs.MediaTypeImageManifest, Config: chart, Layers: []ocispecs.Descriptor{l}}
	name := w.push(d, "chart:1", d.add(m.MediaType, m))
	_, err := w.reopen().Resolve(ctx, name, &amd64, Default)
	if fault.Of(err) != fault.Registry || !strings.Contains(err.Error(), "no image that can be built on") {
		t.Error(err)
	}
	_, err = w.reopen().Resolve(ctx, w.reg.Ref("nowhere:1"), &amd64, Default)
	if fault.Of(err) != fault.Registry || !errors.Is(err, registry.ErrNotFound) || !strings.Contains(err.Error(), "nowhere:1") {
		t.Error(err)
	}
	if _, err = w.reopen().Resolve(ctx, "A:B:C", &amd64, Default); fault.Of(err) != fault.Usage {
		t.Error(err)
	}
}

func TestLayout(t *testing.T) {
	dir := t.TempDir()
	d := docs{}
	root := d.index(d.image(arm64, "arm"), d.image(amd64, "amd"))
	os.MkdirAll(filepath.Join(dir, "blobs/sha256"), 0o755)
	for dg, b := range d {
		os.WriteFile(filepath.Join(dir, "blobs/sha256", dg.Encoded()), b, 0o644)
	}
	root.Annotations = map[string]string{ocispecs.AnnotationRefName: "v1"}
	other := root
	other.Digest = digest.FromString("gone")
	other.Annotations = map[string]string{ocispecs.AnnotationRefName: "example.com/a:v2"}
	b, _ := json.Marshal(ocispecs.Index{Versioned: specs.Versioned{SchemaVersion: 2}, Manifests: []ocispecs.Descriptor{root, other}})
	os.WriteFile(filepath.Join(dir, "index.json"), b, 0o644)
	for tag, want := range map[string]digest.Digest{"v1": root.Digest, "v2": other.Digest} {
		if got, err := LayoutDigest(dir, tag); err != nil || got != want {
			t.Error(tag, got, err)
		}
	}
	if _, err := LayoutDigest(dir, ""); fault.Of(err) != fault.Usage {
		t.Error(err)
	}
	r := New(Options{Layouts: map[string]string{"base": dir}})
	ctx := context.Background()
	img, err := r.ResolveLayout(ctx, "base", root.Digest, &amd64)
	if err != nil {
		t.Fatal(err)
	}
	read := func() ([]byte, error) {
		rc, err := img.Layers[0].Fetch(ctx)
		if err != nil {
			return nil, err
		}
		defer rc.Close()
		return io.ReadAll(rc)
	}
	if b, err := read(); err != nil || string(b) != "amd" {
		t.Error(string(b), err)
	}
	os.WriteFile(filepath.Join(dir, "blobs/sha256", digest.FromString("amd").Encoded()), []byte("amX"), 0o644)
	if _, err := read(); err == nil {
		t.Error("a damaged layer was read")
	}
	os.WriteFile(filepath.Join(dir, "blobs/sha256", root.Digest.Encoded()), []byte("{}"), 0o644)
	if _, err := r.ResolveLayout(ctx, "base", root.Digest, &amd64); err == nil || !strings.Contains(err.Error(), "damaged") {
		t.Error(err)
	}
	if _, err := r.ResolveLayout(ctx, "nobody", root.Digest, &amd64); fault.Of(err) != fault.Usage {
		t.Error(err)
	}
}

func FuzzDocuments(f *testing.F) {
	d := docs{}
	f.Add(d[d.index(d.image(amd64, "x")).Digest])
	f.Add([]byte(`{"config":{"digest":"sha256:00"},"layers":[{"size":-1}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		m := memory{digest.FromBytes(b): b}
		load(context.Background(), m, "x", ocispecs.Descriptor{Digest: digest.FromBytes(b)}, &amd64)
	})
}

// memory is a source in which every unknown document is the one that it has.
type memory map[digest.Digest][]byte

func (m memory) document(_ context.Context, desc ocispecs.Descriptor, _ bool) ([]byte, error) {
	for _, b := range m {
		return b, nil
	}
	return nil, errors.New("empty")
}

func (m memory) blob(desc ocispecs.Descriptor) *layer.Blob { return &layer.Blob{Desc: desc} }

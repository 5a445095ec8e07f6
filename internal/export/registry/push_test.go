package registry

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"larder/internal/content"
	"larder/internal/fault"
	"larder/internal/image"
	"larder/internal/key"
	"larder/internal/layer"
	"larder/internal/registry"
	"larder/internal/testregistry"
	"larder/internal/tree"
)

type world struct {
	t     *testing.T
	reg   *testregistry.Registry
	c     *registry.Client
	store *content.Store
	mu    sync.Mutex
	asked map[string]int
	spoil func(w http.ResponseWriter, r *http.Request) bool
}

func newWorld(t *testing.T) *world {
	w := &world{t: t, asked: map[string]int{}}
	w.reg = testregistry.StartWith(t, testregistry.Options{Dir: t.TempDir(), Wrap: func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			w.mu.Lock()
			w.asked[r.Method]++
			spoil := w.spoil
			w.mu.Unlock()
			if spoil == nil || !spoil(rw, r) {
				next.ServeHTTP(rw, r)
			}
		})
	}})
	w.c = registry.New(registry.Config{Sleep: func(time.Duration, <-chan struct{}) {}})
	t.Cleanup(w.c.Close)
	s, err := content.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	w.store = s
	return w
}

func (w *world) requests() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var out []string
	for _, m := range []string{"HEAD", "GET", "POST", "PUT"} {
		if w.asked[m] > 0 {
			out = append(out, fmt.Sprintf("%s %d", m, w.asked[m]))
		}
	}
	clear(w.asked)
	return strings.Join(out, ", ")
}

// state makes layers with a file each.
func state(t *testing.T, contents ...string) *layer.State {
	var s *layer.State
	for i, c := range contents {
		d := key.Bytes([]byte(c))
		file := &tree.Node{Kind: tree.File, Meta: tree.Meta{Mode: 0o644, MTime: 1e18}, Size: int64(len(c)), Content: d}
		root, err := tree.NewDir(tree.Meta{Mode: 0o755}, false, []tree.Entry{{Name: fmt.Sprintf("file%d", i), Node: file}})
		if err != nil {
			t.Fatal(err)
		}
		id, err := root.Identity()
		if err != nil {
			t.Fatal(err)
		}
		s = s.Push(layer.New(id, true, root, layer.Literal(map[key.Digest][]byte{d: []byte(c)})))
	}
	return s
}

func (w *world) image(opt image.Options, states ...*layer.State) *image.Image {
	w.t.Helper()
	opt.Blob = func(ctx context.Context, l *layer.Layer) (*layer.Blob, error) {
		return layer.Export(ctx, l, w.store, layer.ExportOptions{})
	}
	var parts []image.Part
	for i, s := range states {
		parts = append(parts, image.Part{Platform: ocispecs.Platform{OS: "linux", Architecture: []string{"amd64", "arm64"}[i]}, State: s})
	}
	opt.Index = len(parts) > 1
	img, err := image.Assemble(context.Background(), parts, opt)
	if err != nil {
		w.t.Fatal(err)
	}
	return img
}

func (w *world) push(img *image.Image, names ...string) Result {
	w.t.Helper()
	for i := range names {
		names[i] = w.reg.Ref(names[i])
	}
	res, err := Push(context.Background(), img, names, Options{Client: w.c, Store: w.store})
	if err != nil {
		w.t.Fatal(err)
	}
	return res
}

func TestPush(t *testing.T) {
	w := newWorld(t)
	img := w.image(image.Options{}, state(t, "one", "two"))
	for _, step := range []struct {
		names []string
		want  string
		sent  int
	}{
		{[]string{"app:v1"}, "HEAD 4, POST 3, PUT 4", 3},
		{[]string{"app:v1"}, "HEAD 1", 0},
		{[]string{"app:v2", "app:v3"}, "HEAD 5, PUT 2", 0},
		{[]string{"app:v1", "app:v2", "app:v3"}, "HEAD 3", 0},
		{[]string{"far/a:1", "far/b:1"}, "HEAD 5, POST 6, PUT 5", 3},
	} {
		w.requests()
		res := w.push(img, slices.Clone(step.names)...)
		if got := w.requests(); got != step.want || res.Sent != step.sent {
			t.Errorf("%v: %s, %d sent", step.names, got, res.Sent)
		}
	}
	// One layer more: that and the config are sent, nothing else.
	img = w.image(image.Options{}, state(t, "one", "two", "three"))
	if res := w.push(img, "app:v1"); res.Sent != 2 || w.requests() != "HEAD 5, POST 2, PUT 3" {
		t.Error(res)
	}
}

func TestBaseLayersAreNotTouched(t *testing.T) {
	w := newWorld(t)
	base := w.image(image.Options{}, state(t, "base layer"))
	w.push(base, "base:1")
	w.requests()
	blob := *base.Manifests[0].Layers[0]
	blob.Origin = []string{w.reg.Ref("base")}
	blob.Fetch = nil // whoever wants the bytes fails
	l, err := layer.FromBlob(&blob, nil)
	if err != nil {
		t.Fatal(err)
	}
	s := layer.Stack(append([]*layer.Layer{l}, state(t, "mine").Layers()...)...)
	img := w.image(image.Options{}, s)
	w.store.Delete(blob.Desc.Digest)
	if res := w.push(img, "app:1"); res.Sent != 2 || w.requests() != "HEAD 3, POST 3, PUT 3" { // the base by mount
		t.Error(res)
	}
	if res := w.push(img, "base:2"); res.Sent != 2 { // nothing asked for the base
		t.Error(res)
	}
	// An origin that is wrong: the registry says so, and everything is asked for.
	blob.Origin = []string{w.reg.Ref("third")}
	rc, err := w.c.Blob(context.Background(), mustRef(t, w.reg.Ref("base")), blob.Desc)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.store.Ingest(context.Background(), rc, blob.Desc.Digest, blob.Desc.Size); err != nil {
		t.Fatal(err)
	}
	rc.Close()
	if res := w.push(img, "third:1"); res.Tags != 1 {
		t.Error(res)
	}
}

func mustRef(t *testing.T, s string) registry.Ref {
	r, err := registry.ParseRef(s)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestPushIndexAndDigest(t *testing.T) {
	w := newWorld(t)
	shared := state(t, "same for both")
	img := w.image(image.Options{}, shared, shared)
	w.push(img, "multi:1")
	ctx := context.Background()
	desc, b, err := w.c.Fetch(ctx, mustRef(t, w.reg.Ref("multi:1")))
	if err != nil || desc.Digest != img.Desc.Digest {
		t.Fatal(err)
	}
	var index ocispecs.Index
	json.Unmarshal(b, &index)
	for _, m := range index.Manifests {
		if _, _, err := w.c.Fetch(ctx, mustRef(t, w.reg.Ref("multi")).WithDigest(m.Digest)); err != nil {
			t.Error(err)
		}
	}
	w.requests()
	if _, err := Push(ctx, img, []string{w.reg.Ref("quiet")}, Options{Client: w.c, Store: w.store, ByDigest: true}); err != nil {
		t.Fatal(err)
	}
	if _, _, err := w.c.Fetch(ctx, mustRef(t, w.reg.Ref("quiet")).WithDigest(img.Desc.Digest)); err != nil {
		t.Error(err)
	}
	if _, _, err := w.c.Fetch(ctx, mustRef(t, w.reg.Ref("quiet:latest"))); err == nil {
		t.Error("there is a tag")
	}
}

func TestRefused(t *testing.T) {
	w := newWorld(t)
	img := w.image(image.Options{}, state(t, "x"))
	w.spoil = func(rw http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodHead {
			return false
		}
		rw.WriteHeader(http.StatusForbidden)
		fmt.Fprint(rw, `{"errors":[{"code":"DENIED","message":"read only"}]}`)
		return true
	}
	_, err := Push(context.Background(), img, []string{w.reg.Ref("app:1")}, Options{Client: w.c, Store: w.store})
	if fault.Of(err) != fault.Registry || !strings.Contains(err.Error(), "read only") || !strings.Contains(err.Error(), "/app@") {
		t.Error(err)
	}
}

// TestOthersRead lets other tools read what was pushed.
func TestOthersRead(t *testing.T) {
	w := newWorld(t)
	img := w.image(image.Options{}, state(t, "one", "two"))
	w.push(img, "app:v1")
	docker := w.image(image.Options{Docker: true}, state(t, "one", "two"))
	w.push(docker, "app:docker")
	for _, name := range []string{"app:v1", "app:docker"} {
		t.Run("skopeo "+name, func(t *testing.T) {
			run(t, "skopeo", "inspect", "--tls-verify=false", "docker://"+w.reg.Ref(name))
			run(t, "skopeo", "copy", "-q", "--src-tls-verify=false", "docker://"+w.reg.Ref(name), "oci:"+t.TempDir()+":x")
		})
	}
	t.Run("buildah", func(t *testing.T) {
		dir := t.TempDir()
		run(t, "buildah", "--root", dir+"/root", "--runroot", dir+"/run", "--storage-driver", "vfs", "pull", "-q", "--tls-verify=false", w.reg.Ref("app:v1"))
	})
}

// run runs a tool and skips the test where it is missing.
func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		t.Skipf("%s is not installed", name)
	}
	out, err := exec.CommandContext(t.Context(), name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

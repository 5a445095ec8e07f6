package oci

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"larder/internal/content"
	"larder/internal/export"
	"larder/internal/image"
	"larder/internal/key"
	"larder/internal/layer"
	"larder/internal/tree"
)

// picture makes an image with one layer that holds text.
func picture(t *testing.T, text string, arch ...string) (*image.Image, *content.Store) {
	t.Helper()
	store, err := content.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	d := key.Bytes([]byte(text))
	file := &tree.Node{Kind: tree.File, Meta: tree.Meta{Mode: 0o644}, Size: int64(len(text)), Content: d}
	root, err := tree.NewDir(tree.Meta{Mode: 0o755}, false, []tree.Entry{{Name: "file", Node: file}})
	if err != nil {
		t.Fatal(err)
	}
	state := layer.Stack(layer.New(d, true, root, layer.Literal(map[key.Digest][]byte{d: []byte(text)})))
	var parts []image.Part
	for _, a := range arch {
		parts = append(parts, image.Part{Platform: ocispecs.Platform{OS: "linux", Architecture: a}, State: state})
	}
	img, err := image.Assemble(context.Background(), parts, image.Options{Index: len(arch) > 1, Blob: func(ctx context.Context, l *layer.Layer) (*layer.Blob, error) {
		return layer.Export(ctx, l, store, layer.ExportOptions{})
	}})
	if err != nil {
		t.Fatal(err)
	}
	return img, store
}

// check verifies a layout: every digest that is named is there and right.
func check(t *testing.T, dir string) ocispecs.Index {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, "oci-layout"))
	if err != nil || string(b) != `{"imageLayoutVersion":"1.0.0"}` {
		t.Fatal(string(b), err)
	}
	var index ocispecs.Index
	b, err = os.ReadFile(filepath.Join(dir, "index.json"))
	if err != nil || json.Unmarshal(b, &index) != nil {
		t.Fatal(err)
	}
	blobs := 0
	var visit func(d ocispecs.Descriptor)
	visit = func(d ocispecs.Descriptor) {
		b, err := os.ReadFile(filepath.Join(dir, export.BlobPath(d)))
		if err != nil || digest.FromBytes(b) != d.Digest || int64(len(b)) != d.Size {
			t.Fatal(d, err)
		}
		blobs++
		var doc struct {
			Config    *ocispecs.Descriptor
			Layers    []ocispecs.Descriptor
			Manifests []ocispecs.Descriptor
		}
		json.Unmarshal(b, &doc)
		for _, m := range doc.Manifests {
			visit(m)
		}
		if doc.Layers != nil {
			visit(*doc.Config)
			for _, l := range doc.Layers {
				visit(l)
			}
		}
	}
	for _, m := range index.Manifests {
		visit(m)
	}
	if blobs < 3 {
		t.Error(blobs)
	}
	return index
}

func untar(t *testing.T, b []byte) string {
	dir := t.TempDir()
	cmd := exec.Command("tar", "-xf", "-", "-C", dir)
	cmd.Stdin = bytes.NewReader(b)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v %s", err, out)
	}
	return dir
}

func TestTar(t *testing.T) {
	at := time.Unix(1e9, 0)
	for _, arch := range [][]string{{"amd64"}, {"amd64", "arm64"}} {
		img, store := picture(t, "hello", arch...)
		var a, b bytes.Buffer
		opt := Options{Store: store, Names: []string{"example.com/app:v1", "example.com/app:v2"}, Created: at}
		if err := WriteTar(context.Background(), &a, img, opt); err != nil {
			t.Fatal(err)
		}
		if err := WriteTar(context.Background(), &b, img, opt); err != nil || !bytes.Equal(a.Bytes(), b.Bytes()) {
			t.Error("two tars of one image differ", err)
		}
		index := check(t, untar(t, a.Bytes()))
		if len(index.Manifests) != 2 || index.Manifests[1].Annotations[ocispecs.AnnotationRefName] != "v2" ||
			index.Manifests[0].Annotations["io.containerd.image.name"] != "example.com/app:v1" || index.Manifests[0].Digest != img.Desc.Digest {
			t.Errorf("%+v", index.Manifests)
		}
	}
}

func TestDirIsAddedTo(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "deep/layout")
	ctx := context.Background()
	first, store := picture(t, "first", "amd64")
	other, otherStore := picture(t, "other", "amd64")
	again, againStore := picture(t, "again", "amd64")
	for _, step := range []struct {
		img   *image.Image
		store *content.Store
		names []string
		want  string
	}{
		{first, store, []string{"docker.io/library/a:1"}, "1"},
		{other, otherStore, []string{"docker.io/library/a:2"}, "1 2"},
		{again, againStore, []string{"docker.io/library/a:1"}, "2 1"},
		{again, againStore, []string{"docker.io/library/a:1"}, "2 1"},
	} {
		if err := WriteDir(ctx, dir, step.img, Options{Store: step.store, Names: step.names, Created: time.Unix(0, 0)}); err != nil {
			t.Fatal(err)
		}
		var tags []string
		for _, m := range check(t, dir).Manifests {
			tags = append(tags, m.Annotations[ocispecs.AnnotationRefName])
		}
		if got := strings.Join(tags, " "); got != step.want {
			t.Errorf("%s, want %s", got, step.want)
		}
	}
	if _, err := exec.LookPath("skopeo"); err != nil {
		t.Skip("skopeo is not installed")
	}
	if out, err := exec.Command("skopeo", "inspect", "oci:"+dir+":2").CombinedOutput(); err != nil {
		t.Errorf("%v %s", err, out)
	}
	os.WriteFile(filepath.Join(dir, "index.json"), []byte("{"), 0o644)
	if err := WriteDir(ctx, dir, first, Options{Store: store}); err == nil {
		t.Error("a damaged index was written over")
	}
}

func TestMissingLayer(t *testing.T) {
	img, store := picture(t, "x", "amd64")
	store.Delete(img.Manifests[0].Layers[0].Desc.Digest)
	if err := WriteTar(context.Background(), &bytes.Buffer{}, img, Options{Store: store}); err == nil {
		t.Error("an image without its layer was written")
	}
}

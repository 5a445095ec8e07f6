package docker

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

	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"larder/internal/content"
	"larder/internal/fault"
	"larder/internal/image"
	"larder/internal/key"
	"larder/internal/layer"
	"larder/internal/tree"
)

func picture(t *testing.T, arch ...string) (*image.Image, *content.Store) {
	t.Helper()
	store, err := content.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	text := []byte("hello")
	d := key.Bytes(text)
	file := &tree.Node{Kind: tree.File, Meta: tree.Meta{Mode: 0o644}, Size: int64(len(text)), Content: d}
	root, err := tree.NewDir(tree.Meta{Mode: 0o755}, false, []tree.Entry{{Name: "file", Node: file}})
	if err != nil {
		t.Fatal(err)
	}
	var parts []image.Part
	for _, a := range arch {
		parts = append(parts, image.Part{Platform: ocispecs.Platform{OS: "linux", Architecture: a},
			State: layer.Stack(layer.New(d, true, root, layer.Literal(map[key.Digest][]byte{d: text})))})
	}
	img, err := image.Assemble(context.Background(), parts, image.Options{Index: len(arch) > 1, Blob: func(ctx context.Context, l *layer.Layer) (*layer.Blob, error) {
		return layer.Export(ctx, l, store, layer.ExportOptions{})
	}})
	if err != nil {
		t.Fatal(err)
	}
	return img, store
}

func TestArchive(t *testing.T) {
	img, store := picture(t, "amd64")
	p := filepath.Join(t.TempDir(), "image.tar")
	f, err := os.Create(p)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := Write(context.Background(), f, img, Options{Store: store, Names: []string{"docker.io/library/app:v1", "ghcr.io/o/app:v2"}, Created: time.Unix(0, 0)}); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("tar", "-xOf", p, "manifest.json").Output()
	if err != nil {
		t.Fatal(err)
	}
	var m []struct {
		Config   string
		RepoTags []string
		Layers   []string
	}
	if err := json.Unmarshal(out, &m); err != nil || len(m) != 1 || strings.Join(m[0].RepoTags, " ") != "app:v1 ghcr.io/o/app:v2" || len(m[0].Layers) != 1 {
		t.Fatalf("%s %v", out, err)
	}
	if _, err := exec.LookPath("skopeo"); err != nil {
		t.Skip("skopeo is not installed")
	}
	if out, err := exec.Command("skopeo", "copy", "-q", "docker-archive:"+p+":app:v1", "oci:"+t.TempDir()+":x").CombinedOutput(); err != nil {
		t.Errorf("%v %s", err, out)
	}
}

func TestSeveralPlatforms(t *testing.T) {
	img, store := picture(t, "amd64", "arm64")
	if err := Write(context.Background(), &bytes.Buffer{}, img, Options{Store: store}); fault.Of(err) != fault.Usage {
		t.Error(err)
	}
}

func TestLoad(t *testing.T) {
	img, store := picture(t, "amd64")
	dir := t.TempDir()
	t.Setenv("PATH", dir)
	opt := Options{Store: store, Names: []string{"docker.io/library/app:v1"}}
	if err := Load(context.Background(), img, opt); fault.Of(err) != fault.Machine || !strings.Contains(err.Error(), "apt-get install") {
		t.Error(err)
	}
	script := func(s string) {
		if err := os.WriteFile(filepath.Join(dir, "docker"), []byte("#!/bin/sh\nPATH=/bin:/usr/bin\n"+s), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	got := filepath.Join(dir, "got.tar")
	script("[ \"$1\" = load ] && cat > " + got)
	if err := Load(context.Background(), img, opt); err != nil {
		t.Fatal(err)
	}
	var want bytes.Buffer
	Write(context.Background(), &want, img, opt)
	if b, err := os.ReadFile(got); err != nil || !bytes.Equal(b, want.Bytes()) {
		t.Error(err)
	}
	script("echo no daemon here >&2; exit 1")
	if err := Load(context.Background(), img, opt); fault.Of(err) != fault.Machine || !strings.Contains(err.Error(), "no daemon here") {
		t.Error(err)
	}
	script("cat > " + got)
	store.Delete(img.Manifests[0].Layers[0].Desc.Digest)
	if err := Load(context.Background(), img, opt); err == nil || fault.Of(err) == fault.Machine {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := Load(ctx, img, opt); fault.Of(err) != fault.Interrupted {
		t.Error(err)
	}
}

package local

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"
	"oras.land/oras-go/v2/content/oci"

	"larder/internal/remote"
	"larder/internal/remote/storetest"
)

// store makes a document of two blobs.
func store(t *testing.T, s *Store, name string) (config, layer ocispecs.Descriptor) {
	t.Helper()
	config, layer = storetest.Put(t, s, []byte("{}")), storetest.Put(t, s, []byte("layer of "+name))
	if _, err := s.PutManifest(t.Context(), name, storetest.Document(name, config, layer), remote.Any); err != nil {
		t.Fatal(err)
	}
	return config, layer
}

// TestOtherToolsReadIt opens the directory with another implementation of OCI layouts.
func TestOtherToolsReadIt(t *testing.T) {
	s := open(t)
	_, layer := store(t, s, "larder-main")
	other, err := oci.NewFromFS(t.Context(), os.DirFS(s.dir))
	if err != nil {
		t.Fatal(err)
	}
	desc, err := other.Resolve(t.Context(), "larder-main")
	if err != nil || desc.MediaType != ocispecs.MediaTypeImageManifest {
		t.Fatal(desc, err)
	}
	rc, err := other.Fetch(t.Context(), layer)
	if err != nil {
		t.Fatal(err)
	}
	defer rc.Close()
	if b, err := io.ReadAll(rc); err != nil || string(b) != "layer of larder-main" {
		t.Errorf("%q, %v", b, err)
	}
}

func TestDamage(t *testing.T) {
	s := open(t)
	ctx := t.Context()
	_, layer := store(t, s, "tag")
	path, _ := s.blob(layer.Digest)
	// A blob of another size is none; one of the same size is found out by reading, and healed by putting it as new.
	if err := os.WriteFile(path, []byte("layer"), 0o644); err != nil {
		t.Fatal(err)
	}
	if ok, err := s.Has(ctx, layer); ok || err != nil {
		t.Error(ok, err)
	}
	if _, err := storetest.Read(ctx, s, layer); !errors.Is(err, remote.ErrDamaged) {
		t.Error(err)
	}
	if err := os.WriteFile(path, []byte("LAYER of tag"), 0o644); err != nil {
		t.Fatal(err)
	}
	verified := remote.Verify(s)
	if _, err := storetest.Read(ctx, verified, layer); !errors.Is(err, remote.ErrDamaged) {
		t.Error(err)
	}
	up := storetest.Upload([]byte("layer of tag"))
	up.New = true
	if sent, err := s.Put(ctx, up); !sent || err != nil {
		t.Error(sent, err)
	}
	if _, err := storetest.Read(ctx, verified, layer); err != nil {
		t.Error(err)
	}
	// An index that cannot be read names nothing, and is replaced.
	for _, rubbish := range []string{"", "{", strings.Repeat(" ", maxIndex+1)} {
		if err := os.WriteFile(s.path("index.json"), []byte(rubbish), 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Manifest(ctx, "tag"); !errors.Is(err, remote.ErrDamaged) {
			t.Errorf("%.10q: %v", rubbish, err)
		}
		if _, err := s.Names(ctx, ""); !errors.Is(err, remote.ErrDamaged) {
			t.Errorf("%.10q: %v", rubbish, err)
		}
		store(t, s, "tag")
		if _, err := s.Manifest(ctx, "tag"); err != nil {
			t.Error(err)
		}
	}
	// A document whose file is gone is absent, and can be written as such.
	doc, err := s.Manifest(ctx, "tag")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Delete(ctx, digest.Digest(doc.Version)); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Manifest(ctx, "tag"); !errors.Is(err, remote.ErrNotFound) {
		t.Error(err)
	}
	if _, err := s.PutManifest(ctx, "tag", doc.Bytes, remote.Absent); err != nil {
		t.Error(err)
	}
}

func TestModesDoNotDependOnUmask(t *testing.T) {
	s := open(t)
	if err := os.MkdirAll(s.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	old := syscall.Umask(0o077)
	defer syscall.Umask(old)
	store(t, s, "tag")
	err := filepath.WalkDir(s.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		want := fs.FileMode(0o644)
		if d.IsDir() {
			want = 0o755
		}
		info, err := d.Info()
		if err == nil && info.Mode().Perm() != want && d.Name() != "lock" {
			t.Errorf("%s has mode %v", path, info.Mode().Perm())
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestReadOnlyDirectory(t *testing.T) {
	s := open(t)
	_, layer := store(t, s, "tag")
	if os.Getuid() == 0 {
		if err := unix.Mount(s.dir, s.dir, "", unix.MS_BIND, ""); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { unix.Unmount(s.dir, unix.MNT_DETACH) })
		if err := unix.Mount("", s.dir, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
			t.Fatal(err)
		}
	} else {
		for _, dir := range []string{s.path(".larder", "tmp"), s.path(".larder"), s.path("blobs", "sha256"), s.dir} {
			if err := os.Chmod(dir, 0o555); err != nil {
				t.Fatal(err)
			}
			defer os.Chmod(dir, 0o755)
		}
	}
	ctx := t.Context()
	for name, err := range map[string]error{
		"Put":            second(s.Put(ctx, storetest.Upload([]byte("new")))),
		"PutManifest":    second(s.PutManifest(ctx, "tag", storetest.Document("x", layer), remote.Any)),
		"DeleteManifest": s.DeleteManifest(ctx, "tag"),
		"Delete":         s.Delete(ctx, layer.Digest),
	} {
		if !errors.Is(err, remote.ErrDenied) || !strings.Contains(err.Error(), s.dir) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := s.Manifest(ctx, "tag"); err != nil {
		t.Error(err)
	}
	if ok, err := s.Has(ctx, layer); !ok || err != nil {
		t.Error(ok, err)
	}
	if sent, err := s.Put(ctx, storetest.Upload([]byte("layer of tag"))); sent || err != nil {
		t.Error(sent, err)
	}
	if _, err := storetest.Read(ctx, s, layer); err != nil {
		t.Error(err)
	}
}

func second[T any](_ T, err error) error { return err }

func TestNew(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := New(file); err == nil || !strings.Contains(err.Error(), file) {
		t.Error(err)
	}
	t.Chdir(t.TempDir())
	s, err := New("cache")
	if err != nil || s.Name() != "local:"+s.dir || !filepath.IsAbs(s.dir) {
		t.Error(s.Name(), err)
	}
	// Reading makes nothing.
	if _, err := s.Names(context.Background(), ""); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(s.dir); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}

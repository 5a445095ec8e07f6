package local

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

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

// age makes all blobs so old that a sweep may take them, and the last sweep as well.
func age(t *testing.T, s *Store) {
	t.Helper()
	old := time.Now().Add(-2 * grace)
	files, err := filepath.Glob(s.path("blobs", "sha256", "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range append(files, s.path(".larder", "swept")) {
		if err := os.Chtimes(f, old, old); err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
	}
}

func count(t *testing.T, s *Store) int {
	t.Helper()
	files, err := os.ReadDir(s.path("blobs", "sha256"))
	if err != nil {
		t.Fatal(err)
	}
	return len(files)
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

// TestForeignEntriesStay: images that others keep in the layout, with or without names, are not touched, nor are their blobs.
func TestForeignEntriesStay(t *testing.T) {
	s := open(t)
	store(t, s, "first")
	// BuildKit's local cache: an index whose entries are its layers. And an index of images.
	put := func(b []byte) ocispecs.Descriptor { return storetest.Put(t, s, b) }
	leaf, config := put([]byte("a layer of an image")), put([]byte("a config"))
	image := put(storetest.Document("image", config, leaf))
	image.MediaType = ocispecs.MediaTypeImageManifest
	layer, cacheConfig := put([]byte("a layer of BuildKit's cache")), put([]byte("a config of BuildKit's cache"))
	layer.MediaType, cacheConfig.MediaType = ocispecs.MediaTypeImageLayerGzip, "application/vnd.buildkit.cacheconfig.v0"
	list, err := json.Marshal(ocispecs.Index{MediaType: ocispecs.MediaTypeImageIndex, Manifests: []ocispecs.Descriptor{image, layer, cacheConfig}})
	if err != nil {
		t.Fatal(err)
	}
	foreign := put(list)
	foreign.MediaType = ocispecs.MediaTypeImageIndex
	index, err := s.readIndex()
	if err != nil {
		t.Fatal(err)
	}
	index.Manifests = append(index.Manifests, foreign)
	if err := s.writeIndex(index); err != nil {
		t.Fatal(err)
	}
	stray := put([]byte("what nobody names"))
	age(t, s)
	if err := s.DeleteManifest(t.Context(), "first"); err != nil {
		t.Fatal(err)
	}
	for _, d := range []ocispecs.Descriptor{leaf, config, image, layer, cacheConfig, foreign} {
		if _, err := storetest.Read(t.Context(), s, d); err != nil {
			t.Errorf("%s: %v", d.MediaType, err)
		}
	}
	if _, err := storetest.Read(t.Context(), s, stray); !errors.Is(err, remote.ErrNotFound) {
		t.Errorf("what nobody names: %v", err)
	}
	if index, err := s.readIndex(); err != nil || len(index.Manifests) != 1 || index.Manifests[0].Digest != foreign.Digest {
		t.Errorf("%+v, %v", index, err)
	}
}

func TestSweep(t *testing.T) {
	s := open(t)
	ctx := t.Context()
	store(t, s, "keep")
	store(t, s, "drop")
	if n := count(t, s); n != 5 { // two documents, two layers, one config for both
		t.Fatal(n)
	}
	// Young blobs stay: somebody may be about to name them.
	if err := s.DeleteManifest(ctx, "drop"); err != nil || count(t, s) != 5 {
		t.Errorf("%d blobs, %v", count(t, s), err)
	}
	store(t, s, "drop")
	age(t, s)
	if err := s.DeleteManifest(ctx, "drop"); err != nil || count(t, s) != 3 {
		t.Errorf("%d blobs, %v", count(t, s), err)
	}
	// What a write replaces goes too, an hour after the last sweep.
	store(t, s, "keep2")
	doc, err := s.Manifest(ctx, "keep2")
	if err != nil {
		t.Fatal(err)
	}
	config := storetest.Describe([]byte("{}"))
	age(t, s)
	if _, err := s.PutManifest(ctx, "keep2", storetest.Document("without a layer", config), doc.Version); err != nil {
		t.Fatal(err)
	}
	if n := count(t, s); n != 4 {
		t.Errorf("%d blobs", n)
	}
	for name, has := range map[string]bool{"keep": true, "keep2": true, "drop": false} {
		if _, err := s.Manifest(ctx, name); (err == nil) != has {
			t.Errorf("%s: %v", name, err)
		}
	}
	// Asking for a blob, or putting it again, keeps it.
	asked, again := storetest.Put(t, s, []byte("asked")), storetest.Put(t, s, []byte("again"))
	age(t, s)
	if ok, err := s.Has(ctx, asked); !ok || err != nil {
		t.Error(ok, err)
	}
	storetest.Put(t, s, []byte("again"))
	if err := s.DeleteManifest(ctx, "keep2"); err != nil {
		t.Fatal(err)
	}
	for _, d := range []ocispecs.Descriptor{asked, again} {
		if ok, err := s.Has(ctx, d); !ok || err != nil {
			t.Error(ok, err)
		}
	}
}

// TestSweepFearsWhatItCannotRead: a document that is damaged may name anything.
func TestSweepFearsWhatItCannotRead(t *testing.T) {
	s := open(t)
	store(t, s, "keep")
	store(t, s, "drop")
	doc, err := s.Manifest(t.Context(), "keep")
	if err != nil {
		t.Fatal(err)
	}
	path, _ := s.blob(digest.Digest(doc.Version))
	if err := os.WriteFile(path, bytes.Repeat([]byte{0}, len(doc.Bytes)), 0o644); err != nil {
		t.Fatal(err)
	}
	age(t, s)
	if err := s.DeleteManifest(t.Context(), "drop"); err != nil || count(t, s) != 5 {
		t.Errorf("%d blobs, %v", count(t, s), err)
	}
	// The damage is told from absence, and overwritten.
	if _, err := s.Manifest(t.Context(), "keep"); !errors.Is(err, remote.ErrDamaged) {
		t.Error(err)
	}
	store(t, s, "keep")
	if doc, err := s.Manifest(t.Context(), "keep"); err != nil || storetest.Note(t, doc) != "keep" {
		t.Error(err)
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

// TestInterruptedWritersLeaveNothing: what a killed writer left is swept, what a living one writes is not.
func TestInterruptedWritersLeaveNothing(t *testing.T) {
	s := open(t)
	store(t, s, "tag")
	dead, alive := s.path(".larder", "tmp", "DEAD"), (*incoming)(nil)
	if err := os.WriteFile(dead, []byte("half a blob"), 0o644); err != nil {
		t.Fatal(err)
	}
	alive, err := s.create()
	if err != nil {
		t.Fatal(err)
	}
	defer alive.drop()
	s.sweepWriters()
	if _, err := os.Stat(dead); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	if _, err := os.Stat(alive.Name()); err != nil {
		t.Error(err)
	}
	alive.drop()
	if files, err := os.ReadDir(s.path(".larder", "tmp")); err != nil || len(files) != 0 {
		t.Error(files, err)
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

// TestSeveralProcesses counts up one document in processes of their own, one of which is killed again and again.
func TestSeveralProcesses(t *testing.T) {
	if dir := os.Getenv("LARDER_TEST_COUNT_IN"); dir != "" {
		countUp(t, dir)
		return
	}
	s := open(t)
	storetest.Put(t, s, []byte("{}"))
	run := func(n int) *exec.Cmd {
		cmd := exec.Command(os.Args[0], "-test.run=^TestSeveralProcesses$")
		cmd.Env = append(os.Environ(), "LARDER_TEST_COUNT_IN="+s.dir, fmt.Sprintf("LARDER_TEST_COUNT=%d", n))
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		return cmd
	}
	const processes, each = 3, 15
	var running []*exec.Cmd
	for range processes {
		running = append(running, run(each))
	}
	for range 3 {
		victim := run(1_000_000)
		time.Sleep(100 * time.Millisecond)
		victim.Process.Kill()
		victim.Wait()
	}
	for _, cmd := range running {
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
	}
	doc, err := s.Manifest(t.Context(), "counter")
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]int{} // by process
	for _, w := range strings.Fields(storetest.Note(t, doc)) {
		got[w]++
	}
	whole := 0
	for _, n := range got {
		if n == each {
			whole++
		}
	}
	if whole < processes {
		t.Errorf("%v", got)
	}
}

// countUp appends its process id to the document, as often as it is told to.
func countUp(t *testing.T, dir string) {
	s, err := New(dir)
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.Atoi(os.Getenv("LARDER_TEST_COUNT"))
	if err != nil {
		t.Fatal(err)
	}
	config := storetest.Describe([]byte("{}"))
	for n > 0 {
		note := ""
		doc, err := s.Manifest(t.Context(), "counter")
		if err == nil {
			note = storetest.Note(t, doc) + " "
		} else if errors.Is(err, remote.ErrNotFound) {
			doc.Version = remote.Absent
		} else {
			t.Fatal(err)
		}
		_, err = s.PutManifest(t.Context(), "counter", storetest.Document(note+strconv.Itoa(os.Getpid()), config), doc.Version)
		if err == nil {
			n--
		} else if !errors.Is(err, remote.ErrConflict) {
			t.Fatal(err)
		}
	}
}

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

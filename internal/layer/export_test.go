package layer

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"larder/internal/content"
	"larder/internal/key"
)

func openStore(t testing.TB) *content.Store {
	t.Helper()
	s, err := content.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// layerOf is the layer of a directory.
func layerOf(t testing.TB, dir string) *Layer {
	t.Helper()
	root, err := FromUpper(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	id, err := root.Identity()
	if err != nil {
		t.Fatal(err)
	}
	return New(id, false, root, DirSource(dir, root))
}

func TestExport(t *testing.T) {
	needRoot(t)
	l := layerOf(t, sampleDir(t))
	var plain bytes.Buffer
	if err := Write(t.Context(), &plain, l.root, l.Contents, WriteOptions{}); err != nil {
		t.Fatal(err)
	}
	diffID := key.Bytes(plain.Bytes()).OCI()
	nine, one := 9, 1
	for _, opt := range []ExportOptions{
		{}, {Level: &nine}, {Level: &one}, {Compression: Zstd}, {Compression: Zstd, Level: &nine}, {Compression: Uncompressed},
	} {
		t.Run(opt.Compression.String(), func(t *testing.T) {
			store := openStore(t)
			blob, err := Export(t.Context(), l, store, opt)
			if err != nil {
				t.Fatal(err)
			}
			if blob.DiffID != diffID {
				t.Errorf("diff ID is %s, the tar's digest %s", blob.DiffID, diffID)
			}
			other, err := Export(t.Context(), l, openStore(t), opt)
			if err != nil || other.Desc.Digest != blob.Desc.Digest || other.Desc.Size != blob.Desc.Size {
				t.Errorf("same layer in another store: %v %v, here %v", other, err, blob.Desc)
			}
			r, err := store.Stream(t.Context(), blob.Desc.Digest)
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			out := t.TempDir()
			back, err := UnpackBlob(t.Context(), r, diffID, out)
			if err != nil {
				t.Fatal(err)
			}
			if got, want := describe(t, back, false), describe(t, l.root, false); got != want {
				t.Errorf("unpacked:\n%s\nexported:\n%s", got, want)
			}
			checkFrames(t, l, store, opt, blob, plain.Bytes())
		})
	}
}

// checkFrames unpacks a piece from each of a blob's frames on.
func checkFrames(t *testing.T, l *Layer, store *content.Store, opt ExportOptions, blob *Blob, plain []byte) {
	t.Helper()
	frames, err := Frames(l, store, opt)
	if err != nil {
		t.Fatal(err)
	}
	if opt.Compression != Uncompressed && len(frames) < 2 {
		t.Errorf("%d frames", len(frames))
	}
	r, err := store.Open(blob.Desc.Digest)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for _, f := range frames {
		dec, err := Decompress(io.NewSectionReader(r, f.Blob, r.Size()-f.Blob))
		if err != nil {
			t.Fatal(err)
		}
		want := plain[f.Tar:min(int(f.Tar)+300_000, len(plain))]
		got := make([]byte, len(want))
		_, err = io.ReadFull(dec, got)
		dec.Close()
		if err != nil || !bytes.Equal(got, want) {
			t.Fatalf("frame %+v: %v", f, err)
		}
	}
}

func TestExportOnce(t *testing.T) {
	needRoot(t)
	l, store := layerOf(t, sampleDir(t)), openStore(t)
	first, err := Export(t.Context(), l, store, ExportOptions{})
	if err != nil {
		t.Fatal(err)
	}
	deaf := New(l.Identity, false, l.root, Literal(nil)) // cannot be written again
	if again, err := Export(t.Context(), deaf, store, ExportOptions{}); err != nil || again.Desc.Digest != first.Desc.Digest {
		t.Fatalf("second export: %v, %v", again, err)
	}
	epoch := time.Unix(1000, 0)
	early, err := Export(t.Context(), l, store, ExportOptions{Epoch: &epoch})
	if err != nil || early.DiffID == first.DiffID {
		t.Fatalf("with an epoch: %v, %v", early, err)
	}
	if err := store.Delete(first.Desc.Digest); err != nil {
		t.Fatal(err)
	}
	if _, err := Export(t.Context(), deaf, store, ExportOptions{}); !errors.Is(err, ErrNoContent) {
		t.Fatalf("blob is gone, contents too: %v", err)
	}
	if again, err := Export(t.Context(), l, store, ExportOptions{}); err != nil || again.Desc.Digest != first.Desc.Digest {
		t.Fatalf("made anew: %v, %v", again, err)
	}
}

func TestExportBaseLayer(t *testing.T) {
	needRoot(t)
	l, store := layerOf(t, sampleDir(t)), openStore(t)
	gz, err := Export(t.Context(), l, store, ExportOptions{})
	if err != nil {
		t.Fatal(err)
	}
	fetched := 0
	base, err := FromBlob(&Blob{Desc: gz.Desc, DiffID: gz.DiffID, Fetch: func(ctx context.Context) (io.ReadCloser, error) {
		fetched++
		return store.Stream(ctx, gz.Desc.Digest)
	}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	other := openStore(t)
	for _, opt := range []ExportOptions{{}, {Compression: Zstd}, {Compression: Gzip, ForceCompression: true}} {
		if same, err := Export(t.Context(), base, other, opt); err != nil || same != base.Blob {
			t.Fatalf("%+v: %v, %v", opt, same, err)
		}
	}
	z, err := Export(t.Context(), base, other, ExportOptions{Compression: Zstd, ForceCompression: true})
	if err != nil || z.DiffID != gz.DiffID || z.Desc.Digest == gz.Desc.Digest || fetched != 1 {
		t.Fatalf("repacked: %v, %v, fetched %d times", z, err, fetched)
	}
}

func TestExportChangedFile(t *testing.T) {
	needRoot(t)
	dir := sampleDir(t)
	l, store := layerOf(t, dir), openStore(t)
	for _, name := range []string{"setuid", "big"} { // a small one and a large one
		path := filepath.Join(dir, name)
		old, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		changed := bytes.Clone(old)
		changed[0] ^= 1
		if err := os.WriteFile(path, changed, 0); err != nil {
			t.Fatal(err)
		}
		var ce *ChangedError
		_, err = Export(t.Context(), l, store, ExportOptions{})
		if !errors.As(err, &ce) {
			t.Fatalf("%s changed: %v", name, err)
		}
		if err := Materialise(t.Context(), l.root, l.Contents, t.TempDir()); !errors.As(err, &ce) {
			t.Fatalf("%s changed: %v", name, err)
		}
		if err := os.WriteFile(path, old, 0); err != nil {
			t.Fatal(err)
		}
	}
	store.Walk(func(i content.Info) error { t.Errorf("left over: %v", i); return nil })
}

func TestMaterialise(t *testing.T) {
	needRoot(t)
	l := layerOf(t, sampleDir(t))
	out := t.TempDir()
	if err := Materialise(t.Context(), l.root, l.Contents, out); err != nil {
		t.Fatal(err)
	}
	back, err := FromUpper(t.Context(), out)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := describe(t, back, true), describe(t, l.root, true); got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
	if back.Mode != l.root.Mode || back.MTime != l.root.MTime {
		t.Errorf("root is %+v, want %+v", back.Meta, l.root.Meta)
	}
}

func TestUnpackBlobWrongDiffID(t *testing.T) {
	needRoot(t)
	data := makeTar(t, file("a", "1"))
	_, err := UnpackBlob(t.Context(), bytes.NewReader(data), key.Bytes([]byte("other")).OCI(), t.TempDir())
	if !errors.Is(err, ErrBadTar) {
		t.Fatal(err)
	}
}

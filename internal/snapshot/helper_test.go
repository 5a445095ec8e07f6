package snapshot

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"larder/internal/layer"
)

func needRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
}

func openStore(t testing.TB, root string, opts Options) *Store {
	t.Helper()
	needRoot(t)
	if opts.Warn == nil {
		opts.Warn = func(msg string) { t.Log(msg) }
	}
	s, err := Open(root, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		nothingMounted(t, s.base)
	})
	return s
}

func nothingMounted(t testing.TB, base string) {
	t.Helper()
	if m, err := mountsBelow(filepath.Join(base, "mounts")); err != nil || len(m) > 0 {
		t.Errorf("left mounted: %v %v", m, err)
	}
}

// blob makes a layer of an image; names that end in a slash are directories, ".wh." names are whiteouts, as in tars.
func blob(t testing.TB, files ...string) (*layer.Blob, *atomic.Int64) {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, f := range files {
		name, body, _ := strings.Cut(f, "=")
		h := &tar.Header{Name: name, Mode: 0o644, Size: int64(len(body)), Typeflag: tar.TypeReg, ModTime: time.Unix(1e9, 5)}
		if strings.HasSuffix(name, "/") {
			h.Mode, h.Typeflag = 0o755, tar.TypeDir
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		io.WriteString(w, body)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return rawBlob(buf.Bytes())
}

func rawBlob(data []byte) (*layer.Blob, *atomic.Int64) {
	fetched := new(atomic.Int64)
	d := digest.FromBytes(data)
	return &layer.Blob{
		Desc:   ocispecs.Descriptor{MediaType: ocispecs.MediaTypeImageLayer, Digest: d, Size: int64(len(data))},
		DiffID: d,
		Fetch: func(context.Context) (io.ReadCloser, error) {
			fetched.Add(1)
			return io.NopCloser(bytes.NewReader(data)), nil
		},
	}, fetched
}

func image(t testing.TB, s *Store, files ...string) *layer.Layer {
	t.Helper()
	b, _ := blob(t, files...)
	l, err := s.FromBlob(b, nil)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func mount(t testing.TB, s *Store, st *layer.State, opt MountOptions) *Mount {
	t.Helper()
	m, err := s.Mount(t.Context(), st, opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Discard() })
	return m
}

func read(t testing.TB, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return "-"
	}
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func write(t testing.TB, path, body string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(body), 0o644); err != nil {
		t.Fatal(err)
	}
}

package layer

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"

	"larder/internal/key"
)

func TestVerified(t *testing.T) {
	d := key.Bytes([]byte("hello"))
	for _, c := range []struct {
		in string
		ok bool
	}{{"hello", true}, {"hellO", false}, {"hell", false}, {"hello!", false}, {"", false}} {
		for name, wrap := range map[string]func(io.Reader) io.Reader{
			"at once": func(r io.Reader) io.Reader { return r }, "by bytes": iotest.OneByteReader, "end with data": iotest.DataErrReader,
		} {
			got, err := io.ReadAll(Verified(wrap(strings.NewReader(c.in)), d, 5, "src/x"))
			var ce *ChangedError
			if c.ok && (err != nil || string(got) != c.in) || !c.ok && (!errors.As(err, &ce) || ce.Name != "src/x") {
				t.Errorf("%q %s: %q, %v", c.in, name, got, err)
			}
		}
	}
}

func TestUnion(t *testing.T) {
	a, b := []byte("a"), []byte("b")
	u := Union(nil, Literal(map[key.Digest][]byte{key.Bytes(a): a}), Literal(map[key.Digest][]byte{key.Bytes(b): b}))
	for _, want := range [][]byte{a, b} {
		r, err := u.Open(t.Context(), key.Bytes(want), 1)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, want) {
			t.Errorf("got %q %v", got, err)
		}
	}
	if _, err := u.Open(t.Context(), key.Bytes([]byte("c")), 1); !errors.Is(err, ErrNoContent) {
		t.Errorf("error is %v", err)
	}
}

// TestDirSourceStaysInside: what took a file's place since it was hashed is not followed out of the directory.
func TestDirSourceStaysInside(t *testing.T) {
	outer := t.TempDir()
	dir := filepath.Join(outer, "dir")
	secret := []byte("secret")
	for _, f := range []string{"dir/f", "dir/sub/f", "secret"} {
		p := filepath.Join(outer, f)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, secret, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	root, err := FromUpper(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	d := key.Bytes(secret)
	src := DirSource(dir, root)
	r, err := src.Open(t.Context(), d, 6)
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := r.(*StoredFile); !ok {
		t.Errorf("reader is a %T", r)
	}
	r.Close()
	if _, err := src.Open(t.Context(), key.Bytes(nil), 0); !errors.Is(err, ErrNoContent) {
		t.Errorf("unknown digest: %v", err)
	}
	if err := os.Remove(filepath.Join(dir, "f")); err != nil {
		t.Fatal(err)
	}
	if _, err := src.Open(t.Context(), d, 6); !errors.Is(err, ErrNoContent) {
		t.Errorf("file is gone: %v", err)
	}
	if err := os.Symlink("../secret", filepath.Join(dir, "f")); err != nil {
		t.Fatal(err)
	}
	if _, err := src.Open(t.Context(), d, 6); !errors.Is(err, ErrNoContent) {
		t.Errorf("link instead of the file: %v", err)
	}
}

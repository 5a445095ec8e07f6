package layer

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

// TestBlame: whatever is wrong with the bytes is ErrBadTar; an error of the stream stays what it is.
func TestBlame(t *testing.T) {
	needRoot(t)
	l, store := layerOf(t, sampleDir(t)), openStore(t)
	broken := errors.New("the cable was pulled")
	for _, c := range []Compression{Gzip, Zstd, Uncompressed} {
		blob, err := Export(t.Context(), l, store, ExportOptions{Compression: c})
		if err != nil {
			t.Fatal(err)
		}
		r, err := store.Open(blob.Desc.Digest)
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(io.NewSectionReader(r, 0, r.Size()))
		r.Close()
		if err != nil {
			t.Fatal(err)
		}
		for i := range 10 {
			at := i * len(data) / 10
			_, err := UnpackBlob(t.Context(), bytes.NewReader(data[:at]), blob.DiffID, t.TempDir())
			if !errors.Is(err, ErrBadTar) {
				t.Errorf("%s cut at %d: %v", c, at, err)
			}
			flipped := bytes.Clone(data) // which may mean the same, as the distance to one of many equal bytes
			flipped[at] ^= 0x10
			if _, err := UnpackBlob(t.Context(), bytes.NewReader(flipped), blob.DiffID, t.TempDir()); err != nil && !errors.Is(err, ErrBadTar) {
				t.Errorf("%s flipped at %d: %v", c, at, err)
			}
			pulled := io.MultiReader(bytes.NewReader(data[:at]), iotest.ErrReader(broken))
			if _, err := UnpackBlob(t.Context(), pulled, blob.DiffID, t.TempDir()); !errors.Is(err, broken) || errors.Is(err, ErrBadTar) {
				t.Errorf("%s broken off at %d: %v", c, at, err)
			}
		}
		// The last thing that a reader says counts too: that is when it has compared the digest.
		end := io.MultiReader(bytes.NewReader(data), iotest.ErrReader(broken))
		if _, err := UnpackBlob(t.Context(), end, blob.DiffID, t.TempDir()); !errors.Is(err, broken) || errors.Is(err, ErrBadTar) {
			t.Errorf("%s, at its end: %v", c, err)
		}
	}
	fat := makeTar(t, file("f", strings.Repeat("x", 1<<20+1)))
	fat[156] = tar.TypeXHeader // and the sum of the header's bytes, in octal, is another
	copy(fat[148:], fmt.Sprintf("%06o", headerSum(fat)))
	if _, err := UnpackBlob(t.Context(), bytes.NewReader(fat), "", t.TempDir()); !errors.Is(err, ErrBadTar) {
		t.Errorf("an oversized header: %v", err)
	}
}

func headerSum(block []byte) (sum int) {
	for i, c := range block[:512] {
		if i >= 148 && i < 156 {
			c = ' '
		}
		sum += int(c)
	}
	return sum
}

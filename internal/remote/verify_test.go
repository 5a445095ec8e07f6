package remote_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"time"

	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"larder/internal/registry"
	"larder/internal/remote"
	"larder/internal/remote/storetest"
)

func TestVerified(t *testing.T) {
	b := storetest.Bytes(1, 100_000)
	desc := storetest.Describe(b)
	flipped := bytes.Clone(b)
	flipped[len(b)-1] ^= 1
	for name, tc := range map[string]struct {
		r    io.Reader
		want error
	}{
		"right":           {bytes.NewReader(b), nil},
		"byte by byte":    {iotest.OneByteReader(bytes.NewReader(b)), nil},
		"end with bytes":  {iotest.DataErrReader(bytes.NewReader(b)), nil},
		"flipped":         {bytes.NewReader(flipped), remote.ErrDamaged},
		"flipped, slowly": {iotest.HalfReader(bytes.NewReader(flipped)), remote.ErrDamaged},
		"short":           {bytes.NewReader(b[:99_999]), remote.ErrDamaged},
		"empty":           {bytes.NewReader(nil), remote.ErrDamaged},
		"long":            {io.MultiReader(bytes.NewReader(b), strings.NewReader("x")), remote.ErrDamaged},
		"endless":         {io.MultiReader(bytes.NewReader(b), endless{}), remote.ErrDamaged},
		"broken":          {io.MultiReader(bytes.NewReader(b[:10]), iotest.ErrReader(errPassing)), errPassing},
	} {
		got, err := io.ReadAll(remote.Verified(io.NopCloser(tc.r), desc))
		if !errors.Is(err, tc.want) {
			t.Errorf("%s: %v", name, err)
		}
		if tc.want == nil && !bytes.Equal(got, b) || tc.want != nil && len(got) >= len(b) {
			t.Errorf("%s: %d bytes", name, len(got))
		}
	}
	none := storetest.Describe(nil)
	if got, err := io.ReadAll(remote.Verified(io.NopCloser(strings.NewReader("")), none)); err != nil || len(got) != 0 {
		t.Error(got, err)
	}
	if _, err := io.ReadAll(remote.Verified(io.NopCloser(strings.NewReader("x")), none)); !errors.Is(err, remote.ErrDamaged) {
		t.Error(err)
	}
	if _, err := io.ReadAll(remote.Verified(io.NopCloser(strings.NewReader("x")), ocispecs.Descriptor{Digest: "sha256:1", Size: 1})); !errors.Is(err, remote.ErrFinal) {
		t.Error(err)
	}
}

type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }

// lying gives other answers than it was asked for.
type lying struct{ *memory }

func (l lying) Manifest(_ context.Context, name string) (remote.Document, error) {
	if name == "huge" {
		return remote.Document{Bytes: make([]byte, registry.MaxManifest+1)}, nil
	}
	return remote.Document{Bytes: []byte("something")}, nil
}

func (l lying) Names(context.Context, string) ([]string, error) {
	return []string{"b", "a", "other", "a", "a/../b", "ä", "aa"}, nil
}

func TestVerifyDoesNotBelieve(t *testing.T) {
	m := newMemory()
	s := remote.Verify(lying{m})
	for name, want := range map[string]error{
		"huge": remote.ErrDamaged, "tag": nil,
		digest.FromString("something").String():   nil,
		digest.FromString("other thing").String(): remote.ErrDamaged,
	} {
		if _, err := s.Manifest(t.Context(), name); !errors.Is(err, want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if names, err := s.Names(t.Context(), "a"); err != nil || strings.Join(names, " ") != "a aa" {
		t.Error(names, err)
	}
	b := storetest.Bytes(1, 1000)
	desc := storetest.Put(t, m, b)
	for _, extra := range []int{-1, 1} {
		m.reader = func(_ string, _ int, part []byte) io.Reader { return bytes.NewReader(b[:len(part)+extra]) }
		rc, err := s.OpenRange(t.Context(), desc, 0, 500)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(rc); !errors.Is(err, remote.ErrDamaged) {
			t.Errorf("%d bytes, %v", len(got), err)
		}
	}
}

func TestLimit(t *testing.T) {
	m := newMemory()
	desc := storetest.Put(t, m, []byte("{}"))
	var now, most atomic.Int64
	m.before = func(string, int) error {
		most.Store(max(most.Load(), now.Add(1)))
		time.Sleep(2 * time.Millisecond)
		now.Add(-1)
		return nil
	}
	s := remote.Limit(m, 3, 1)
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() { s.Has(t.Context(), desc) })
	}
	wg.Wait()
	if n := most.Load(); n > 3 {
		t.Errorf("%d reads at once", n)
	}
	m.before = nil
	// Readers hold their place until they are closed, once.
	var open []io.ReadCloser
	for range 3 {
		rc, err := s.Open(t.Context(), desc)
		if err != nil {
			t.Fatal(err)
		}
		open = append(open, rc)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := s.Manifest(ctx, "tag"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a fourth read: %v", err)
	}
	if _, err := s.Put(t.Context(), storetest.Upload([]byte("x"))); err != nil {
		t.Errorf("a write beside them: %v", err)
	}
	open[0].Close()
	open[0].Close()
	rc, err := s.OpenRange(t.Context(), desc, 0, 1)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel = context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := s.Names(ctx, ""); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("closing twice made two places: %v", err)
	}
	for _, rc := range append(open[1:], rc) {
		rc.Close()
	}
	// A read that fails leaves its place.
	for range 10 {
		if _, err := s.Open(t.Context(), storetest.Describe([]byte("absent"))); !errors.Is(err, remote.ErrNotFound) {
			t.Error(err)
		}
	}
}

func TestBlobs(t *testing.T) {
	a, b := storetest.Describe([]byte("a")), storetest.Describe([]byte("b"))
	list, err := remote.Blobs(storetest.Document("x", a, b, b))
	if err != nil || len(list) != 3 || list[0].Digest != a.Digest || list[2].Digest != b.Digest {
		t.Error(list, err)
	}
	negative := b
	negative.Size = -1
	for _, doc := range [][]byte{nil, []byte(`{"schemaVersion":2}`), storetest.Document("x", a, negative), storetest.Document(strings.Repeat("x", registry.MaxManifest), a),
		[]byte(strings.Replace(string(storetest.Document("x", a)), `"schemaVersion":2`, `"schemaVersion":1`, 1))} {
		if _, err := remote.Blobs(doc); !errors.Is(err, remote.ErrFinal) {
			t.Errorf("%.100q: %v", doc, err)
		}
	}
	many := make([]ocispecs.Descriptor, 20_001)
	for i := range many {
		many[i] = ocispecs.Descriptor{Digest: a.Digest}
	}
	if _, err := remote.Blobs(storetest.Document("x", many...)); err == nil {
		t.Error("20,001 blobs")
	}
}

package storetest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"sync"
	"testing"
	"time"

	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"larder/internal/remote"
)

func testBlobs(t *testing.T, s remote.Store) {
	ctx := t.Context()
	for i, size := range []int{0, 1, 1000, 70_000} {
		b := Bytes(uint64(i), size)
		desc := Describe(b)
		if ok, err := s.Has(ctx, desc); ok || err != nil {
			t.Errorf("%d bytes, before: has %v, %v", size, ok, err)
		}
		_, err := Read(ctx, s, desc)
		want(t, err, remote.ErrNotFound, "open a blob that is not there")
		if sent, err := s.Put(ctx, Upload(b)); err != nil || !sent {
			t.Fatalf("put %d bytes: sent %v, %v", size, sent, err)
		}
		if sent, err := s.Put(ctx, Upload(b)); err != nil || sent {
			t.Errorf("put %d bytes again: sent %v, %v", size, sent, err)
		}
		if ok, err := s.Has(ctx, desc); !ok || err != nil {
			t.Errorf("%d bytes, after: has %v, %v", size, ok, err)
		}
		if got, err := Read(ctx, s, desc); err != nil || !bytes.Equal(got, b) {
			t.Errorf("read %d bytes: %d came, %v", size, len(got), err)
		}
	}
}

func testBigBlob(t *testing.T, s remote.Store) {
	b := Bytes(9, 8<<20)
	up := Upload(b)
	up.New = true
	if _, err := s.Put(t.Context(), up); err != nil {
		t.Fatal(err)
	}
	rc, err := s.Open(t.Context(), up.Desc)
	if err != nil {
		t.Fatal(err)
	}
	defer rc.Close()
	// By pieces that fit nothing, and once more at the end.
	var got bytes.Buffer
	if _, err := io.CopyBuffer(struct{ io.Writer }{&got}, struct{ io.Reader }{rc}, make([]byte, 99_991)); err != nil {
		t.Fatal(err)
	}
	if n, err := rc.Read(make([]byte, 1)); n != 0 || err != io.EOF {
		t.Errorf("after the end: %d, %v", n, err)
	}
	if !bytes.Equal(got.Bytes(), b) {
		t.Errorf("%d other bytes came", got.Len())
	}
}

func testRanges(t *testing.T, s remote.Store) {
	b := Bytes(3, 300_000)
	desc := Put(t, s, b)
	read := func(desc ocispecs.Descriptor, off, n int64) ([]byte, error) {
		rc, err := s.OpenRange(t.Context(), desc, off, n)
		if err != nil {
			return nil, err
		}
		defer rc.Close()
		return io.ReadAll(rc)
	}
	if _, err := read(desc, 1, 1); errors.Is(err, remote.ErrUnsupported) {
		return
	}
	size := int64(len(b))
	for _, r := range [][2]int64{{0, 1}, {0, 0}, {size, 0}, {17, 0}, {5, 10}, {size - 1, 1}, {0, size}, {1, size - 1}, {100_000, 150_000}} {
		got, err := read(desc, r[0], r[1])
		if err != nil || !bytes.Equal(got, b[r[0]:r[0]+r[1]]) {
			t.Errorf("%d bytes from %d: %d came, %v", r[1], r[0], len(got), err)
		}
	}
	for _, r := range [][2]int64{{0, size + 1}, {size, 1}, {size + 1, 0}, {-1, 5}, {5, -1}, {1, 1<<63 - 1}} {
		if got, err := read(desc, r[0], r[1]); err == nil {
			t.Errorf("%d bytes from %d: %d came", r[1], r[0], len(got))
		}
	}
	_, err := read(Describe(Bytes(4, 50)), 0, 10)
	want(t, err, remote.ErrNotFound, "a range of a blob that is not there")
}

// testWrongBytes puts what cannot be stored: it must leave nothing, and the right bytes must be stored afterwards.
func testWrongBytes(t *testing.T, s remote.Store) {
	b := Bytes(5, 200_000)
	flipped := bytes.Clone(b)
	flipped[150_000] ^= 1
	broken := errors.New("the disk is gone")
	from := func(r io.Reader) func(context.Context) (io.ReadCloser, error) {
		return func(context.Context) (io.ReadCloser, error) { return io.NopCloser(r), nil }
	}
	for name, open := range map[string]func() func(context.Context) (io.ReadCloser, error){
		"open fails": func() func(context.Context) (io.ReadCloser, error) {
			return func(context.Context) (io.ReadCloser, error) { return nil, broken }
		},
		"read fails": func() func(context.Context) (io.ReadCloser, error) {
			return from(io.MultiReader(bytes.NewReader(b[:100_000]), &failing{broken}))
		},
		"flipped":   func() func(context.Context) (io.ReadCloser, error) { return from(bytes.NewReader(flipped)) },
		"too short": func() func(context.Context) (io.ReadCloser, error) { return from(bytes.NewReader(b[:199_999])) },
		"too long": func() func(context.Context) (io.ReadCloser, error) {
			return from(io.MultiReader(bytes.NewReader(b), bytes.NewReader([]byte{1})))
		},
		"nothing": func() func(context.Context) (io.ReadCloser, error) { return from(bytes.NewReader(nil)) },
	} {
		for _, fresh := range []bool{false, true} {
			up := Upload(b)
			up.New = fresh
			up.Open = open()
			if sent, err := s.Put(t.Context(), up); err == nil {
				t.Errorf("%s: sent %v, no error", name, sent)
			} else if errors.Is(err, remote.ErrDown) {
				t.Errorf("%s: the store counts as down: %v", name, err)
			}
			if ok, err := s.Has(t.Context(), up.Desc); ok || err != nil {
				t.Errorf("%s: has %v, %v", name, ok, err)
			}
		}
	}
	desc := Put(t, s, b)
	if got, err := Read(t.Context(), s, desc); err != nil || !bytes.Equal(got, b) {
		t.Errorf("the right bytes afterwards: %d, %v", len(got), err)
	}
}

type failing struct{ err error }

func (f *failing) Read([]byte) (int, error) { return 0, f.err }

func testSameBlobAtOnce(t *testing.T, s remote.Store) {
	b := Bytes(6, 500_000)
	var wg sync.WaitGroup
	for i := range 12 {
		wg.Go(func() {
			up := Upload(b)
			up.New = i%2 == 0
			if _, err := s.Put(t.Context(), up); err != nil {
				t.Errorf("put %d: %v", i, err)
			}
			if got, err := Read(t.Context(), s, up.Desc); err != nil || !bytes.Equal(got, b) {
				t.Errorf("read %d: %d bytes, %v", i, len(got), err)
			}
		})
	}
	wg.Wait()
}

// testHealBlob: a blob that was made again replaces the one that is there, whatever that is like.
func testHealBlob(t *testing.T, s remote.Store) {
	b := Bytes(7, 10_000)
	desc := Put(t, s, b)
	up := Upload(b)
	up.New = true
	if _, err := s.Put(t.Context(), up); err != nil {
		t.Fatal(err)
	}
	if got, err := Read(t.Context(), s, desc); err != nil || !bytes.Equal(got, b) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}

func testDeleteBlob(t *testing.T, s remote.Store) {
	ctx := t.Context()
	b := Bytes(8, 1000)
	if err := s.Delete(ctx, Describe(b).Digest); errors.Is(err, remote.ErrUnsupported) {
		return
	} else if err != nil {
		t.Errorf("delete what is not there: %v", err)
	}
	desc := Put(t, s, b)
	if err := s.Delete(ctx, desc.Digest); err != nil {
		t.Fatal(err)
	}
	if ok, err := s.Has(ctx, desc); ok || err != nil {
		t.Errorf("deleted: has %v, %v", ok, err)
	}
	_, err := Read(ctx, s, desc)
	want(t, err, remote.ErrNotFound, "read what is deleted")
	Put(t, s, b)
	if got, err := Read(ctx, s, desc); err != nil || !bytes.Equal(got, b) {
		t.Errorf("put again: %d bytes, %v", len(got), err)
	}
}

// testCancelled ends the ctx of operations under way.
func testCancelled(t *testing.T, s remote.Store) {
	b := Bytes(10, 8<<20)
	desc := Put(t, s, b)
	ctx, cancel := context.WithCancel(t.Context())
	rc, err := s.Open(ctx, desc)
	if err != nil {
		t.Fatal(err)
	}
	defer rc.Close()
	if _, err := io.ReadFull(rc, make([]byte, 1000)); err != nil {
		t.Fatal(err)
	}
	cancel()
	if n, err := io.Copy(io.Discard, rc); err == nil {
		t.Errorf("all %d bytes came after the ctx had ended", n)
	}
	for name, op := range map[string]func(ctx context.Context) error{
		"Open":     func(ctx context.Context) error { _, err := Read(ctx, s, desc); return err },
		"Manifest": func(ctx context.Context) error { _, err := s.Manifest(ctx, "a"); return err },
		"Put":      func(ctx context.Context) error { _, err := s.Put(ctx, Upload(Bytes(11, 10))); return err },
		"PutManifest": func(ctx context.Context) error {
			_, err := s.PutManifest(ctx, "a", Document("a", desc), remote.Any)
			return err
		},
	} {
		if err := op(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("%s with a ctx that has ended: %v", name, err)
		}
	}
	// An upload whose source gives nothing any more.
	ctx, cancel = context.WithCancel(t.Context())
	up := Upload(Bytes(12, 100_000))
	up.Open = func(ctx context.Context) (io.ReadCloser, error) {
		return io.NopCloser(io.MultiReader(bytes.NewReader(Bytes(12, 100_000)[:50_000]), &blocked{ctx})), nil
	}
	done := make(chan error, 1)
	go func() {
		_, err := s.Put(ctx, up)
		done <- err
	}()
	time.AfterFunc(50*time.Millisecond, cancel)
	select {
	case err := <-done:
		if !errors.Is(err, context.Canceled) {
			t.Errorf("put that was cancelled: %v", err)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("put goes on although its ctx has ended")
	}
	if ok, err := s.Has(t.Context(), up.Desc); ok || err != nil {
		t.Errorf("cancelled put: has %v, %v", ok, err)
	}
}

type blocked struct{ ctx context.Context }

func (b *blocked) Read([]byte) (int, error) {
	<-b.ctx.Done()
	return 0, b.ctx.Err()
}

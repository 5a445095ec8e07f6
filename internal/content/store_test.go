package content

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"larder/internal/key"
)

func open(t testing.TB, dir string) *Store {
	t.Helper()
	s, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func put(t testing.TB, s *Store, data string) digest.Digest {
	t.Helper()
	info, err := s.Ingest(t.Context(), strings.NewReader(data), "", -1)
	if err != nil {
		t.Fatal(err)
	}
	return info.Digest
}

// files lists everything below a store's directory that is no directory, lock or lease.
func files(t testing.TB, s *Store) []string {
	t.Helper()
	var out []string
	err := filepath.WalkDir(s.Dir(), func(p string, d os.DirEntry, err error) error {
		rel, _ := filepath.Rel(s.Dir(), p)
		if err == nil && !d.IsDir() && rel != "lock" && !strings.HasPrefix(rel, "leases/") {
			out = append(out, rel)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestIngest(t *testing.T) {
	s := open(t, t.TempDir())
	d := put(t, s, "hello")
	if want := key.Bytes([]byte("hello")).OCI(); d != want {
		t.Fatalf("digest %s, want %s", d, want)
	}
	info, err := s.Stat(d)
	if err != nil || info.Size != 5 || time.Since(info.Used) > time.Minute {
		t.Fatalf("stat: %+v, %v", info, err)
	}
	b, err := s.ReadAll(t.Context(), d, 5)
	if err != nil || string(b) != "hello" {
		t.Fatalf("read: %q, %v", b, err)
	}
	if _, err := s.ReadAll(t.Context(), d, 4); err == nil {
		t.Error("read more than the limit")
	}
	r, err := s.Open(d)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	part := make([]byte, 3)
	if _, err := r.ReadAt(part, 2); err != nil || string(part) != "llo" || r.Size() != 5 {
		t.Errorf("read at: %q, %v, size %d", part, err, r.Size())
	}
	// What is here is not read again.
	if _, err := s.Ingest(t.Context(), badReader{}, d, 5); err != nil {
		t.Error(err)
	}
}

type badReader struct{}

func (badReader) Read([]byte) (int, error) { return 0, errors.New("was read") }

type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }

func TestIngestRefuses(t *testing.T) {
	s := open(t, t.TempDir())
	other := key.Bytes([]byte("other")).OCI()
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	for name, c := range map[string]struct {
		ctx  context.Context
		r    io.Reader
		want digest.Digest
		size int64
		is   error
	}{
		"wrong digest": {t.Context(), strings.NewReader("x"), other, 1, ErrMismatch},
		"too short":    {t.Context(), strings.NewReader("othe"), other, 5, ErrMismatch},
		"too long":     {t.Context(), strings.NewReader("others"), other, 5, ErrMismatch},
		"endless":      {t.Context(), endless{}, other, 5, ErrMismatch},
		"cancelled":    {cancelled, endless{}, "", -1, context.Canceled},
		"broken":       {t.Context(), badReader{}, "", -1, nil},
		"md5":          {t.Context(), strings.NewReader("x"), "md5:00000000000000000000000000000000", 1, nil},
		"a path":       {t.Context(), strings.NewReader("x"), "sha256:../../../../../../../../../../../../../../../../../../../../etc", 1, nil},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := s.Ingest(c.ctx, c.r, c.want, c.size)
			if err == nil || c.is != nil && !errors.Is(err, c.is) {
				t.Errorf("error is %v", err)
			}
		})
	}
	if left := files(t, s); len(left) > 0 {
		t.Errorf("left over: %v", left)
	}
}

func TestDamageIsAMiss(t *testing.T) {
	s := open(t, t.TempDir())
	for name, damage := range map[string]func(path string) error{
		"flipped":   func(p string) error { return os.WriteFile(p, []byte("hellO"), 0) },
		"truncated": func(p string) error { return os.Truncate(p, 3) },
		"emptied":   func(p string) error { return os.Truncate(p, 0) },
		"longer":    func(p string) error { return os.WriteFile(p, []byte("hello, world"), 0) },
	} {
		t.Run(name, func(t *testing.T) {
			d := put(t, s, "hello")
			k, _ := key.FromOCI(d)
			if err := damage(s.freshPath(k)); err != nil {
				t.Fatal(err)
			}
			if _, err := s.ReadAll(t.Context(), d, 100); !errors.Is(err, ErrNotFound) {
				t.Errorf("error is %v", err)
			}
			if _, err := s.Stat(d); !errors.Is(err, ErrNotFound) {
				t.Errorf("still there: %v", err)
			}
		})
	}
}

func TestSyncAndReboot(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	kept := put(t, s, "kept")
	if err := s.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	lost := put(t, s, "lost")
	// The machine goes down: another boot id.
	if err := os.Rename(s.fresh, filepath.Join(dir, "new", "another-boot")); err != nil {
		t.Fatal(err)
	}
	s = open(t, dir)
	if _, err := s.Stat(kept); err != nil {
		t.Errorf("synced blob: %v", err)
	}
	if _, err := s.Stat(lost); !errors.Is(err, ErrNotFound) {
		t.Errorf("blob that was never synced: %v", err)
	}
	if got := files(t, s); len(got) != 1 {
		t.Errorf("files: %v", got)
	}
}

func TestCollect(t *testing.T) {
	dir := t.TempDir()
	mine, theirs := open(t, dir), open(t, dir) // as two processes
	a, b, c := put(t, theirs, "a"), put(t, theirs, "b"), put(t, theirs, "c")
	if err := theirs.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := theirs.Stat(a); err != nil { // relied on again
		t.Fatal(err)
	}
	freed, err := mine.Collect(t.Context(), func(i Info) bool { return i.Digest == b })
	if err != nil || freed != (Freed{Blobs: 1, Bytes: 1}) {
		t.Fatalf("freed %+v, %v", freed, err)
	}
	for d, want := range map[digest.Digest]bool{a: true, b: true, c: false} {
		if mine.Has(d) != want {
			t.Errorf("%s is there: %v", d, !want)
		}
	}
}

// killed is what a process leaves that gets SIGKILL: its files, without its locks.
func killed(t *testing.T, s *Store) {
	t.Helper()
	for _, f := range []*os.File{s.lease.f, s.lease.lock} {
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestAfterKill(t *testing.T) {
	dir := t.TempDir()
	s, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	a := put(t, s, "a")
	w, err := s.Create()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte("half a bl")); err != nil {
		t.Fatal(err)
	}
	if err := w.f.Close(); err != nil {
		t.Fatal(err)
	}
	killed(t, s)
	next := open(t, dir)
	if entries, _ := os.ReadDir(filepath.Join(dir, "leases")); len(entries) > 0 {
		t.Errorf("leases left: %v", entries)
	}
	if got := files(t, next); len(got) != 1 {
		t.Errorf("files: %v", got)
	}
	if _, err := next.Stat(a); err != nil {
		t.Error(err)
	}
}

// TestConcurrent has several "processes" store, read, sync and collect the same few blobs: what one was told is there stays.
func TestConcurrent(t *testing.T) {
	dir := t.TempDir()
	var wg sync.WaitGroup
	for p := range 4 {
		s := open(t, dir)
		wg.Go(func() {
			for i := range 60 {
				data := fmt.Sprint("blob ", (i*7+p*3)%20)
				info, err := s.Ingest(t.Context(), strings.NewReader(data), "", -1)
				if err != nil {
					t.Error(err)
					return
				}
				switch i % 5 {
				case 1:
					err = s.Sync(t.Context())
				case 2:
					_, err = s.Collect(t.Context(), func(Info) bool { return false })
				}
				if err != nil {
					t.Error(err)
					return
				}
				if b, err := s.ReadAll(t.Context(), info.Digest, 100); err != nil || !bytes.Equal(b, []byte(data)) {
					t.Errorf("%q: %v", b, err)
					return
				}
			}
		})
	}
	wg.Wait()
}

func TestWalkStops(t *testing.T) {
	s := open(t, t.TempDir())
	put(t, s, "a")
	put(t, s, "b")
	if err := s.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	put(t, s, "c")
	n := 0
	if err := s.Walk(func(Info) error { n++; return nil }); err != nil || n != 3 {
		t.Errorf("%d blobs, %v", n, err)
	}
	stop := errors.New("stop")
	if err := s.Walk(func(Info) error { return stop }); err != stop {
		t.Errorf("error is %v", err)
	}
}

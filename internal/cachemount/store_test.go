package cachemount

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"larder/internal/key"
)

func acquire(t *testing.T, s Store, k Key, sharing Sharing) Mount {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	m, err := s.Acquire(ctx, k, sharing, nil)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func release(t *testing.T, m Mount) {
	t.Helper()
	if err := m.Release(true); err != nil {
		t.Error(err)
	}
}

// TestSharing checks every pair of modes: does the second step get the first one's directory, another one, or does it wait?
func TestSharing(t *testing.T) {
	for _, c := range []struct {
		first, second Sharing
		want          string
	}{
		{Shared, Shared, "same"}, {Shared, Private, "other"}, {Shared, Locked, "waits"},
		{Private, Shared, "other"}, {Private, Private, "other"}, {Private, Locked, "waits"},
		{Locked, Shared, "other"}, {Locked, Private, "other"}, {Locked, Locked, "waits"},
	} {
		s := Open(t.TempDir())
		k := Key{ID: "x"}
		a := acquire(t, s, k, c.first)
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		b, err := s.Acquire(ctx, k, c.second, nil)
		cancel()
		got := "waits"
		if err == nil {
			got = "other"
			if a.Dir() == b.Dir() {
				got = "same"
			}
			release(t, b)
		} else if !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		if got != c.want {
			t.Errorf("%v, then %v: %s, want %s", c.first, c.second, got, c.want)
		}
		release(t, a)
		// Whatever happened, the next one finds the first directory again.
		b = acquire(t, s, k, c.second)
		if a.Dir() != b.Dir() {
			t.Errorf("%v, then %v: the next step got %s, not %s", c.first, c.second, b.Dir(), a.Dir())
		}
		release(t, b)
	}
}

func TestKeys(t *testing.T) {
	s := Open(t.TempDir())
	dirs := map[string]Key{}
	for _, k := range []Key{{ID: "a"}, {ID: "b"}, {ID: "a", Selector: "/x"}, {ID: "a", Base: []key.Digest{{1}}}, {ID: "a", Base: []key.Digest{{2}}}} {
		m := acquire(t, s, k, Shared)
		if other, ok := dirs[m.Dir()]; ok {
			t.Errorf("%v has the directory of %v", k, other)
		}
		dirs[m.Dir()] = k
		release(t, m)
	}
}

func TestFill(t *testing.T) {
	s := Open(t.TempDir())
	k := Key{ID: "x"}
	broken := errors.New("disk full")
	if _, err := s.Acquire(t.Context(), k, Locked, func(_ context.Context, dir string) error {
		os.WriteFile(filepath.Join(dir, "half"), nil, 0o600)
		return broken
	}); !errors.Is(err, broken) {
		t.Errorf("got %v", err)
	}
	// What a killed process left does not get in the way, and does not stay.
	if err := os.MkdirAll(filepath.Join(s.dir, filepath.Base(s.keyDir(k)), "new-killed", "data"), 0o700); err != nil {
		t.Fatal(err)
	}
	var filled atomic.Int32
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			m, err := s.Acquire(t.Context(), k, Shared, func(_ context.Context, dir string) error {
				filled.Add(1)
				return os.WriteFile(filepath.Join(dir, "whole"), nil, 0o600)
			})
			if err != nil {
				t.Error(err)
				return
			}
			if _, err := os.Stat(filepath.Join(m.Dir(), "whole")); err != nil {
				t.Error(err)
			}
			if _, err := os.Stat(filepath.Join(m.Dir(), "half")); err == nil {
				t.Error("a half-filled directory was handed out")
			}
			release(t, m)
		})
	}
	wg.Wait()
	if filled.Load() != 1 {
		t.Errorf("filled %d times", filled.Load())
	}
	if left, _ := filepath.Glob(s.dir + "/*/new-*"); len(left) > 0 {
		t.Errorf("left: %s", left)
	}
}

func TestUsage(t *testing.T) {
	s := Open(filepath.Join(t.TempDir(), "mounts"))
	if u, err := s.Usage(t.Context()); err != nil || len(u) != 0 {
		t.Errorf("got %v, %v", u, err)
	}
	m := acquire(t, s, Key{ID: "go-build"}, Shared)
	if err := os.WriteFile(filepath.Join(m.Dir(), "f"), []byte("12345"), 0o600); err != nil {
		t.Fatal(err)
	}
	u, err := s.Usage(t.Context())
	if err != nil || len(u) != 1 || u[0].ID != "go-build" || u[0].Size != 5 || !u[0].InUse || time.Since(u[0].LastUsed) > time.Minute {
		t.Fatalf("got %+v, %v", u, err)
	}
	if err := s.Remove(u[0].Name); !errors.Is(err, ErrInUse) {
		t.Errorf("got %v", err)
	}
	release(t, m)
	if err := s.Remove(u[0].Name); err != nil {
		t.Error(err)
	}
	if u, err := s.Usage(t.Context()); err != nil || len(u) != 0 {
		t.Errorf("got %v, %v", u, err)
	}
	for _, bad := range []string{"", "..", "../x", "a/b/c", "/etc/passwd", "a/../.."} {
		if err := s.Remove(bad); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}

package flock

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func TestModes(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	for _, c := range []struct {
		held, asked Mode
		busy        bool
	}{{Shared, Shared, false}, {Shared, Exclusive, true}, {Exclusive, Shared, true}, {Exclusive, Exclusive, true}} {
		a, err := Try(path, c.held)
		if err != nil {
			t.Fatal(err)
		}
		if !List().Held(path) {
			t.Errorf("%v: not listed", c)
		}
		b, err := Try(path, c.asked)
		if c.busy != errors.Is(err, ErrBusy) {
			t.Errorf("%v: got %v", c, err)
		}
		if err == nil {
			b.Unlock()
		}
		if err := a.Unlock(); err != nil {
			t.Error(err)
		}
		if List().Held(path) {
			t.Errorf("%v: still listed", c)
		}
	}
}

func TestAcquireEndsWithContext(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	l, err := Try(path, Exclusive)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Unlock()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := Acquire(ctx, path, Shared); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
}

// TestRemove lets many take, remove and make the same lock file; never two of them hold it.
func TestRemove(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	var inside, most atomic.Int32
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 50 {
				l, err := Acquire(t.Context(), path, Exclusive)
				if err != nil {
					t.Error(err)
					return
				}
				if n := inside.Add(1); n > most.Load() {
					most.Store(n)
				}
				inside.Add(-1)
				if err := l.Remove(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if most.Load() != 1 {
		t.Errorf("%d at once", most.Load())
	}
	if _, err := os.Stat(path); err == nil {
		t.Error("the file is still there")
	}
}

func TestDir(t *testing.T) {
	dir := t.TempDir()
	l, err := TryDir(dir, Shared)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := TryDir(dir, Exclusive); !errors.Is(err, ErrBusy) {
		t.Errorf("got %v", err)
	}
	if err := l.Unlock(); err != nil {
		t.Error(err)
	}
	if _, err := TryDir(filepath.Join(dir, "none"), Shared); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}

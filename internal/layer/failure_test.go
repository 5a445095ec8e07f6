package layer

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"larder/internal/content"
	"larder/internal/key"
)

// noGoroutinesLeft fails if there are more than before fn after a moment of grace.
func noGoroutinesLeft(t *testing.T, fn func()) {
	t.Helper()
	before := runtime.NumGoroutine()
	fn()
	for range 100 {
		if runtime.NumGoroutine() <= before {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	buf := make([]byte, 1<<16)
	t.Errorf("goroutines left:\n%s", buf[:runtime.Stack(buf, true)])
}

// smallDisk mounts a file system of 1 MiB.
func smallDisk(t *testing.T) string {
	t.Helper()
	needRoot(t)
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=1m"); err != nil {
		t.Skipf("needs to mount a tmpfs: %v", err)
	}
	t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) })
	return dir
}

func TestDiskFull(t *testing.T) {
	l := layerOf(t, sampleDir(t))
	noise := make([]byte, 3<<20) // does not compress
	for i, d := 0, key.Bytes(nil); i < len(noise); i += copy(noise[i:], d[:]) {
		d = key.Bytes(d[:])
	}
	big := t.TempDir()
	if err := os.WriteFile(filepath.Join(big, "noise"), noise, 0o644); err != nil {
		t.Fatal(err)
	}
	blob := makeTar(t, file("small", "1"), file("noise", string(noise)))
	for name, fn := range map[string]func(dir string) error{
		"Unpack": func(dir string) error {
			_, err := UnpackBlob(t.Context(), bytes.NewReader(blob), "", dir)
			return err
		},
		"Materialise": func(dir string) error { return Materialise(t.Context(), l.root, l.Contents, dir) },
		"Export": func(dir string) error {
			store, err := content.Open(dir)
			if err != nil {
				return err
			}
			defer store.Close()
			_, err = Export(t.Context(), layerOf(t, big), store, ExportOptions{})
			store.Walk(func(i content.Info) error { t.Errorf("blob left: %v", i); return nil })
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := smallDisk(t)
			noGoroutinesLeft(t, func() {
				if err := fn(dir); !errors.Is(err, unix.ENOSPC) {
					t.Errorf("error is %v", err)
				}
			})
		})
	}
}

func TestCancelled(t *testing.T) {
	needRoot(t)
	dir := sampleDir(t)
	l := layerOf(t, dir)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for name, fn := range map[string]func() error{
		"FromUpper":   func() error { _, err := FromUpper(ctx, dir); return err },
		"Write":       func() error { return Write(ctx, io.Discard, l.root, l.Contents, WriteOptions{}) },
		"Materialise": func() error { return Materialise(ctx, l.root, l.Contents, t.TempDir()) },
		"Export":      func() error { _, err := Export(ctx, l, openStore(t), ExportOptions{}); return err },
		"Unpack": func() error {
			_, err := UnpackBlob(ctx, bytes.NewReader(makeTar(t, file("a", "1"))), "", t.TempDir())
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			noGoroutinesLeft(t, func() {
				if err := fn(); !errors.Is(err, context.Canceled) {
					t.Errorf("error is %v", err)
				}
			})
		})
	}
}

func TestPruneIndex(t *testing.T) {
	needRoot(t)
	l, store := layerOf(t, sampleDir(t)), openStore(t)
	if err := PruneIndex(store); err != nil {
		t.Fatal(err)
	}
	keep, err := Export(t.Context(), l, store, ExportOptions{})
	if err != nil {
		t.Fatal(err)
	}
	gone, err := Export(t.Context(), l, store, ExportOptions{Compression: Zstd})
	if err != nil {
		t.Fatal(err)
	}
	if err := store.Delete(gone.Desc.Digest); err != nil {
		t.Fatal(err)
	}
	count := func() (n int) {
		filepath.WalkDir(filepath.Join(store.Dir(), "index"), func(p string, d os.DirEntry, err error) error {
			if err == nil && !d.IsDir() {
				old := time.Now().Add(-time.Hour)
				os.Chtimes(p, old, old)
				n++
			}
			return nil
		})
		return n
	}
	if n := count(); n != 2 {
		t.Fatalf("%d entries", n)
	}
	if err := PruneIndex(store); err != nil {
		t.Fatal(err)
	}
	if n := count(); n != 1 || !store.Has(keep.Desc.Digest) {
		t.Errorf("%d entries after pruning", n)
	}
}

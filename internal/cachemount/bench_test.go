package cachemount

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// many makes n files of the given size in directories of fifty, half of which can be compressed away.
func many(t testing.TB, dir string, n, size int) {
	t.Helper()
	r := rand.New(rand.NewPCG(1, 2))
	data := make([]byte, size)
	for i := range n {
		d := filepath.Join(dir, fmt.Sprintf("p%02d", i/2500), fmt.Sprintf("d%04d", i/50))
		if i%50 == 0 {
			must(t, os.MkdirAll(d, 0o755))
		}
		for at := 0; at+8 <= size/2; at += 8 {
			binary.LittleEndian.PutUint64(data[at:], r.Uint64())
		}
		must(t, os.WriteFile(filepath.Join(d, fmt.Sprintf("file%05d.go", i)), data, 0o644))
	}
}

func BenchmarkRestore(b *testing.B) {
	for _, c := range []struct{ files, size int }{{5000, 2000}, {5000, 18_000}, {30_000, 3000}, {20, 5_000_000}} {
		b.Run(fmt.Sprintf("%dx%d", c.files, c.size), func(b *testing.B) {
			w := newWorld(b)
			dir := b.TempDir()
			many(b, dir, c.files, c.size)
			got := w.captured(dir, nil, nil)
			b.SetBytes(int64(c.files * c.size))
			// Nothing is removed until the end: ext4 is slow to create files for some minutes where many were removed.
			for b.Loop() {
				out, err := os.MkdirTemp(b.TempDir(), "")
				must(b, err)
				if _, err := Restore(b.Context(), out, got.Next, w.open); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(c.files)*float64(b.N)/b.Elapsed().Seconds(), "files/s")
		})
	}
}

func BenchmarkCapture(b *testing.B) {
	w := newWorld(b)
	dir := b.TempDir()
	many(b, dir, 30_000, 3000)
	time.Sleep(2 * tick)
	first := w.captured(dir, nil, nil)
	b.Run("nothing known", func(b *testing.B) {
		for b.Loop() {
			newWorld(b).captured(dir, nil, nil)
		}
	})
	b.Run("unchanged", func(b *testing.B) {
		for b.Loop() {
			got, err := Capture(b.Context(), dir, first.Next, first.Stamps, w.writer(), CaptureOptions{})
			if err != nil || got.Next.Tree != first.Next.Tree {
				b.Fatal("another tree", err)
			}
		}
	})
	b.Run("100 changed", func(b *testing.B) {
		for b.Loop() {
			b.StopTimer()
			for i := range 100 {
				must(b, os.WriteFile(filepath.Join(dir, "p00/d0000", fmt.Sprintf("new%d", i)), []byte(time.Now().String()), 0o644))
			}
			b.StartTimer()
			if _, err := Capture(b.Context(), dir, first.Next, first.Stamps, w.writer(), CaptureOptions{}); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("stamps", func(b *testing.B) {
		path := filepath.Join(b.TempDir(), "stamps")
		for b.Loop() {
			must(b, first.Stamps.Save(path))
			if _, err := LoadStamps(path); err != nil {
				b.Fatal(err)
			}
		}
	})
}

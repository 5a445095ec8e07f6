package pack

import (
	"bytes"
	"fmt"
	"os"
	"runtime"
	"sync"
	"testing"
	"time"

	"larder/internal/key"
)

// mount is the files of about n bytes in all, in sizes as go's build cache has them: most small, most bytes in a few.
func mount(n int) (files [][]byte, size int64) {
	for i := uint64(0); size < int64(n); i++ {
		l := []int{300, 2_000, 9_000, 30_000, 90_000, 700, 400_000, 4_000, 15_000, 1_200, 2_600_000, 20_000}[i%12]
		l = min(l, n/4)
		files, size = append(files, text(i, l+int(i%97))), size+int64(l)
	}
	return files, size
}

// BenchmarkAdd packs files of a build cache's sizes, one large file, and one that does not compress, from memory.
func BenchmarkAdd(b *testing.B) {
	files, size := mount(64 << 20)
	for _, c := range []struct {
		name  string
		files [][]byte
		size  int64
	}{{"mount", files, size}, {"large", [][]byte{text(1, 64<<20)}, 64 << 20}, {"noise", [][]byte{noise(1, 64<<20)}, 64 << 20}} {
		b.Run(c.name, func(b *testing.B) {
			b.SetBytes(c.size)
			for b.Loop() {
				var packed int64
				w := NewWriter(Options{Dir: b.TempDir(), Done: func(p Pack) error { packed += p.Size; return os.Remove(p.Path) }})
				work := make(chan []byte)
				var wg sync.WaitGroup
				for range 2 * runtime.GOMAXPROCS(0) {
					wg.Go(func() {
						for f := range work {
							if _, _, _, err := w.Add(b.Context(), bytes.NewReader(f)); err != nil {
								b.Error(err)
							}
						}
					})
				}
				for _, f := range c.files {
					work <- f
				}
				close(work)
				wg.Wait()
				if _, err := w.Close(b.Context()); err != nil {
					b.Fatal(err)
				}
				b.ReportMetric(float64(packed)/float64(c.size), "ratio")
			}
		})
	}
}

// BenchmarkFetch reads all of a mount from a store whose requests take a while.
func BenchmarkFetch(b *testing.B) {
	files, size := mount(128 << 20)
	s := newStore()
	list, where := save(b, s, nil, files...)
	want := pieces(b, where, list)
	for _, delay := range []time.Duration{0, 20 * time.Millisecond} {
		for _, parallel := range []int{1, 8, 16} {
			b.Run(fmt.Sprintf("delay=%v/parallel=%d", delay, parallel), func(b *testing.B) {
				s.delay = delay
				s.requests.Store(0)
				b.SetBytes(size)
				for b.Loop() {
					if err := Fetch(b.Context(), s.open, want, parallel, func(int, []byte) error { return nil }); err != nil {
						b.Fatal(err)
					}
				}
				b.ReportMetric(float64(s.requests.Load())/float64(b.N), "requests")
			})
		}
	}
}

// BenchmarkSmall is a mount of 800 KB, there and back.
func BenchmarkSmall(b *testing.B) {
	files, _ := mount(800 << 10)
	for b.Loop() {
		s := newStore()
		list, where := save(b, s, map[key.Digest]Piece{}, files...)
		if err := Fetch(b.Context(), s.open, pieces(b, where, list), 8, func(int, []byte) error { return nil }); err != nil {
			b.Fatal(err)
		}
	}
}

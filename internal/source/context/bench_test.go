package context

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// benchFiles is the size of the context that the benchmarks scan: LARDER_BENCH_FILES, or 5000.
func benchFiles(b *testing.B) (dir string, n int) {
	b.Helper()
	n = 5000
	if v, err := strconv.Atoi(os.Getenv("LARDER_BENCH_FILES")); err == nil {
		n = v
	}
	dir = b.TempDir()
	body := make([]byte, 1500)
	for i := range n {
		p := filepath.Join(dir, fmt.Sprintf("package-%03d/src/module-%02d/file-number-%05d.js", i%200, i/200%20, i))
		if i < 20*200 {
			must(b, os.MkdirAll(filepath.Dir(p), 0o755))
		}
		copy(body, p)
		must(b, os.WriteFile(p, body, 0o644))
	}
	return dir, n
}

var ignore = []string{".git", "**/*.log", "**/*.tmp", "dist", "**/__pycache__", "*.md", "!README.md", "**/.DS_Store", "coverage/**", "**/test?.out"}

func BenchmarkScan(b *testing.B) {
	dir, n := benchFiles(b)
	for _, c := range []struct {
		name string
		opt  Options
		warm bool
	}{
		{"cold", Options{}, false},
		{"warm", Options{Cache: later(b)}, true},
		{"warm with dockerignore", Options{Cache: later(b), Exclude: ignore}, true},
	} {
		b.Run(c.name, func(b *testing.B) {
			if c.warm {
				_, _, err := Scan(b.Context(), dir, c.opt)
				must(b, err)
			}
			runtime.GC()
			b.ReportAllocs()
			rounds, cpu := 0, cpuTime(b)
			for b.Loop() {
				l, stats, err := Scan(b.Context(), dir, c.opt)
				must(b, err)
				if stats.Files != int64(n) || c.warm && stats.HashedFiles != 0 {
					b.Fatalf("%+v", stats)
				}
				runtime.KeepAlive(l)
				rounds++
			}
			// Of both cores; unlike the time on the wall it says something on a busy machine too.
			b.ReportMetric(float64((cpuTime(b)-cpu).Milliseconds())/float64(rounds), "cpu-ms/op")
			var mem runtime.MemStats
			runtime.ReadMemStats(&mem)
			b.ReportMetric(float64(mem.HeapSys)/1e6, "heap-MB")
		})
	}
}

func cpuTime(b *testing.B) time.Duration {
	var u unix.Rusage
	must(b, unix.Getrusage(unix.RUSAGE_SELF, &u))
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

package treefs

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// BenchmarkRead reads many small files, as a bundler does, and few large ones, through an overlay on a fresh mount each time: on a
// native directory, and on this file system. The programs that read are others'.
func BenchmarkRead(b *testing.B) {
	for _, size := range []struct {
		name  string
		files int
		bytes int
	}{
		{"20000x4K", 20_000, 4 << 10}, {"2000x64K", 2000, 64 << 10}, {"500x512K", 500, 512 << 10}, {"100x4M", 100, 4 << 20}, {"2x256M", 2, 256 << 20},
	} {
		rng := rand.New(rand.NewPCG(1, 2))
		s := draw(b)
		for i := range size.files {
			text := make([]byte, size.bytes/2+rng.IntN(size.bytes))
			for j := 0; j < len(text); j += 512 {
				text[j] = byte(rng.Uint32())
			}
			s.file(fmt.Sprintf("d%d/d%d/f%d", i%10, i/10%20, i), string(text))
		}
		stored, dir := s.written(true)
		edited := Part{stored.Root, plainFiles{stored.Contents}}
		must(b, exec.Command("sh", "-c", "sync; cat "+dir+"/*/*/* >/dev/null").Run())
		var nativeTime time.Duration
		for _, way := range []struct {
			name string
			part Part
			opt  Options
		}{
			{"native", Part{}, Options{}},
			{"copy", stored, Options{Copy: true}},
			{"copy-context", edited, Options{Copy: true}},
			{"auto", stored, Options{}},
			{"auto-context", edited, Options{}},
			{"pass", stored, Options{Passthrough: inMemory + 1}},
		} {
			for _, load := range []struct{ name, command string }{
				{"cat", "find . -type f -print0 | xargs -0 cat >/dev/null"},
				{"cat2", "find . -type f -print0 | xargs -0 -P2 -n500 cat >/dev/null"},
				{"twice", "find . -type f -print0 | xargs -0 cat >/dev/null; find . -type f -print0 | xargs -0 cat >/dev/null"},
			} {
				b.Run(size.name+"/"+load.name+"/"+way.name, func(b *testing.B) {
					var total, cpu, self time.Duration
					for b.Loop() {
						b.StopTimer()
						lower := dir
						var fs *FS
						if way.name != "native" {
							var err error
							fs, err = Mount(b.Context(), b.TempDir(), []Part{way.part}, way.opt)
							must(b, err)
							lower = fs.Dir(0)
						}
						before, selfBefore := cpuTime()
						total += inOverlay(b, lower, load.command)
						after, selfAfter := cpuTime()
						cpu += after - before
						self += selfAfter - selfBefore
						if fs != nil {
							must(b, fs.Err())
							must(b, fs.Close())
						}
						b.StartTimer()
					}
					per := total / time.Duration(b.N)
					b.ReportMetric(per.Seconds()*1000, "ms")
					b.ReportMetric(cpu.Seconds()*1000/float64(b.N), "cpu-ms")
					b.ReportMetric(self.Seconds()*1000/float64(b.N), "own-cpu-ms")
					if way.name == "native" {
						nativeTime = per
					} else if nativeTime > 0 {
						b.ReportMetric(per.Seconds()/nativeTime.Seconds(), "ratio")
					}
				})
			}
		}
	}
}

// inOverlay runs a shell command in an overlay on lower.
func inOverlay(b *testing.B, lower, command string) time.Duration {
	b.Helper()
	root, done := overlayOn(b, "on", lower)
	defer done()
	start := time.Now()
	cmd := exec.Command("sh", "-c", "cd "+filepath.Clean(root)+" && "+command)
	cmd.Stderr = os.Stderr
	must(b, cmd.Run())
	return time.Since(start)
}

// cpuTime is what this process and the programs that it ran have taken of the processors, and what of it was this process.
func cpuTime() (all, self time.Duration) {
	for _, who := range []int{unix.RUSAGE_SELF, unix.RUSAGE_CHILDREN} {
		var ru unix.Rusage
		if unix.Getrusage(who, &ru) == nil {
			sum := time.Duration(ru.Utime.Nano() + ru.Stime.Nano())
			all += sum
			if who == unix.RUSAGE_SELF {
				self = sum
			}
		}
	}
	return all, self
}

// BenchmarkLookUp looks up all directories of a part through an overlay on a fresh mount, as programs do that find their way: overlay
// asks of each whether it is opaque.
func BenchmarkLookUp(b *testing.B) {
	const dirs = 2000
	s := draw(b)
	for i := range dirs {
		s.put(fmt.Sprintf("d%d/d%d", i%20, i), dirNode(0o755))
	}
	p, dir := s.written(true)
	for _, way := range []string{"native", "served"} {
		b.Run(way, func(b *testing.B) {
			var total time.Duration
			for b.Loop() {
				b.StopTimer()
				lower := dir
				var fs *FS
				if way == "served" {
					var err error
					fs, err = Mount(b.Context(), b.TempDir(), []Part{p}, Options{})
					must(b, err)
					lower = fs.Dir(0)
				}
				root, done := overlayOn(b, "on", lower, b.TempDir())
				b.StartTimer()
				start := time.Now()
				for i := range dirs {
					var st unix.Stat_t
					must(b, unix.Stat(fmt.Sprintf("%s/d%d/d%d", root, i%20, i), &st))
				}
				total += time.Since(start)
				b.StopTimer()
				done()
				if fs != nil {
					must(b, fs.Close())
				}
				b.StartTimer()
			}
			b.ReportMetric(float64(total.Microseconds())/float64(b.N)/dirs, "us/dir")
		})
	}
}

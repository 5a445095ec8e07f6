package layer

import (
	"bytes"
	stdgzip "compress/gzip"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/sys/unix"

	"larder/internal/content"
)

// benchLayer is the layer that the benchmarks work on: a directory of the machine, $LARDER_BENCH_DIR or the Go
// sources (10,000 small files and more).
func benchLayer(b *testing.B) *Layer {
	b.Helper()
	dir := os.Getenv("LARDER_BENCH_DIR")
	if dir == "" {
		root, err := exec.Command("go", "env", "GOROOT").Output()
		if err != nil {
			b.Skipf("needs a directory to work on: %v", err)
		}
		dir = filepath.Join(strings.TrimSpace(string(root)), "src")
	}
	if _, err := os.Stat(dir); err != nil {
		b.Skipf("needs a directory to work on: %v", err)
	}
	return layerOf(b, dir)
}

func benchTar(b *testing.B, l *Layer) string {
	b.Helper()
	f, err := os.Create(filepath.Join(b.TempDir(), "layer.tar"))
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	if err := Write(b.Context(), f, l.root, l.Contents, WriteOptions{}); err != nil {
		b.Fatal(err)
	}
	return f.Name()
}

// BenchmarkUnpack unpacks a tar from the page cache, beside `tar x`, which does not hash.
func BenchmarkUnpack(b *testing.B) {
	needRoot(b)
	name := benchTar(b, benchLayer(b))
	st, err := os.Stat(name)
	if err != nil {
		b.Fatal(err)
	}
	run := func(what string, unpack func(dir string) error) {
		b.Run(what, func(b *testing.B) {
			b.SetBytes(st.Size())
			defer cpu(b)()
			for b.Loop() {
				dir, err := os.MkdirTemp("", "larder-bench-")
				if err != nil {
					b.Fatal(err)
				}
				if err := unpack(dir); err != nil {
					b.Fatal(err)
				}
				b.StopTimer()
				os.RemoveAll(dir)
				b.StartTimer()
			}
		})
	}
	run("larder", func(dir string) error {
		f, err := os.Open(name)
		if err != nil {
			return err
		}
		defer f.Close()
		_, err = Unpack(b.Context(), f, dir)
		return err
	})
	run("tar-x", func(dir string) error { return exec.Command("tar", "xf", name, "-C", dir).Run() })

	var gz bytes.Buffer
	z := stdgzip.NewWriter(&gz)
	f, err := os.Open(name)
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	if _, err := io.Copy(z, f); err != nil {
		b.Fatal(err)
	}
	z.Close()
	run("larder-gzip-blob", func(dir string) error {
		_, err := UnpackBlob(b.Context(), bytes.NewReader(gz.Bytes()), "", dir)
		return err
	})
	run("tar-xz-gzip-blob", func(dir string) error {
		cmd := exec.Command("tar", "xzf", "-", "-C", dir)
		cmd.Stdin = bytes.NewReader(gz.Bytes())
		return cmd.Run()
	})
}

// BenchmarkFromUpper reads a layer directory and hashes it, from the page cache.
func BenchmarkFromUpper(b *testing.B) {
	l := benchLayer(b)
	defer cpu(b)()
	for b.Loop() {
		if _, err := FromUpper(b.Context(), l.Contents.(*dirSource).dir); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkWrite writes the tar alone.
func BenchmarkWrite(b *testing.B) {
	l := benchLayer(b)
	defer cpu(b)()
	for b.Loop() {
		if err := Write(b.Context(), io.Discard, l.root, l.Contents, WriteOptions{}); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkMaterialise writes the layer as a directory.
func BenchmarkMaterialise(b *testing.B) {
	needRoot(b)
	l := benchLayer(b)
	defer cpu(b)()
	for b.Loop() {
		dir, err := os.MkdirTemp("", "larder-bench-")
		if err != nil {
			b.Fatal(err)
		}
		if err := Materialise(b.Context(), l.root, l.Contents, dir); err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		os.RemoveAll(dir)
		b.StartTimer()
	}
}

// BenchmarkExport compares compressions: time, and size in percent of what BuildKit's default makes. "buildkit" is
// its compressor on the same tar in memory, without reading files or storing blobs, so its times flatter it.
func BenchmarkExport(b *testing.B) {
	l := benchLayer(b)
	tarFile := benchTar(b, l)
	st, err := os.Stat(tarFile)
	if err != nil {
		b.Fatal(err)
	}
	var base int64
	reference := func(name string, writer func(io.Writer) io.WriteCloser) {
		b.Run(name, func(b *testing.B) {
			tar, err := os.ReadFile(tarFile)
			if err != nil {
				b.Fatal(err)
			}
			b.SetBytes(st.Size())
			defer cpu(b)()
			var n countWriter
			for b.Loop() {
				n = 0
				z := writer(&n)
				if _, err := z.Write(tar); err != nil {
					b.Fatal(err)
				}
				z.Close()
			}
			if base == 0 {
				base = int64(n)
			}
			b.ReportMetric(float64(n)*100/float64(base), "%size")
		})
	}
	reference("buildkit-gzip", func(w io.Writer) io.WriteCloser { return stdgzip.NewWriter(w) })
	reference("buildkit-zstd", func(w io.Writer) io.WriteCloser {
		z, err := zstd.NewWriter(w)
		if err != nil {
			b.Fatal(err)
		}
		return z
	})
	for _, c := range []struct {
		c      Compression
		levels []int
	}{{Gzip, []int{1, 3, 4, 5, 6, 7, 9}}, {Zstd, []int{1, 3, 7}}} {
		for _, level := range c.levels {
			b.Run(fmt.Sprintf("larder-%s-%d", c.c, level), func(b *testing.B) {
				b.SetBytes(st.Size())
				defer cpu(b)()
				defer cpu(b)()
				var size int64
				for b.Loop() {
					b.StopTimer()
					store, err := content.Open(b.TempDir())
					if err != nil {
						b.Fatal(err)
					}
					b.StartTimer()
					blob, err := Export(b.Context(), l, store, ExportOptions{Compression: c.c, Level: &level})
					if err != nil {
						b.Fatal(err)
					}
					b.StopTimer()
					size = blob.Desc.Size
					store.Close()
					os.RemoveAll(store.Dir())
					b.StartTimer()
				}
				if base > 0 {
					b.ReportMetric(float64(size)*100/float64(base), "%size")
				}
			})
		}
	}
}

// cpu reports the processor time per operation, children included: on a busy machine it says more than the clock.
func cpu(b *testing.B) func() {
	start := cpuTime(b)
	return func() { b.ReportMetric(float64(cpuTime(b)-start)/1e6/float64(b.N), "cpu-ms/op") }
}

func cpuTime(b *testing.B) (ns int64) {
	for _, who := range []int{unix.RUSAGE_SELF, unix.RUSAGE_CHILDREN} {
		var u unix.Rusage
		if err := unix.Getrusage(who, &u); err != nil {
			b.Fatal(err)
		}
		ns += u.Utime.Nano() + u.Stime.Nano()
	}
	return ns
}

type countWriter int64

func (c *countWriter) Write(p []byte) (int, error) {
	*c += countWriter(len(p))
	return len(p), nil
}

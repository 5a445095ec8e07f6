package tree

import (
	"bytes"
	"fmt"
	"io"
	"testing"

	"larder/internal/key"
)

func big(b *testing.B) *Node {
	var dirs []Entry
	for d := range 500 {
		var files []Entry
		for f := range 100 {
			files = append(files, Entry{fmt.Sprintf("file%03d.go", f), &Node{Kind: File, Meta: Meta{Mode: 0o644, MTime: int64(f)}, Size: 10, Content: key.Bytes(fmt.Append(nil, d, f))}})
		}
		n, err := NewDir(Meta{Mode: 0o755}, false, files)
		if err != nil {
			b.Fatal(err)
		}
		dirs = append(dirs, Entry{fmt.Sprintf("dir%03d", d), n})
	}
	n, err := NewDir(Meta{Mode: 0o755}, false, dirs)
	if err != nil {
		b.Fatal(err)
	}
	return n
}

// The numbers are for 50,000 files in 500 directories.

func BenchmarkIdentity(b *testing.B) {
	for b.Loop() {
		b.StopTimer()
		n := big(b)
		b.StartTimer()
		if _, err := n.Identity(); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkEncode(b *testing.B) {
	n := big(b)
	b.ReportAllocs()
	for b.Loop() {
		if err := Encode(io.Discard, n); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkDecodeAll(b *testing.B) {
	var buf bytes.Buffer
	if err := Encode(&buf, big(b)); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	b.ReportMetric(float64(buf.Len()), "file-bytes")
	for b.Loop() {
		n, err := Decode(bytes.NewReader(buf.Bytes()), int64(buf.Len()))
		if err != nil {
			b.Fatal(err)
		}
		if err := Walk(n, func(string, *Node) error { return nil }); err != nil {
			b.Fatal(err)
		}
	}
}

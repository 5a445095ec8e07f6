package main

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
)

// The files workload: 50,000 files in 500 directories, 20 bytes to 24 kB, 2.7 kB on average, of words, so that they
// compress as sources do. Every run generates the same bytes.
const (
	fileDirs    = 500
	filesPerDir = 100
)

func generateFiles(dir string) error {
	for d := range fileDirs {
		if err := writeFileDir(dir, d, 0); err != nil {
			return err
		}
	}
	return nil
}

// writeFileDir writes one directory; another generation gives all its files new contents.
func writeFileDir(dir string, d, generation int) error {
	path := filepath.Join(dir, "data", fmt.Sprintf("part%d", d/50), fmt.Sprintf("pkg%03d", d))
	if err := os.MkdirAll(path, 0o755); err != nil {
		return err
	}
	r := rand.New(rand.NewPCG(uint64(d), uint64(generation)))
	var buf bytes.Buffer
	for f := range filesPerDir {
		buf.Reset()
		fmt.Fprintf(&buf, "file %d of %d\n", f, d)
		size := r.IntN(600) + r.IntN(600)*r.IntN(40)*r.IntN(2)/2
		for buf.Len() < size {
			fmt.Fprintf(&buf, "%s %s %x\n", words[r.IntN(len(words))], words[r.IntN(len(words))], r.Uint32N(1<<16))
		}
		if err := os.WriteFile(filepath.Join(path, fmt.Sprintf("f%02d.txt", f)), buf.Bytes(), 0o644); err != nil {
			return err
		}
	}
	return nil
}

var words = []string{
	"layer", "record", "digest", "return", "function", "observe", "registry", "directory", "if", "else", "range", "string",
	"import", "package", "context", "error", "value", "catalog", "snapshot", "compress", "the", "of", "and", "for",
}

// fileOfLine is where one line changes: another file each time.
func fileOfLine(n int) string {
	d := n % fileDirs
	return filepath.Join("data", fmt.Sprintf("part%d", d/50), fmt.Sprintf("pkg%03d", d), "f00.txt")
}

func fileLine(path string, n int) error {
	return os.WriteFile(path, fmt.Appendf(nil, "revision %d\n", n), 0o644)
}

// fileDirectory replaces one directory's hundred files, as an update of something vendored does.
func fileDirectory(dir string, n int) error { return writeFileDir(dir, fileDirs-n, n) }

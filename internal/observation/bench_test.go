package observation

import (
	"fmt"
	"testing"

	"larder/internal/key"
	"larder/internal/tree"
)

// big has 50,000 files in 500 directories, two deep. The numbers are for it.
func big(b *testing.B) *tree.Node {
	dir := func(entries []tree.Entry) *tree.Node {
		n, err := tree.NewDir(tree.Meta{Mode: 0o755}, false, entries)
		if err != nil {
			b.Fatal(err)
		}
		return n
	}
	var tops []tree.Entry
	for p := range 50 {
		var dirs []tree.Entry
		for d := range 10 {
			var files []tree.Entry
			for f := range 100 {
				files = append(files, tree.Entry{Name: fmt.Sprintf("file%03d.js", f), Node: &tree.Node{
					Kind: tree.File, Meta: tree.Meta{Mode: 0o644}, Size: 10, Content: key.Bytes(fmt.Append(nil, p, d, f)),
				}})
			}
			dirs = append(dirs, tree.Entry{Name: fmt.Sprintf("lib-%d", d), Node: dir(files)})
		}
		tops = append(tops, tree.Entry{Name: fmt.Sprintf("package%02d", p), Node: dir(dirs)})
	}
	return dir([]tree.Entry{{Name: "node_modules", Node: dir(tops)}})
}

// read are looks at two files of five, and at directories as far as they lead there: 20,000 and some. A program that finds its
// files by trying looks for some that are not there.
func read(b *testing.B, root *tree.Node) []Look {
	var out []Look
	i := 0
	err := tree.Walk(root, func(path string, n *tree.Node) error {
		switch {
		case n.Kind == tree.Dir:
			out = append(out, Look{path, Entry})
		case i%5 == 0:
			out = append(out, Look{path, Entry | Content})
		case i%5 == 1:
			out = append(out, Look{path + ".ts", Entry})
		}
		if n.Kind != tree.Dir {
			i++
		}
		return nil
	})
	if err != nil {
		b.Fatal(err)
	}
	return out
}

func BenchmarkValues(b *testing.B) {
	root := big(b)
	looks, err := Reduce(read(b, root), root, MaxLooks)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Values(looks, root); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(len(looks)), "looks")
}

func BenchmarkReduce(b *testing.B) {
	root := big(b)
	all := read(b, root)
	for _, most := range []int{MaxLooks, 5000} {
		b.Run(fmt.Sprint(most), func(b *testing.B) {
			b.ReportAllocs()
			n := 0
			for b.Loop() {
				out, err := Reduce(all, root, most)
				if err != nil {
					b.Fatal(err)
				}
				n = len(out)
			}
			b.ReportMetric(float64(n), "looks")
		})
	}
}

func BenchmarkSet(b *testing.B) {
	root := big(b)
	looks, err := Reduce(read(b, root), root, MaxLooks)
	if err != nil {
		b.Fatal(err)
	}
	set := Set{[][]Look{looks}}
	blob, err := set.MarshalBinary()
	if err != nil {
		b.Fatal(err)
	}
	b.Run("marshal", func(b *testing.B) {
		for b.Loop() {
			if _, err := set.MarshalBinary(); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(float64(len(blob)), "bytes")
	})
	b.Run("unmarshal", func(b *testing.B) {
		for b.Loop() {
			var s Set
			if err := s.UnmarshalBinary(blob); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("digest", func(b *testing.B) {
		for b.Loop() {
			set.Digest()
		}
	})
}

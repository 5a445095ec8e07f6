package snapshot

import (
	"fmt"
	"testing"

	"larder/internal/key"
	"larder/internal/layer"
	"larder/internal/tree"
)

// manyFiles is a layer of 20,000 small files in 200 directories.
func manyFiles(b *testing.B, mtime int64) *layer.Layer {
	b.Helper()
	bodies := map[key.Digest][]byte{}
	var dirs []tree.Entry
	for d := range 200 {
		var files []tree.Entry
		for i := range 100 {
			body := fmt.Appendf(nil, "%d/%d%2000d", d, i, i)
			n := &tree.Node{Kind: tree.File, Meta: tree.Meta{Mode: 0o644, MTime: mtime}, Size: int64(len(body)), Content: key.Bytes(body)}
			bodies[n.Content] = body
			files = append(files, tree.Entry{Name: fmt.Sprint("f", i), Node: n})
		}
		dirs = append(dirs, tree.Entry{Name: fmt.Sprint("d", d), Node: must(tree.NewDir(tree.Meta{Mode: 0o755, MTime: mtime}, false, files))})
	}
	root := must(tree.NewDir(tree.Meta{Mode: 0o755, MTime: mtime}, false, dirs))
	return layer.New(must(root.Identity()), true, root, layer.Literal(bodies))
}

// BenchmarkStored unpacks a copy of a layer, with and without its tree, which adds dating the files to the nanosecond.
func BenchmarkStored(b *testing.B) {
	made, blobs := manyFiles(b, 1e18+1), openBlobs(b)
	blob, _ := remoteCopyOf(b, made, blobs, layer.ExportOptions{})
	for _, withTree := range []bool{false, true} {
		b.Run(fmt.Sprintf("tree=%v", withTree), func(b *testing.B) {
			s := openStore(b, b.TempDir(), Options{})
			for b.Loop() {
				l := s.Stored(made.Identity, true, blob, nil)
				if withTree {
					l = s.Stored(made.Identity, true, blob, known(b, made))
				}
				if _, err := s.Dir(b.Context(), l); err != nil {
					b.Fatal(err)
				}
				b.StopTimer()
				s.forget(b, made.Identity)
				b.StartTimer()
			}
		})
	}
}

// BenchmarkAdopt gives a layer times that it has, and others.
func BenchmarkAdopt(b *testing.B) {
	s, made := openStore(b, b.TempDir(), Options{}), manyFiles(b, 1)
	if _, err := s.Dir(b.Context(), made); err != nil {
		b.Fatal(err)
	}
	roots := []*tree.Node{must(made.Tree(b.Context())), must(manyFiles(b, 2).Tree(b.Context()))}
	for i, name := range []string{"same", "others"} {
		b.Run(name, func(b *testing.B) {
			for n := 0; b.Loop(); n++ {
				if err := s.Adopt(b.Context(), made.Identity, roots[(n*i)%2]); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

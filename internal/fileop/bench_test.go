package fileop

import (
	"fmt"
	"testing"

	"github.com/moby/buildkit/solver/pb"

	"larder/internal/key"
	"larder/internal/layer"
	"larder/internal/tree"
)

// BenchmarkCopy50k copies a context of 50,000 files onto a base, as COPY . /app does, with and without a new owner.
func BenchmarkCopy50k(b *testing.B) {
	var dirs []tree.Entry
	for d := range 500 {
		var files []tree.Entry
		for f := range 100 {
			files = append(files, tree.Entry{Name: fmt.Sprintf("f%03d.go", f), Node: &tree.Node{Kind: tree.File, Size: 10, Content: key.Bytes(fmt.Append(nil, d, f))}})
		}
		dirs = append(dirs, tree.Entry{Name: fmt.Sprintf("d%03d", d), Node: mustDir(tree.Meta{Mode: 0o755}, files...)})
	}
	src := mustDir(tree.Meta{Mode: 0o755}, dirs...)
	chown := func(c *pb.FileActionCopy) { c.Owner = &pb.ChownOpt{User: &pb.UserOpt{User: &pb.UserOpt_ByID{ByID: 3}}} }
	exclude := func(c *pb.FileActionCopy) { c.ExcludePatterns = []string{"**/*.md", "d000"} }
	for name, op := range map[string]*pb.FileOp{
		"plain": copyOp("/", "/app/"), "chown": copyOp("/", "/app/", chown), "exclude": copyOp("/", "/app/", exclude)} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if _, err := Apply(b.Context(), op, []*layer.State{nil, layer.Stack(layer.New(key.Digest{}, false, src, nil))}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

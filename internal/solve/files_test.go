package solve

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/moby/buildkit/client/llb"

	"larder/internal/layer"
	"larder/internal/record"
)

// TestATreeThatIsDamagedCostsWorkOnly damages, empties and deletes the stored tree of a file operation, before it is looked
// up and after it was believed: the state comes out as from nothing, and the next build finds all in order.
func TestATreeThatIsDamagedCostsWorkOnly(t *testing.T) {
	for name, harm := range map[string]func(path string) error{
		"emptied": func(path string) error { return os.Truncate(path, 0) },
		"deleted": os.Remove,
		"flipped": func(path string) error {
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			b[len(b)/2] ^= 1
			return os.WriteFile(path, b, 0o600)
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			dir := t.TempDir()
			var err error
			if w.records, err = record.Open(dir); err != nil {
				t.Fatal(err)
			}
			def := definition(t, llb.Image("base").File(llb.Mkdir("/d", 0o700).Mkfile("/d/x", 0o600, []byte("hello"))))
			evaluate := func() *layer.State {
				t.Helper()
				st, err := w.solver(0).Evaluate(context.Background(), def)
				if err != nil {
					t.Fatal(err)
				}
				return st
			}
			content := func(st *layer.State) {
				t.Helper()
				root, err := st.Merged(context.Background())
				if err != nil {
					t.Fatal(err)
				}
				d, _ := root.Lookup("d")
				if d == nil {
					t.Fatal("/d is missing")
				}
				f, _ := d.Lookup("x")
				if f == nil || f.Mode != 0o600 {
					t.Fatalf("/d/x is %+v", f)
				}
				r, err := st.Contents().Open(context.Background(), f.Content, f.Size)
				if err != nil {
					t.Fatal(err)
				}
				r.Close()
			}
			harmAll := func() {
				t.Helper()
				trees, _ := filepath.Glob(filepath.Join(dir, "trees", "*", "*"))
				if len(trees) == 0 {
					t.Fatal("no tree is stored")
				}
				for _, path := range trees {
					if err := harm(path); err != nil {
						t.Fatal(err)
					}
				}
			}
			first := evaluate()
			id := first.Top().Identity
			harmAll()
			content(evaluate())
			believed := evaluate() // its tree is not read yet
			if trees, _ := filepath.Glob(filepath.Join(dir, "trees", "*", "*")); len(trees) > 0 {
				harmAll()
			}
			content(believed)
			for range 2 {
				st := evaluate()
				content(st)
				if st.Top().Identity != id {
					t.Error("another identity")
				}
			}
			if trees, _ := filepath.Glob(filepath.Join(dir, "trees", "*", "*")); len(trees) == 0 {
				t.Error("no tree was stored again")
			}
		})
	}
}

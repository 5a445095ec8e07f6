package internal_test

import (
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// rooms lists the packages from the top of the house to the bottom (docs/design.md section 6). Packages of one line stand
// beside each other and do not import each other.
var rooms = [][]string{
	{"cmd/larder"},
	{"internal/cli"},
	{"internal/build"},
	{"internal/frontend", "internal/automount", "internal/hints"},
	{"internal/solve"},
	{"internal/fileop", "internal/runstep"},
	{"internal/runtime", "internal/cachemount"},
	{"internal/export/registry", "internal/export/oci", "internal/export/docker", "internal/export/local", "internal/export/tarball", "internal/export/store"},
	{"internal/export", "internal/cacheref"},
	{"internal/image"},
	{"internal/source/image", "internal/source/context"},
	{"internal/cache", "internal/inline"},
	{"internal/snapshot"},
	{"internal/treefs"},
	{"internal/catalog"},
	{"internal/generation"},
	{"internal/layout", "internal/pack", "internal/ledger"},
	{"internal/record"},
	{"internal/remote/registry", "internal/remote/local", "internal/remote/s3"},
	{"internal/remote"},
	{"internal/registry"},
	{"internal/layer"},
	{"internal/content"},
	{"internal/flock"},
	{"internal/disk"},
	{"internal/report"},
	{"internal/observation"},
	{"internal/tree"},
	{"internal/key"},
	{"internal/progress", "internal/fault"},
}

// outside lists packages that are no part of the program: tests and tools may use them, rooms may not.
var outside = []string{"internal/testregistry", "internal/remote/storetest"}

// TestImportsPointDownwards fails where a room imports one that stands beside or above it, or one that is not listed.
func TestImportsPointDownwards(t *testing.T) {
	level := map[string]int{}
	for i, row := range rooms {
		for _, r := range row {
			level[r] = i
		}
	}
	for _, top := range []string{"../cmd", "."} {
		err := filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return err
			}
			room := filepath.ToSlash(filepath.Join("internal", filepath.Dir(path)))
			for _, o := range outside {
				if room == o {
					return nil
				}
			}
			mine, ok := level[room]
			if !ok {
				t.Errorf("%s: the room %s is not in the list: add it here and to docs/design.md", path, room)
				return nil
			}
			f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
			if err != nil {
				return err
			}
			for _, imp := range f.Imports {
				name, err := strconv.Unquote(imp.Path.Value)
				if err != nil {
					return err
				}
				name, ok := strings.CutPrefix(name, "larder/")
				if !ok {
					continue
				}
				if theirs, ok := level[name]; !ok {
					t.Errorf("%s imports %s, which is not in the list of rooms", path, name)
				} else if theirs <= mine {
					t.Errorf("%s: %s imports %s, which does not stand below it", path, room, name)
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

// TestRoomsAreDocumented keeps docs/design.md and the list above together.
func TestRoomsAreDocumented(t *testing.T) {
	b, err := os.ReadFile("../docs/design.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range rooms {
		for _, r := range row {
			if strings.HasPrefix(r, "internal/export/") {
				r = "internal/export/*" // one line for all sinks
			}
			if !strings.Contains(string(b), r) {
				t.Errorf("docs/design.md does not name the room %s", r)
			}
		}
	}
}

package context

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"larder/internal/key"
	"larder/internal/tree"
)

// write makes files below dir: a name that ends with a slash is a directory, a content that starts with "-> " a symlink.
func write(t testing.TB, dir string, files map[string]string) {
	t.Helper()
	for name, content := range files {
		p := filepath.Join(dir, name)
		must(t, os.MkdirAll(filepath.Dir(p), 0o755))
		if strings.HasSuffix(name, "/") {
			must(t, os.MkdirAll(p, 0o755))
		} else if target, ok := strings.CutPrefix(content, "-> "); ok {
			must(t, os.Symlink(target, p))
		} else {
			must(t, os.WriteFile(p, []byte(content), 0o644))
		}
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// paths lists a tree, directories with a slash at the end.
func paths(t testing.TB, root *tree.Node) []string {
	t.Helper()
	var out []string
	must(t, tree.Walk(root, func(path string, n *tree.Node) error {
		if path == "" {
			return nil
		}
		if n.Kind == tree.Dir {
			path += "/"
		}
		out = append(out, path)
		return nil
	}))
	return out
}

func scanned(t testing.TB, dir string, opt Options) (*tree.Node, Stats) {
	t.Helper()
	l, stats, err := Scan(t.Context(), dir, opt)
	must(t, err)
	root, err := l.Tree(t.Context())
	must(t, err)
	return root, stats
}

func TestScanTakesFilesDirectoriesAndLinks(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, map[string]string{"a": "hello", "d/b": "world", "d/l": "-> ../a", "e/": ""})
	must(t, os.Chmod(filepath.Join(dir, "a"), 0o711|os.ModeSetuid))
	l, stats, err := Scan(t.Context(), dir, Options{})
	must(t, err)
	root, err := l.Tree(t.Context())
	must(t, err)
	if got := strings.Join(paths(t, root), " "); got != "a d/ d/b d/l e/" {
		t.Fatal(got)
	}
	if stats != (Stats{Files: 3, Bytes: 10, HashedFiles: 2, HashedBytes: 10}) {
		t.Errorf("%+v", stats)
	}
	a, err := root.Lookup("a")
	must(t, err)
	if a.Mode != 0o4711 || a.Size != 5 || a.Content != key.Bytes([]byte("hello")) {
		t.Errorf("%+v", a)
	}
	r, err := l.Contents.Open(t.Context(), a.Content, 5)
	must(t, err)
	defer r.Close()
	if data, err := io.ReadAll(r); err != nil || string(data) != "hello" {
		t.Errorf("%q %v", data, err)
	}
}

func TestScanFilters(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, map[string]string{
		"a.go": "", "b.md": "", "d/a.go": "", "d/keep/x": "", "d/keep/y.md": "", "n/m/z": "", "link": "-> d/keep",
	})
	for _, c := range []struct {
		name string
		opt  Options
		want string
	}{
		{"exclude", Options{Exclude: []string{"**/*.md", "n"}}, "a.go d/ d/a.go d/keep/ d/keep/x link"},
		{"exception below an excluded directory", Options{Exclude: []string{"d", "!d/keep/x"}}, "a.go b.md d/ d/keep/ d/keep/x link n/ n/m/ n/m/z"},
		{"include", Options{Include: []string{"n/m"}}, "n/ n/m/ n/m/z"},
		{"follow", Options{FollowPaths: []string{"link/x"}}, "d/ d/keep/ d/keep/x link"},
		{"follow a wildcard", Options{FollowPaths: []string{"*.go"}}, "a.go"},
		{"follow the root", Options{FollowPaths: []string{"."}, Exclude: []string{"d", "n"}}, "a.go b.md link"},
		{"nothing", Options{Include: []string{"absent"}}, ""},
	} {
		root, _ := scanned(t, dir, c.opt)
		if got := strings.Join(paths(t, root), " "); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}

func TestScanStopsWhenCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := Scan(ctx, t.TempDir(), Options{}); err == nil {
		t.Fatal("no error")
	}
}

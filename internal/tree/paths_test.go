package tree

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/containerd/continuity/fs"
	"pgregory.net/rapid"
)

// TestRooted compares Resolve with containerd's RootPath on disk.
func TestRooted(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		dir, err := os.MkdirTemp(t.TempDir(), "")
		if err != nil {
			rt.Fatal(err)
		}
		defer os.RemoveAll(dir)
		root := drawLinks(rt, dir, 2)
		name := drawPath(rt)
		want, wantErr := fs.RootPath(dir, name)
		got, n, err := Resolve(root, name, true)
		if (err == nil) != (wantErr == nil) {
			rt.Fatalf("%s: %v, containerd says %v", name, err, wantErr)
		}
		if err != nil {
			return
		}
		if want = filepath.Join("/", strings.TrimPrefix(want, dir)); got != want {
			rt.Fatalf("%s leads to %s, containerd says %s", name, got, want)
		}
		if _, err := os.Lstat(filepath.Join(dir, want)); (err == nil) != (n != nil) {
			rt.Fatalf("%s: node %v, but %v", name, n, err)
		}
	})
}

var linkNames = []string{"a", "b", "l", "m"}

func drawPath(t *rapid.T) string {
	parts := rapid.SliceOfN(rapid.SampledFrom([]string{"a", "b", "l", "m", "..", ".", "x"}), 1, 5).Draw(t, "path")
	return "/" + strings.Join(parts, "/")
}

// drawLinks makes directories, files and relative links that stay inside, on disk and as a tree. (containerd looks through
// an absolute link in the middle of a path with the host's root, which a test cannot compare.)
func drawLinks(t *rapid.T, dir string, depth int) *Node {
	var entries []Entry
	for _, name := range linkNames {
		at := filepath.Join(dir, name)
		switch rapid.IntRange(0, 4).Draw(t, "kind") {
		case 0:
			if depth > 0 {
				if err := os.Mkdir(at, 0o755); err != nil {
					t.Fatal(err)
				}
				entries = append(entries, Entry{name, drawLinks(t, at, depth-1)})
			}
		case 1, 2:
			link := rapid.SampledFrom([]string{"a", "b", "a/b", "l", "m/a", "./b", "x", "a/../b"}).Draw(t, "link")
			if err := os.Symlink(link, at); err != nil {
				t.Fatal(err)
			}
			entries = append(entries, Entry{name, &Node{Kind: Symlink, Link: link}})
		case 3:
			if err := os.WriteFile(at, nil, 0o644); err != nil {
				t.Fatal(err)
			}
			entries = append(entries, Entry{name, &Node{Kind: File}})
		}
	}
	d, err := NewDir(Meta{Mode: 0o755}, false, entries)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestResolve(t *testing.T) {
	dir := func(entries ...Entry) *Node {
		d, err := NewDir(Meta{Mode: 0o755}, false, entries)
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	link := func(to string) *Node { return &Node{Kind: Symlink, Link: to} }
	root := dir(
		Entry{"bin", link("usr/bin")},
		Entry{"esc", link("../../../usr")},
		Entry{"file", &Node{Kind: File}},
		Entry{"loop", link("/loop")},
		Entry{"out", link("/usr/none")},
		Entry{"usr", dir(Entry{"bin", dir(Entry{"sh", link("/usr/bin/dash")}, Entry{"dash", &Node{Kind: File}})})},
	)
	for _, c := range []struct {
		path   string
		follow bool
		clean  string
		found  bool
		err    error
	}{
		{"/bin/sh", true, "/usr/bin/dash", true, nil},
		{"/bin/sh", false, "/usr/bin/sh", true, nil},
		{"bin", false, "/bin", true, nil},
		{"esc/bin", true, "/usr/bin", true, nil},
		{"../../bin/../bin", true, "/usr/bin", true, nil}, // of what bin leads to
		{"out", true, "/usr/none", false, nil},
		{"none/x", true, "/none/x", false, nil},
		{"file/x", true, "", false, syscall.ENOTDIR},
		{"loop", true, "", false, syscall.ELOOP},
		{"/", true, "/", true, nil},
	} {
		clean, n, err := Resolve(root, c.path, c.follow)
		if clean != c.clean || (n != nil) != c.found || !errors.Is(err, c.err) {
			t.Errorf("%s: %q %v %v", c.path, clean, n, err)
		}
	}
}

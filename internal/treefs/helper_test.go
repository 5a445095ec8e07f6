package treefs

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"larder/internal/key"
	"larder/internal/layer"
	"larder/internal/tree"
)

// sketch builds a part: paths and what is there.
type sketch struct {
	t       testing.TB
	entries map[string][]tree.Entry // by directory
	dirs    map[string]*tree.Node   // their metadata
	bytes   map[key.Digest][]byte
}

func draw(t testing.TB) *sketch {
	return &sketch{t: t, entries: map[string][]tree.Entry{}, dirs: map[string]*tree.Node{"": dirNode(0o755)}, bytes: map[key.Digest][]byte{}}
}

func dirNode(mode uint32) *tree.Node {
	return &tree.Node{Kind: tree.Dir, Meta: tree.Meta{Mode: mode, MTime: 1_600_000_000_000_000_001}}
}

// put adds a node, and directories that lead to it.
func (s *sketch) put(path string, n *tree.Node) *sketch {
	dir, name := filepath.Split(path)
	dir = strings.TrimSuffix(dir, "/")
	if n.Kind == tree.Dir {
		if _, ok := s.dirs[path]; ok {
			s.t.Fatalf("%s twice", path)
		}
		s.dirs[path] = n
	}
	if s.dirs[dir] == nil {
		s.put(dir, dirNode(0o755))
	}
	s.entries[dir] = append(s.entries[dir], tree.Entry{Name: name, Node: n})
	return s
}

func (s *sketch) file(path, text string) *sketch {
	return s.put(path, s.fileNode(text, 0o644))
}

func (s *sketch) fileNode(text string, mode uint32) *tree.Node {
	d := key.Bytes([]byte(text))
	s.bytes[d] = []byte(text)
	return &tree.Node{Kind: tree.File, Meta: tree.Meta{Mode: mode, MTime: 1_500_000_000_000_000_002}, Size: int64(len(text)), Content: d}
}

func (s *sketch) link(path, target string) *sketch {
	return s.put(path, &tree.Node{Kind: tree.Symlink, Meta: tree.Meta{Mode: 0o777}, Link: target})
}

func (s *sketch) whiteout(path string) *sketch { return s.put(path, &tree.Node{Kind: tree.Whiteout}) }

func (s *sketch) opaque(path string) *sketch {
	n := dirNode(0o755)
	n.Opaque = true
	return s.put(path, n)
}

func (s *sketch) dir(path string) *tree.Node {
	d := s.dirs[path]
	entries := slices.Clone(s.entries[path])
	for i, e := range entries {
		if e.Node.Kind == tree.Dir {
			entries[i].Node = s.dir(tree.Join(path, e.Name))
		}
	}
	n, err := tree.NewDir(d.Meta, d.Opaque, entries)
	if err != nil {
		s.t.Fatal(err)
	}
	return n
}

func (s *sketch) part() Part { return Part{Root: s.dir(""), Contents: layer.Literal(s.bytes)} }

// written gives a part whose contents are files of a directory on disk: of a stored layer, or such as anybody may edit.
func (s *sketch) written(stored bool) (Part, string) {
	s.t.Helper()
	p, dir := s.part(), s.t.TempDir()
	if err := layer.Materialise(s.t.Context(), p.Root, p.Contents, dir); err != nil {
		s.t.Fatal(err)
	}
	p.Contents = layer.DirSource(dir, p.Root)
	if !stored {
		p.Contents = plainFiles{p.Contents}
	}
	return p, dir
}

// plainFiles is a context: what it opens anybody may edit.
type plainFiles struct{ layer.Source }

func (p plainFiles) Open(ctx context.Context, d key.Digest, size int64) (io.ReadCloser, error) {
	r, err := p.Source.Open(ctx, d, size)
	if f, ok := r.(*layer.StoredFile); ok {
		return f.File, err
	}
	return r, err
}

// show mounts parts.
func show(t testing.TB, opt Options, parts ...Part) *FS {
	t.Helper()
	return showFor(t, t.Context(), opt, parts...)
}

func showFor(t testing.TB, ctx context.Context, opt Options, parts ...Part) *FS {
	t.Helper()
	dir := t.TempDir()
	if opt.Temp == "" {
		opt.Temp = t.TempDir()
	}
	fs, err := Mount(ctx, dir, parts, opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := fs.Close(); err != nil {
			t.Error(err)
		}
		if isMounted(t, dir) {
			t.Errorf("%s stays mounted", dir)
		}
	})
	return fs
}

func isMounted(t testing.TB, dir string) bool {
	t.Helper()
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	return bytes.Contains(b, []byte(" "+dir+" "))
}

// over mounts an overlay whose lowers are given, the topmost first, and gives its root. It is unmounted before the file system is.
func over(t testing.TB, lowers ...string) string {
	t.Helper()
	root, done := overlayOn(t, "on", lowers...)
	t.Cleanup(done)
	return root
}

func overlayOn(t testing.TB, xino string, lowers ...string) (root string, done func()) {
	t.Helper()
	dir := t.TempDir()
	for _, d := range []string{"upper", "work", "root"} {
		must(t, os.Mkdir(filepath.Join(dir, d), 0o755))
	}
	root = filepath.Join(dir, "root")
	opts := fmt.Sprintf("lowerdir=%s,upperdir=%s/upper,workdir=%s/work,redirect_dir=off,metacopy=off,index=off,xino=%s", strings.Join(lowers, ":"), dir, dir, xino)
	if err := unix.Mount("overlay", root, "overlay", 0, opts); err != nil {
		t.Fatalf("mount overlay: %v", err)
	}
	return root, func() {
		if err := unix.Unmount(root, 0); err != nil {
			t.Error(err)
		}
	}
}

// native makes a directory with these files ("path=text").
func native(t testing.TB, files ...string) string {
	t.Helper()
	dir := t.TempDir()
	for _, f := range files {
		path, text, _ := strings.Cut(f, "=")
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, path)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, path), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// looked gives the looks at a part as one string: "path=ELC", sorted.
func looked(fs *FS, i int) string {
	var out []string
	for _, l := range fs.Looks(i) {
		var kinds strings.Builder
		for j, letter := range "ELC" {
			if l.Kind&(1<<j) != 0 {
				kinds.WriteRune(letter)
			}
		}
		out = append(out, l.Path+"="+kinds.String())
	}
	return strings.Join(out, " ")
}

func read(t testing.TB, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

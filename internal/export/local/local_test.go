package local

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"larder/internal/key"
	"larder/internal/layer"
	"larder/internal/tree"
)

// files makes a tree: "dir/" a directory, "->" a link, else text.
func files(t *testing.T, list map[string]string) Part {
	t.Helper()
	contents := map[key.Digest][]byte{}
	var build func(prefix string) *tree.Node
	build = func(prefix string) *tree.Node {
		nodes := map[string]*tree.Node{}
		for p, v := range list {
			rest, ok := strings.CutPrefix(p, prefix)
			if !ok || rest == "" {
				continue
			}
			name, below, isDir := strings.Cut(rest, "/")
			switch {
			case isDir:
				nodes[name] = build(prefix + name + "/")
			case strings.HasPrefix(v, "->"):
				nodes[name] = &tree.Node{Kind: tree.Symlink, Meta: tree.Meta{Mode: 0o777, MTime: 1e18}, Link: v[2:]}
			case v == "fifo":
				nodes[name] = &tree.Node{Kind: tree.Fifo, Meta: tree.Meta{Mode: 0o640, MTime: 1e18}}
			default:
				d := key.Bytes([]byte(v))
				contents[d] = []byte(v)
				nodes[name] = &tree.Node{Kind: tree.File, Meta: tree.Meta{Mode: 0o4751, MTime: 1e18}, Size: int64(len(v)), Content: d}
			}
			_ = below
		}
		var entries []tree.Entry
		for n, node := range nodes {
			entries = append(entries, tree.Entry{Name: n, Node: node})
		}
		n, err := tree.NewDir(tree.Meta{Mode: 0o2555, MTime: 9e17}, false, entries)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	return Part{Root: build(""), Src: layer.Literal(contents)}
}

func write(t *testing.T, dir string, opt Options, parts ...Part) {
	t.Helper()
	if err := Write(context.Background(), dir, parts, opt); err != nil {
		t.Fatal(err)
	}
}

// list shows a directory: what files would have made it from.
func list(t *testing.T, dir string) string {
	t.Helper()
	var out []string
	filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			t.Fatal(err)
		}
		rel, _ := filepath.Rel(dir, p)
		switch {
		case d.Type()&fs.ModeSymlink != 0:
			to, _ := os.Readlink(p)
			out = append(out, rel+"->"+to)
		case d.Type().IsRegular():
			b, _ := os.ReadFile(p)
			out = append(out, rel+"="+string(b))
		case d.Type()&fs.ModeNamedPipe != 0:
			out = append(out, rel+"|")
		case rel != ".":
			out = append(out, rel+"/")
		}
		return nil
	})
	return strings.Join(out, " ")
}

func TestWrite(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a/out")
	write(t, dir, Options{}, files(t, map[string]string{"bin/tool": "x", "bin/ln": "->tool", "empty": "", "pipe": "fifo", "d/e/": "", "d/e/f": "deep"}))
	if got := list(t, dir); got != "bin/ bin/ln->tool bin/tool=x d/ d/e/ d/e/f=deep empty= pipe|" {
		t.Error(got)
	}
	st, _ := os.Stat(filepath.Join(dir, "bin/tool"))
	if st.Mode() != 0o751|fs.ModeSetuid || st.ModTime() != time.Unix(0, 1e18) {
		t.Error(st.Mode(), st.ModTime())
	}
	if st, _ = os.Stat(filepath.Join(dir, "bin")); st.Mode() != 0o555|fs.ModeDir|fs.ModeSetgid || st.ModTime() != time.Unix(0, 9e17) {
		t.Error(st.Mode(), st.ModTime())
	}
	if st, _ = os.Lstat(filepath.Join(dir, "bin/ln")); st.ModTime() != time.Unix(0, 1e18) {
		t.Error(st.ModTime())
	}
	// Once more, with other things in the way.
	outside := t.TempDir()
	os.WriteFile(filepath.Join(dir, "mine"), []byte("kept"), 0o644)
	os.Chmod(filepath.Join(dir, "bin"), 0o755)
	os.Remove(filepath.Join(dir, "bin/tool"))
	os.Mkdir(filepath.Join(dir, "bin/tool"), 0o755)
	os.WriteFile(filepath.Join(dir, "bin/tool/x"), nil, 0o644)
	os.RemoveAll(filepath.Join(dir, "d"))
	os.Symlink(outside, filepath.Join(dir, "d"))
	os.Remove(filepath.Join(dir, "empty"))
	os.Symlink(filepath.Join(outside, "victim"), filepath.Join(dir, "empty"))
	epoch := time.Unix(1000, 0)
	write(t, dir, Options{Epoch: &epoch}, files(t, map[string]string{"bin/tool": "y", "d/e/f": "new", "empty": "filled"}))
	if got := list(t, dir); got != "bin/ bin/ln->tool bin/tool=y d/ d/e/ d/e/f=new empty=filled mine=kept pipe|" {
		t.Error(got)
	}
	if got := list(t, outside); got != "" {
		t.Error("written outside: " + got)
	}
	if st, _ = os.Stat(filepath.Join(dir, "d/e/f")); !st.ModTime().Equal(epoch) {
		t.Error(st.ModTime())
	}
	write(t, dir, Options{DeleteOthers: true}, files(t, map[string]string{"d/g": "1"}))
	if got := list(t, dir); got != "d/ d/g=1" {
		t.Error(got)
	}
}

func TestHardLinksAndPlatforms(t *testing.T) {
	dir := t.TempDir()
	p := files(t, map[string]string{"x/a": "same", "x/b": "same", "c": "same"})
	g := tree.NewGroup()
	var group func(n *tree.Node) *tree.Node
	group = func(n *tree.Node) *tree.Node {
		if n.Kind == tree.File {
			c := *n
			c.Group = g
			return &c
		}
		entries, _ := n.Entries()
		var out []tree.Entry
		for _, e := range entries {
			out = append(out, tree.Entry{Name: e.Name, Node: group(e.Node)})
		}
		d, _ := tree.NewDir(n.Meta, false, out)
		return d
	}
	p.Root = group(p.Root)
	p.Dir = "linux_amd64"
	other := files(t, map[string]string{"x/a": "other"})
	other.Dir = "linux_arm64"
	for range 2 {
		write(t, dir, Options{}, p, other)
		if got := list(t, dir); got != "linux_amd64/ linux_amd64/c=same linux_amd64/x/ linux_amd64/x/a=same linux_amd64/x/b=same linux_arm64/ linux_arm64/x/ linux_arm64/x/a=other" {
			t.Error(got)
		}
		st, _ := os.Stat(filepath.Join(dir, "linux_amd64/x/b"))
		if n := st.Sys().(*syscall.Stat_t).Nlink; n != 3 {
			t.Errorf("%d links", n)
		}
	}
	p.Dir, other.Dir = "", ""
	if err := Write(context.Background(), dir, []Part{p, other}, Options{}); err == nil {
		t.Error("platforms wrote over each other")
	}
}

func TestChangedMeanwhile(t *testing.T) {
	dir := t.TempDir()
	p := files(t, map[string]string{"a": "what was hashed"})
	d := key.Bytes([]byte("what was hashed"))
	p.Src = layer.Literal(map[key.Digest][]byte{d: []byte("what is there..")})
	err := Write(context.Background(), dir, []Part{p}, Options{})
	var changed *layer.ChangedError
	if !errors.As(err, &changed) || list(t, dir) != "" {
		t.Error(err, list(t, dir))
	}
}

package ledger

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"time"

	"pgregory.net/rapid"

	"larder/internal/key"
	"larder/internal/tree"
)

// file makes a file whose content stands for itself.
func file(content string, mtime int64) *tree.Node {
	return &tree.Node{Kind: tree.File, Meta: tree.Meta{Mode: 0o644, MTime: mtime}, Size: int64(len(content)), Content: key.Bytes([]byte(content))}
}

func link(target string, mtime int64) *tree.Node {
	return &tree.Node{Kind: tree.Symlink, Meta: tree.Meta{Mode: 0o777, MTime: mtime}, Link: target}
}

// dirAt makes a directory of "name" -> node, or of "a/b" -> node, with directories that have its own time.
func dirAt(t rapid.TB, mtime int64, nodes map[string]*tree.Node) *tree.Node {
	t.Helper()
	below := map[string]map[string]*tree.Node{}
	var entries []tree.Entry
	for path, n := range nodes {
		first, rest, deep := strings.Cut(path, "/")
		if !deep {
			entries = append(entries, tree.Entry{Name: first, Node: n})
			continue
		}
		if below[first] == nil {
			below[first] = map[string]*tree.Node{}
		}
		below[first][rest] = n
	}
	for name, nodes := range below {
		entries = append(entries, tree.Entry{Name: name, Node: dirAt(t, mtime, nodes)})
	}
	d, err := tree.NewDir(tree.Meta{Mode: 0o755, MTime: mtime}, false, entries)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// at finds a path, nil for nothing.
func at(t rapid.TB, root *tree.Node, path string) *tree.Node {
	t.Helper()
	n := root
	for name := range strings.SplitSeq(path, "/") {
		var err error
		if n, err = n.Lookup(name); err != nil {
			t.Fatal(err)
		}
		if n == nil {
			return nil
		}
	}
	return n
}

func show(t rapid.TB, root *tree.Node, look Look) *tree.Node {
	t.Helper()
	n, err := Show(root, look)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// merge follows a ledger and stores it in between, as it is between builds.
func merge(t rapid.TB, old, seen *tree.Node, by key.Digest) *tree.Node {
	t.Helper()
	n, err := Merge(old, seen, by)
	if err != nil {
		t.Fatal(err)
	}
	return stored(t, n)
}

func stored(t rapid.TB, n *tree.Node) *tree.Node {
	t.Helper()
	var buf bytes.Buffer
	if err := tree.Encode(&buf, n); err != nil {
		t.Fatal(err)
	}
	n, err := tree.Decode(bytes.NewReader(buf.Bytes()), int64(buf.Len()))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// lines lists a tree's paths with what matters of them here, times as from base.
func lines(t rapid.TB, root *tree.Node, base int64) []string {
	t.Helper()
	var out []string
	if root == nil {
		return nil
	}
	if err := tree.Walk(root, func(path string, n *tree.Node) error {
		out = append(out, fmt.Sprintf("/%s %s @%v", path, n.Kind, time.Duration(n.MTime-base)))
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return out
}

func wantLines(t rapid.TB, root *tree.Node, base int64, want ...string) {
	t.Helper()
	if got := lines(t, root, base); !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

var (
	stepX = key.Bytes([]byte("make"))
	stepY = key.Bytes([]byte("fetch"))
)

// t0 is when a test's story begins: a whole second.
const t0 = int64(1_700_000_000) * second

func clock(after time.Duration) time.Time { return time.Unix(0, t0).Add(after) }

package observation

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"larder/internal/key"
	"larder/internal/tree"
)

// model is a layer's tree as a flat list of paths: what is seen of it is written down without any of the code under test.
type model map[string]object

type object struct {
	kind            tree.Kind
	mode, uid, gid  uint32
	mtime           int64
	xattr           string // value of the one that it has, "" for none
	content         string
	link            string
	rdev            uint64
	group           int // 0 for one name; models that are edits of each other share the numbers
	opaque, implied bool
}

// tree makes the nodes. Groups get numbers of their own.
func (m model) tree(t testing.TB) *tree.Node {
	groups := map[int]uint64{}
	children := m.children()
	var build func(path string) *tree.Node
	build = func(path string) *tree.Node {
		o := m[path]
		meta := tree.Meta{Mode: o.mode, UID: o.uid, GID: o.gid, MTime: o.mtime}
		if o.xattr != "" {
			meta.Xattrs = []tree.Xattr{{Name: "user.x", Value: []byte(o.xattr)}}
		}
		if o.kind == tree.Dir {
			var entries []tree.Entry
			for _, name := range children[path] {
				entries = append(entries, tree.Entry{Name: name, Node: build(tree.Join(path, name))})
			}
			d, err := tree.NewDir(meta, o.opaque, entries)
			if err != nil {
				t.Fatal(err)
			}
			d.Implied = o.implied
			return d
		}
		n := &tree.Node{Kind: o.kind, Meta: meta}
		switch o.kind {
		case tree.File:
			n.Size, n.Content = int64(len(o.content)), key.Bytes([]byte(o.content))
		case tree.Symlink:
			n.Link = o.link
		case tree.Char, tree.Block:
			n.Rdev = o.rdev
		}
		if o.group != 0 {
			if groups[o.group] == 0 {
				groups[o.group] = tree.NewGroup()
			}
			n.Group = groups[o.group]
		}
		return n
	}
	return build("")
}

// children are the names in each directory, sorted.
func (m model) children() map[string][]string {
	out := map[string][]string{}
	for _, p := range m.paths() {
		if p != "" {
			dir, name := split(p)
			out[dir] = append(out[dir], name)
		}
	}
	return out
}

func (m model) paths() []string { return slices.Sorted(maps.Keys(m)) }

func split(path string) (dir, name string) {
	i := strings.LastIndexByte(path, '/')
	return path[:max(i, 0)], path[i+1:]
}

// within reports whether path is dir or below it.
func within(path, dir string) bool {
	return dir == "" || path == dir || strings.HasPrefix(path, dir+"/")
}

// sees writes out what a look sees, each kind on a line.
func (m model) sees(l Look) []string {
	if l.Kind&Whole != 0 {
		var out []string
		for _, p := range m.paths() {
			if within(p, l.Path) && m[p].kind != tree.Socket {
				out = append(out, p, m.entry(p), m.content(p), m.xattrs(p))
			}
		}
		return []string{strings.Join(out, "\n")}
	}
	var out []string
	if l.Kind&Entry != 0 {
		out = append(out, "entry "+m.entry(l.Path))
	}
	if l.Kind&List != 0 {
		out = append(out, "list "+m.list(l.Path))
	}
	if l.Kind&Content != 0 {
		out = append(out, "content "+m.content(l.Path))
	}
	return out
}

func (m model) at(path string) (object, bool) {
	o, ok := m[path]
	return o, ok && o.kind != tree.Socket
}

func (m model) entry(path string) string {
	o, ok := m.at(path)
	switch {
	case !ok:
		return "absent"
	case o.kind == tree.Whiteout:
		return "whiteout"
	}
	s := fmt.Sprintf("%d %d:%d %s ", o.kind, o.uid, o.gid, m.xattrs(path))
	switch o.kind {
	case tree.Dir:
		return s + fmt.Sprintf("%o %v %v", o.mode, o.opaque, o.implied)
	case tree.File:
		s += fmt.Sprintf("%o %q", o.mode, o.content)
	case tree.Symlink:
		s += o.link
	case tree.Char, tree.Block:
		s += fmt.Sprintf("%o %d", o.mode, o.rdev)
	default:
		s += fmt.Sprintf("%o", o.mode)
	}
	if o.group != 0 {
		var names []string
		for _, p := range m.paths() {
			if m[p].group == o.group {
				names = append(names, p)
			}
		}
		if len(names) > 1 {
			s += fmt.Sprintf(" %q", names)
		}
	}
	return s
}

func (m model) list(path string) string {
	switch o, ok := m.at(path); {
	case !ok:
		return "absent"
	case o.kind != tree.Dir:
		return "no directory"
	}
	s := ""
	for _, name := range m.children()[path] {
		if o, ok := m.at(tree.Join(path, name)); ok {
			s += fmt.Sprintf("%q %d,", name, o.kind)
		}
	}
	return s
}

func (m model) content(path string) string {
	switch o, ok := m.at(path); {
	case !ok:
		return "absent"
	case o.kind != tree.File:
		return "no file"
	default:
		return fmt.Sprintf("%q", o.content)
	}
}

func (m model) xattrs(path string) string {
	switch o, ok := m.at(path); {
	case !ok:
		return "absent"
	case o.kind == tree.Whiteout:
		return "whiteout"
	default:
		return fmt.Sprintf("%q", o.xattr)
	}
}

// stored gives a tree as it comes from a store: directories are fetched when they are listed, and Groups of one file are none.
func stored(t testing.TB, n *tree.Node) *tree.Node {
	t.Helper()
	var b bytes.Buffer
	if err := tree.Encode(&b, n); err != nil {
		t.Fatal(err)
	}
	back, err := tree.Decode(bytes.NewReader(b.Bytes()), int64(b.Len()))
	if err != nil {
		t.Fatal(err)
	}
	return back
}

func values(t testing.TB, looks []Look, n *tree.Node) []key.Digest {
	t.Helper()
	out, err := Values(looks, n)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func reduce(t testing.TB, looks []Look, n *tree.Node, most int) []Look {
	t.Helper()
	out, err := Reduce(looks, n, most)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

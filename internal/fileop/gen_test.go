package fileop

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"fmt"
	"strings"
	"time"

	"github.com/moby/buildkit/solver/pb"
	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"larder/internal/key"
	"larder/internal/tree"
)

// gen draws file systems and operations that are small and collide often.
type gen struct {
	*rapid.T
	contents map[key.Digest][]byte
	linked   []*tree.Node
	paths    map[string][]string // by what was drawn
}

func newGen(t *rapid.T) *gen {
	return &gen{T: t, contents: map[key.Digest][]byte{}, paths: map[string][]string{}}
}

func pick[T any](g *gen, label string, list ...T) T { return rapid.SampledFrom(list).Draw(g.T, label) }
func (g *gen) one(in int, label string) bool        { return rapid.IntRange(1, in).Draw(g.T, label) == in }

const passwd = "root:x:0:0:root:/root:/bin/sh\nann:x:1000:1001::/home/ann:/bin/sh\nbob:x:7:8::/:/bin/sh\n"
const groups = "root:x:0:\nstaff:x:50:ann\nbob:x:9:\n"

func (g *gen) meta(xattrs bool) tree.Meta {
	m := tree.Meta{
		Mode:  pick[uint32](g, "mode", 0o755, 0o644, 0o1777, 0o2755, 0o4755, 0o6750),
		UID:   pick[uint32](g, "uid", 0, 1000),
		GID:   pick[uint32](g, "gid", 0, 1001),
		MTime: pick[int64](g, "mtime", 1e9, 2e9+5),
	}
	if xattrs && g.one(6, "has xattr") {
		m.Xattrs = []tree.Xattr{{Name: "user.k", Value: []byte(pick(g, "xattr", "v", "w"))}}
	}
	return m
}

func (g *gen) bytes(b []byte) *tree.Node {
	d := key.Bytes(b)
	g.contents[d] = b
	return &tree.Node{Kind: tree.File, Size: int64(len(b)), Content: d, Meta: tree.Meta{Mode: 0o644, MTime: 1e9}}
}

func (g *gen) file() *tree.Node {
	n := g.bytes([]byte(pick(g, "content", "", "one", "two")))
	n.Meta = g.meta(true)
	if g.one(8, "capability") { // cap_net_bind_service=ep
		n.Xattrs = append([]tree.Xattr{{Name: "security.capability", Value: append([]byte{1, 0, 0, 2, 0, 4}, make([]byte, 14)...)}}, n.Xattrs...)
	}
	return n
}

var names = []string{"a", "b", "c", "e.txt", "l"}

// fs draws a file system.
func (g *gen) fs(label string) *tree.Node {
	g.linked = nil
	for range rapid.IntRange(0, 2).Draw(g.T, label+" links") {
		n := g.file()
		n.Group = tree.NewGroup()
		g.linked = append(g.linked, n)
	}
	root := g.dir(2)
	meta := root.Meta
	meta.Xattrs = nil // snapshotters do not carry a root's xattrs on
	root = root.WithMeta(meta)
	if g.one(2, label+" etc") {
		etc := mustDir(tree.Meta{Mode: 0o755, MTime: 1e9}, tree.Entry{Name: "passwd", Node: g.bytes([]byte(passwd))}, tree.Entry{Name: "group", Node: g.bytes([]byte(groups))})
		root = with(root, "etc", etc)
	}
	_ = tree.Walk(root, func(path string, _ *tree.Node) error { g.paths[label] = append(g.paths[label], path); return nil })
	return root
}

func with(dir *tree.Node, name string, n *tree.Node) *tree.Node {
	entries, _ := dir.Entries()
	return mustDir(dir.Meta, append(append([]tree.Entry{}, entries...), tree.Entry{Name: name, Node: n})...)
}

func mustDir(meta tree.Meta, entries ...tree.Entry) *tree.Node {
	d, err := tree.NewDir(meta, false, entries)
	if err != nil {
		panic(err)
	}
	return d
}

func (g *gen) dir(depth int) *tree.Node {
	var entries []tree.Entry
	for _, name := range names {
		if n := g.node(depth); n != nil {
			entries = append(entries, tree.Entry{Name: name, Node: n})
		}
	}
	return mustDir(g.meta(true), entries...)
}

func (g *gen) node(depth int) *tree.Node {
	switch rapid.IntRange(0, 10).Draw(g.T, "kind") {
	case 2, 3, 4:
		if depth > 0 {
			return g.dir(depth - 1)
		}
		return g.file()
	case 5:
		return g.file()
	case 6:
		if len(g.linked) > 0 {
			return rapid.SampledFrom(g.linked).Draw(g.T, "link")
		}
	case 7, 8:
		m := g.meta(false)
		m.Mode = 0o777
		return &tree.Node{Kind: tree.Symlink, Meta: m, Link: pick(g, "target", "a", "b", "/a", "/b/c", "../a", "./b/", "a/../c", "/missing", "missing/x", "l", "/l", "..", ".", "e.txt")}
	case 9:
		if g.one(3, "special") {
			kind := pick(g, "special", tree.Socket, tree.Char) // BuildKit hangs when it writes to a fifo
			n := &tree.Node{Kind: kind, Meta: g.meta(false)}
			if kind == tree.Char {
				n.Rdev = unix.Mkdev(1, 3)
			}
			return n
		}
	}
	return nil
}

// archive draws a tar file, mostly compressed.
func (g *gen) archive() *tree.Node {
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for range rapid.IntRange(1, 4).Draw(g.T, "entries") {
		h := &tar.Header{
			Name:    pick(g, "entry", "a", "b", "c/", "a/b", "b/c", "./", "x/y/z", "../up", "/l/n", "l", "e.txt"),
			Mode:    pick[int64](g, "mode", 0o644, 0o755, 0o4755, 0o2755),
			Uid:     pick(g, "uid", 0, 1000),
			Gid:     pick(g, "gid", 0, 1001),
			ModTime: time.Unix(1e9, 0),
		}
		data := ""
		dir := strings.HasSuffix(h.Name, "/")
		h.Typeflag = pick[byte](g, "type", tar.TypeReg, tar.TypeReg, tar.TypeDir, tar.TypeDir, tar.TypeSymlink, tar.TypeLink, tar.TypeChar)
		if dir {
			h.Typeflag = tar.TypeDir
		}
		switch h.Typeflag {
		case tar.TypeReg:
			data = pick(g, "data", "", "in tar", "one")
			h.Size = int64(len(data))
			if g.one(5, "pax xattr") {
				h.PAXRecords = map[string]string{"SCHILY.xattr.user.k": "tar"}
			}
		case tar.TypeSymlink:
			h.Linkname = pick(g, "to", "a", "/b", "../c", "missing")
		case tar.TypeLink:
			h.Linkname = pick(g, "to", "a", "b", "/e.txt", "a/b")
		case tar.TypeChar:
			h.Devmajor, h.Devminor = 1, 5
		}
		if err := w.WriteHeader(h); err != nil {
			g.Fatal(err)
		}
		if _, err := w.Write([]byte(data)); err != nil {
			g.Fatal(err)
		}
	}
	w.Close()
	if g.one(2, "gzip") {
		var z bytes.Buffer
		zw := gzip.NewWriter(&z)
		zw.Write(buf.Bytes())
		zw.Close()
		buf = z
	}
	return g.bytes(buf.Bytes())
}

// path draws a path, mostly one that a file system which was drawn has.
func (g *gen) path(label string) string {
	of := "base"
	if label == "source" {
		of = label
	}
	if paths := g.paths[of]; len(paths) > 0 && !g.one(4, label+" any") {
		p := "/" + rapid.SampledFrom(paths).Draw(g.T, label)
		if label == "new" || g.one(4, label+" below") {
			p = strings.TrimSuffix(p, "/") + pick(g, label+" end", "/", "/.", "/x", "/x/y")
		}
		return p
	}
	return pick(g, label, "/", "/a", "/a/", "/a/.", "/b", "/b/c", "/a/b/", "/l", "/l/x", "/l/l/", "a/b", "./c", "/b/../c", "/l/../n", "/e.txt", "/e.txt/x",
		"/n", "/n/m/", "/n/m/o", "/c/e.txt", "/.", "b/", "/a/l/")
}

func (g *gen) owner(inputs int) *pb.ChownOpt {
	if !g.one(3, "chown") {
		return nil
	}
	opt := func(label string) *pb.UserOpt {
		switch rapid.IntRange(0, 2).Draw(g.T, label) {
		case 0:
			return &pb.UserOpt{User: &pb.UserOpt_ByID{ByID: pick[uint32](g, label+" id", 0, 5, 1000)}}
		case 1:
			name := pick(g, label+" name", "ann", "bob", "staff", "nobody")
			return &pb.UserOpt{User: &pb.UserOpt_ByName{ByName: &pb.NamedUserOpt{Name: name, Input: int64(rapid.IntRange(0, inputs-1).Draw(g.T, "input"))}}}
		}
		return nil
	}
	return &pb.ChownOpt{User: opt("user"), Group: opt("group")}
}

func (g *gen) timestamp() int64 {
	return pick[int64](g, "timestamp", -1, -1, stamp)
}

// op draws an operation on two inputs.
func (g *gen) op() *pb.FileOp {
	const inputs = 2
	op := &pb.FileOp{}
	count := pick(g, "few", 1, 1, 2, 3)
	for i := range count {
		a := &pb.FileAction{Input: int64(inputs + i - 1), SecondaryInput: -1, Output: -1}
		if i == 0 {
			a.Input = pick[int64](g, "base", 0, 0, 0, -1)
		}
		if i == count-1 {
			a.Output = 0
		}
		g.action(a, i, inputs)
		op.Actions = append(op.Actions, a)
	}
	return op
}

func (g *gen) action(a *pb.FileAction, i, inputs int) {
	mode := pick[int32](g, "mode", 0o755, 0o700, 0o4711)
	switch rapid.IntRange(0, 9).Draw(g.T, "action") {
	case 0:
		a.Action = &pb.FileAction_Mkdir{Mkdir: &pb.FileActionMkDir{Path: g.path("path"), Mode: mode, MakeParents: g.one(2, "parents"), Owner: g.owner(inputs), Timestamp: g.timestamp()}}
	case 1:
		a.Action = &pb.FileAction_Mkfile{Mkfile: &pb.FileActionMkFile{Path: g.path("new"), Mode: mode, Data: []byte(pick(g, "data", "", "made")), Owner: g.owner(inputs), Timestamp: g.timestamp()}}
	case 2:
		a.Action = &pb.FileAction_Symlink{Symlink: &pb.FileActionSymlink{Oldpath: pick(g, "old", "a", "/b", "x/y"), Newpath: g.path("new"), Owner: g.owner(inputs), Timestamp: g.timestamp()}}
	case 3, 4:
		rm := &pb.FileActionRm{Path: g.path("path"), AllowNotFound: g.one(2, "allow"), AllowWildcard: g.one(2, "wild")}
		if rm.AllowWildcard {
			rm.Path = g.pattern()
		}
		a.Action = &pb.FileAction_Rm{Rm: rm}
	default:
		a.SecondaryInput = pick[int64](g, "source", 1, 1, 1, 1, 0, -1)
		if i > 0 && g.one(6, "source made") {
			a.SecondaryInput = int64(inputs + i - 1)
			a.Input = pick[int64](g, "base", 0, a.SecondaryInput)
		}
		of := "base"
		if a.SecondaryInput == 1 {
			of = "source"
		}
		a.Action = &pb.FileAction_Copy{Copy: g.copy(inputs, of)}
	}
}

func (g *gen) pattern() string {
	return pick(g, "pattern", "/*", "/a*", "/*/c", "/[ab]", "/?", "/*.txt", "/a/*", "/l/*", "/n*", "/[", "/*/", "/l*/a", "/[^x]/b", "a*")
}

func (g *gen) copy(inputs int, of string) *pb.FileActionCopy {
	c := &pb.FileActionCopy{
		Src: g.path(of), Dest: g.path("dest"), Owner: g.owner(inputs), Mode: pick[int32](g, "copy mode", -1, -1, 0o750, 0o4711, 0),
		FollowSymlink: !g.one(4, "no follow"), DirCopyContents: !g.one(3, "whole dir"), CreateDestPath: !g.one(4, "no dest"),
		AttemptUnpackDockerCompatibility: g.one(3, "unpack"),
		AllowWildcard:                    !g.one(3, "no wild"), AllowEmptyWildcard: g.one(2, "empty"), Timestamp: g.timestamp(),
		AlwaysReplaceExistingDestPaths: g.one(4, "replace"),
	}
	if c.AllowWildcard && g.one(2, "use wild") {
		c.Src = g.pattern()
	}
	if c.AttemptUnpackDockerCompatibility && g.one(2, "archive") {
		c.Src = "/x.tar"
	}
	if g.one(6, "symbolic") {
		c.ModeStr = pick(g, "modestr", "u+x,g-w", "a+X", "go=", "u=rwx,g+s")
	}
	if g.one(4, "include") {
		c.IncludePatterns = pick(g, "include", []string{"*.txt"}, []string{"a/**"}, []string{"**/c"}, []string{"b"}, []string{"*/c", "l"}, []string{"a/b", "!a/b/c"})
	}
	if g.one(4, "exclude") {
		c.ExcludePatterns = pick(g, "exclude", []string{"b"}, []string{"**/*.txt"}, []string{"a", "!a/c"}, []string{"**/c", "!b/c"}, []string{"*"})
	}
	return c
}

func describe(op *pb.FileOp) string {
	var out []string
	for _, a := range op.Actions {
		out = append(out, a.String())
	}
	return fmt.Sprint(out)
}

package fileop

import (
	"context"
	"io"
	"path"
	"strings"
	"testing"

	"github.com/moby/buildkit/solver/pb"

	"larder/internal/key"
	"larder/internal/layer"
	"larder/internal/tree"
)

// world builds file systems from short lines and remembers the contents.
type world struct {
	t        *testing.T
	contents map[key.Digest][]byte
}

func newWorld(t *testing.T) *world { return &world{t, map[key.Digest][]byte{}} }

// fs makes a state of lines such as "/bin -> usr/bin", "/tmp/ 1777", "/etc/passwd 644 root:x:0:0". Directories that are
// missing have mode 755.
func (w *world) fs(lines ...string) *layer.State {
	root := tree.Empty()
	for _, l := range lines {
		root = w.add(root, l)
	}
	return state(w.t, root, w.contents)
}

func (w *world) add(root *tree.Node, line string) *tree.Node {
	name, rest, _ := strings.Cut(line, " ")
	n := &tree.Node{Kind: tree.File, Meta: tree.Meta{Mode: 0o644}}
	modes := map[string]uint32{"1777": 0o1777, "644": 0o644, "755": 0o755, "700": 0o700, "": 0o755}
	switch {
	case strings.HasPrefix(rest, "-> "):
		n = &tree.Node{Kind: tree.Symlink, Link: rest[3:], Meta: tree.Meta{Mode: 0o777}}
	case strings.HasSuffix(name, "/"):
		n = mustDir(tree.Meta{Mode: modes[rest]})
	default:
		mode, data, _ := strings.Cut(rest, " ")
		n.Mode = modes[mode]
		n.Size, n.Content = int64(len(data)), key.Bytes([]byte(data))
		w.contents[n.Content] = []byte(data)
	}
	for dir := path.Clean(name); dir != "/"; dir = path.Dir(dir) {
		n = mustDir(tree.Meta{Mode: 0o755}, tree.Entry{Name: path.Base(dir), Node: n})
	}
	// A layer of directories would reset the metadata of those that are there.
	top, err := keepDirs(root, n)
	if err != nil {
		w.t.Fatal(err)
	}
	return top
}

func keepDirs(old, n *tree.Node) (*tree.Node, error) {
	entries, err := n.Entries()
	if err != nil || old == nil || n.Kind != tree.Dir || len(entries) == 0 {
		return n, err
	}
	out, _ := old.Entries()
	all := map[string]*tree.Node{}
	for _, e := range out {
		all[e.Name] = e.Node
	}
	for _, e := range entries {
		if all[e.Name], err = keepDirs(all[e.Name], e.Node); err != nil {
			return nil, err
		}
	}
	var list []tree.Entry
	for name, c := range all {
		list = append(list, tree.Entry{Name: name, Node: c})
	}
	return tree.NewDir(old.Meta, false, list)
}

// copyOp is COPY src dest as the Dockerfile frontend writes it.
func copyOp(src, dest string, change ...func(*pb.FileActionCopy)) *pb.FileOp {
	c := &pb.FileActionCopy{Src: src, Dest: dest, Mode: -1, Timestamp: -1, FollowSymlink: true, DirCopyContents: true,
		CreateDestPath: true, AllowWildcard: true, AllowEmptyWildcard: true}
	for _, f := range change {
		f(c)
	}
	return &pb.FileOp{Actions: []*pb.FileAction{{Input: 0, SecondaryInput: 1, Output: 0, Action: &pb.FileAction_Copy{Copy: c}}}}
}

func (w *world) apply(op *pb.FileOp, inputs ...*layer.State) *Result {
	w.t.Helper()
	res, err := Apply(context.Background(), op, inputs)
	if err != nil {
		w.t.Fatal(err)
	}
	return res
}

// at gives what a state shows at a path, links not followed at its end.
func (w *world) at(st *layer.State, name string) *tree.Node {
	w.t.Helper()
	root, err := st.Merged(context.Background())
	if err != nil {
		w.t.Fatal(err)
	}
	_, n, err := tree.Resolve(root, name, false)
	if err != nil {
		w.t.Fatal(err)
	}
	return n
}

// says gives the bytes of a file of an output's layer.
func (w *world) says(res *Result, name string) string {
	w.t.Helper()
	n := w.at(res.Outputs[0].State, name)
	if n == nil || n.Kind != tree.File {
		w.t.Fatalf("%s is %v", name, n)
	}
	r, err := res.Outputs[0].Layers[0].Contents.Open(context.Background(), n.Content, n.Size)
	if err != nil {
		w.t.Fatal(err)
	}
	defer r.Close()
	b, err := io.ReadAll(r)
	if err != nil {
		w.t.Fatal(err)
	}
	return string(b)
}

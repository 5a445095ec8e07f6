package layer

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"larder/internal/tree"
)

// TestGroupsOnOverlay stacks groups with what is laid over them as a step is shown them, and reads them back: the kernel makes of
// observed groups, each one directory of several layers, what the layers' trees say.
func TestGroupsOnOverlay(t *testing.T) {
	needRoot(t)
	checks(t, "200")
	ctx := t.Context()
	disk := t.TempDir()
	if err := unix.Mount("tmpfs", disk, "tmpfs", 0, ""); err != nil { // some disks take their time to forget directories
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(disk, 0); err != nil {
			t.Error(err)
		}
	})
	rapid.Check(t, func(rt *rapid.T) {
		s := drawState(rt, false)
		if s == nil {
			return
		}
		implied := rapid.Bool().Draw(rt, "implied")
		if !implied {
			s = listed(rt, s)
		}
		merged, err := s.Merged(ctx)
		if err != nil {
			rt.Fatal(err)
		}
		over := drawOver(rt, merged)
		want := merged
		if over != nil {
			if want, err = tree.Retime(merged, over); err != nil {
				rt.Fatal(err)
			}
		}
		groups, err := s.Groups(ctx)
		if err != nil {
			rt.Fatal(err)
		}
		laid, err := s.Laid(ctx, over)
		if err != nil {
			rt.Fatal(err)
		}
		stack := newLowers(rt, disk)
		defer stack.remove()
		for i, g := range groups {
			if g.Observed {
				stack.put(laid[i], g.Contents)
				continue
			}
			for _, l := range g.Layers {
				stack.put(treesOf(rt, []*Layer{l})[0], l.Contents)
			}
			if laid[i] != nil {
				stack.put(laid[i], s.Contents())
			}
		}
		if implied {
			stack.put(dirsOf(rt, want), Literal(nil))
		}
		root := stack.mount()
		got, err := FromUpper(ctx, root)
		if err != nil {
			rt.Fatal(err)
		}
		if got, want := describe(t, got, true), describe(t, want, true); got != want {
			rt.Fatalf("got\n%s\nwant\n%s", got, want)
		}
	})
}

// lowers are directories to be stacked by overlay.
type lowers struct {
	t    *rapid.T
	dir  string
	list []string // the topmost first
	root string   // the mount
}

func newLowers(t *rapid.T, disk string) *lowers {
	t.Helper()
	dir, err := os.MkdirTemp(disk, "")
	if err != nil {
		t.Fatal(err)
	}
	l := &lowers{t: t, dir: dir}
	empty, err := tree.NewDir(tree.Meta{Mode: 0o755}, false, nil)
	if err != nil {
		t.Fatal(err)
	}
	l.put(empty, nil) // a mount without an upper directory wants two
	return l
}

// put writes a layer tree out on top of the others. Of a directory that is of one lower only, overlay lists whiteouts as names that
// cannot be looked up, but for one that it takes for copied up.
func (l *lowers) put(root *tree.Node, src Source) {
	l.t.Helper()
	dir := filepath.Join(l.dir, fmt.Sprint(len(l.list)))
	if err := os.Mkdir(dir, 0o755); err != nil {
		l.t.Fatal(err)
	}
	if err := Materialise(l.t.Context(), root, src, dir); err != nil {
		l.t.Fatal(err)
	}
	if err := tree.Walk(root, func(path string, n *tree.Node) error {
		if n.Kind != tree.Whiteout {
			return nil
		}
		return unix.Setxattr(filepath.Join(dir, filepath.Dir(path)), "trusted.overlay.origin", nil, 0)
	}); err != nil {
		l.t.Fatal(err)
	}
	l.list = append([]string{dir}, l.list...)
}

func (l *lowers) mount() string {
	l.t.Helper()
	root := filepath.Join(l.dir, "root")
	if err := os.Mkdir(root, 0o755); err != nil {
		l.t.Fatal(err)
	}
	options := "lowerdir=" + strings.Join(l.list, ":") + ",redirect_dir=off,metacopy=off,index=off,xino=on"
	if err := unix.Mount("overlay", root, "overlay", unix.MS_RDONLY, options); err != nil {
		l.t.Fatal(err)
	}
	l.root = root
	return root
}

func (l *lowers) remove() {
	l.t.Helper()
	if l.root != "" {
		if err := unix.Unmount(l.root, 0); err != nil {
			l.t.Fatal(err)
		}
	}
	if err := os.RemoveAll(l.dir); err != nil {
		l.t.Fatal(err)
	}
}

// listed gives a state none of whose directories are merely implied.
func listed(t *rapid.T, s *State) *State {
	t.Helper()
	var out *State
	for _, l := range s.Layers() {
		root := mapDirs(t, treesOf(t, []*Layer{l})[0], func(n *tree.Node) bool { return true })
		out = out.Push(New(l.Identity, l.Pinned, root, l.Contents))
	}
	return out
}

// dirsOf gives the directories of a tree.
func dirsOf(t *rapid.T, root *tree.Node) *tree.Node {
	t.Helper()
	return mapDirs(t, root, func(n *tree.Node) bool { return n.Kind == tree.Dir })
}

// mapDirs copies a tree but for what is not kept. Its directories are not implied.
func mapDirs(t *rapid.T, root *tree.Node, keep func(*tree.Node) bool) *tree.Node {
	t.Helper()
	if root.Kind != tree.Dir {
		return root
	}
	entries, err := root.Entries()
	if err != nil {
		t.Fatal(err)
	}
	var out []tree.Entry
	for _, e := range entries {
		if keep(e.Node) {
			out = append(out, tree.Entry{Name: e.Name, Node: mapDirs(t, e.Node, keep)})
		}
	}
	d, err := tree.NewDir(root.Meta, root.Opaque, out)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

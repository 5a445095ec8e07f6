package fileop

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"larder/internal/key"
	"larder/internal/tree"
)

// write puts a tree on disk, contents from the map.
func write(t testing.TB, dir string, root *tree.Node, contents map[key.Digest][]byte) {
	t.Helper()
	links := map[uint64]string{}
	must := func(err error) {
		if err != nil {
			t.Helper()
			t.Fatal(err)
		}
	}
	var put func(path string, n *tree.Node)
	put = func(path string, n *tree.Node) {
		switch n.Kind {
		case tree.Dir:
			if path != dir {
				must(os.Mkdir(path, 0o700))
			}
			entries, err := n.Entries()
			must(err)
			for _, e := range entries {
				put(filepath.Join(path, e.Name), e.Node)
			}
		case tree.File:
			if old := links[n.Group]; old != "" {
				must(os.Link(old, path))
				return
			}
			if n.Group != 0 {
				links[n.Group] = path
			}
			must(os.WriteFile(path, contents[n.Content], 0o600))
		case tree.Symlink:
			must(os.Symlink(n.Link, path))
		default:
			types := map[tree.Kind]uint32{tree.Char: unix.S_IFCHR, tree.Block: unix.S_IFBLK, tree.Fifo: unix.S_IFIFO, tree.Socket: unix.S_IFSOCK}
			must(unix.Mknod(path, types[n.Kind]|0o600, int(n.Rdev)))
		}
		must(os.Lchown(path, int(n.UID), int(n.GID)))
		for _, x := range n.Xattrs {
			must(unix.Lsetxattr(path, x.Name, x.Value, 0))
		}
		if n.Kind != tree.Symlink {
			must(unix.Chmod(path, n.Mode))
		}
		ts := unix.NsecToTimespec(n.MTime)
		must(unix.UtimesNanoAt(unix.AT_FDCWD, path, []unix.Timespec{ts, ts}, unix.AT_SYMLINK_NOFOLLOW))
	}
	put(dir, root)
}

// read gives what is on disk as a tree: of an overlay upper directory the layer tree.
func read(t testing.TB, dir string) *tree.Node {
	t.Helper()
	groups := map[uint64]uint64{}
	var get func(path string) *tree.Node
	get = func(path string) *tree.Node {
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			t.Fatal(err)
		}
		n := &tree.Node{Meta: tree.Meta{Mode: st.Mode & 0o7777, UID: st.Uid, GID: st.Gid, MTime: st.Mtim.Nano()}}
		var opaque bool
		n.Xattrs, opaque = xattrs(t, path)
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFREG:
			b, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			n.Kind, n.Size, n.Content = tree.File, st.Size, key.Bytes(b)
			if st.Nlink > 1 {
				if groups[st.Ino] == 0 {
					groups[st.Ino] = tree.NewGroup()
				}
				n.Group = groups[st.Ino]
			}
		case unix.S_IFDIR:
			list, err := os.ReadDir(path)
			if err != nil {
				t.Fatal(err)
			}
			var entries []tree.Entry
			for _, e := range list {
				entries = append(entries, tree.Entry{Name: e.Name(), Node: get(filepath.Join(path, e.Name()))})
			}
			d, err := tree.NewDir(n.Meta, opaque, entries)
			if err != nil {
				t.Fatal(err)
			}
			return d
		case unix.S_IFLNK:
			link, err := os.Readlink(path)
			if err != nil {
				t.Fatal(err)
			}
			n.Kind, n.Link = tree.Symlink, link
		case unix.S_IFCHR:
			n.Kind, n.Rdev = tree.Char, st.Rdev
			if st.Rdev == 0 {
				return &tree.Node{Kind: tree.Whiteout}
			}
		case unix.S_IFBLK:
			n.Kind, n.Rdev = tree.Block, st.Rdev
		case unix.S_IFIFO:
			n.Kind = tree.Fifo
		case unix.S_IFSOCK:
			n.Kind = tree.Socket
		}
		return n
	}
	return get(dir)
}

func xattrs(t testing.TB, path string) (list []tree.Xattr, opaque bool) {
	buf := make([]byte, 4096)
	n, err := unix.Llistxattr(path, buf)
	if err != nil {
		t.Fatal(err)
	}
	for name := range strings.SplitSeq(strings.Trim(string(buf[:n]), "\x00"), "\x00") {
		if name == "" {
			continue
		}
		if name == "trusted.overlay.opaque" {
			opaque = true
		}
		if strings.HasPrefix(name, "trusted.overlay.") {
			continue
		}
		value := make([]byte, 256)
		n, err := unix.Lgetxattr(path, name, value)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, tree.Xattr{Name: name, Value: value[:n]})
	}
	tree.SortXattrs(list)
	return list, opaque
}

// stamp is the one time stamp that drawn actions have.
const stamp = 1_500_000_000_000_000_000

// dump writes out what two trees must have in common. Times after start are only "now": they are those of a clock.
func dump(t testing.TB, root *tree.Node, start int64) string {
	t.Helper()
	var out bytes.Buffer
	err := tree.Walk(root, func(path string, n *tree.Node) error {
		mtime := fmt.Sprint(n.MTime)
		// A time stamp is ours for every directory that changes; BuildKit dates some of them now.
		if n.MTime >= start || n.Kind == tree.Dir && n.MTime == stamp {
			mtime = "now"
		}
		if path == "" {
			mtime = "-"
		}
		if n.Kind == tree.Whiteout {
			fmt.Fprintf(&out, "/%s gone\n", path)
			return nil
		}
		mode := n.Mode
		if n.Kind == tree.Symlink {
			mode = 0o777
		}
		fmt.Fprintf(&out, "/%s %d %o %d:%d @%s x%v %d %s %q %x opaque=%v\n", path, n.Kind, mode, n.UID, n.GID, mtime, n.Xattrs,
			n.Size, n.Content.Hex()[:4], n.Link, n.Rdev, n.Opaque)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	links, err := root.Links()
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(&out, "links %v", links)
	return out.String()
}

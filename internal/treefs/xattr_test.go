package treefs

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"larder/internal/tree"
)

// marked has a file with extended attributes, an opaque directory and a whiteout.
func marked(t *testing.T) *sketch {
	s := draw(t).file("d/a", "a").opaque("o").file("o/x", "x").whiteout("gone").link("link", "d/a")
	n := s.fileNode("b", 0o644)
	n.Xattrs = []tree.Xattr{{Name: "trusted.t", Value: []byte{0, 1}}, {Name: "user.u", Value: []byte("value")}}
	return s.put("d/b", n)
}

// TestXattrs: what is noted where there are extended attributes, or opaque directories, in one of two parts.
func TestXattrs(t *testing.T) {
	for _, c := range []struct {
		name string
		do   func(t *testing.T, root string)
		want string
	}{
		{"nothing", func(*testing.T, string) {}, "=E"},
		{"read", func(t *testing.T, root string) { read(t, root+"/d/a") }, "=E d=E d/a=EC"},
		{"get", func(t *testing.T, root string) {
			if got := xattr(t, root+"/d/b", "user.u"); got != "value" {
				t.Errorf("got %q", got)
			}
		}, "=E d=E d/b=E"},
		{"get none", func(t *testing.T, root string) {
			if got := xattr(t, root+"/d/a", "user.u"); got != "no data available" {
				t.Errorf("got %q", got)
			}
		}, "=E d=E d/a=E"},
		{"list", func(t *testing.T, root string) {
			if got := xattrs(t, root+"/d/b"); got != "trusted.t user.u" {
				t.Errorf("got %q", got)
			}
		}, "=E d=E d/b=E"},
		{"overlay's own", func(t *testing.T, root string) {
			if got := names(t, root+"/o"); got != "x" {
				t.Errorf("got %q", got)
			}
		}, "=E o=EL"},
		{"a whiteout", func(t *testing.T, root string) { absent(t, root+"/gone") }, "=E gone=E"},
		{"copy", func(t *testing.T, root string) {
			must(t, os.Chmod(root+"/d/b", 0o600))
			upper := filepath.Join(filepath.Dir(root), "upper/d/b")
			if got := xattr(t, upper, "user.u") + xattr(t, upper, "trusted.t"); got != "value\x00\x01" {
				t.Errorf("got %q", got)
			}
		}, "=E d=E d/b=EC"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, _ := marked(t).written(true)
			fs := show(t, Options{}, p, draw(t).file("z", "z").part())
			root := over(t, fs.Dir(0), fs.Dir(1), native(t, "o/hidden=h", "gone=g"))
			c.do(t, root)
			if got := looked(fs, 0); got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
			if got := looked(fs, 1); got != "=E" && got != "=E d=E" && got != "=E o=E" {
				t.Errorf("the other part: %s", got)
			}
		})
	}
}

// TestAbsentXattrs: of attributes that nothing has, a step hears what it hears of a native layer, whatever other parts there are; that
// it asked is in the entry.
func TestAbsentXattrs(t *testing.T) {
	for _, others := range [][]Part{nil, {marked(t).part()}} {
		p, dir := draw(t).file("f", "f").file("d/e", "e").link("l", "f").put("fifo", &tree.Node{Kind: tree.Fifo}).written(true)
		fs := show(t, Options{}, append([]Part{p}, others...)...)
		was, is := over(t, dir), over(t, fs.Dir(0))
		for _, path := range []string{"/f", "/d", "/l", "/fifo"} {
			for _, name := range []string{
				"user.u", "trusted.t", "trusted.overlay.opaque", "trusted.overlay.origin", "security.capability", "security.selinux",
				"system.posix_acl_access", "system.posix_acl_default", "system.other", "other.name", "name",
			} {
				if got, want := xattr(t, is+path, name), xattr(t, was+path, name); got != want {
					t.Errorf("%d other parts: %s of %s: got %q, want %q", len(others), name, path, got, want)
				}
			}
			if got := xattrs(t, is+path); got != "" {
				t.Errorf("%d other parts: %s has %q", len(others), path, got)
			}
		}
		if got := looked(fs, 0); got != "=E d=E f=E fifo=E l=E" {
			t.Errorf("got %s", got)
		}
	}
}

// TestOtherUsers: modes decide for them as in a native layer. Parts with access control lists are not served, so that the kernel does
// not look for any, which would cost.
func TestOtherUsers(t *testing.T) {
	s := draw(t)
	p, dir := s.put("group", s.fileNode("g", 0o640)).put("any", s.fileNode("any", 0o644)).put("own", s.fileNode("own", 0o600)).written(true)
	fs := show(t, Options{}, p)
	if fs.server.KernelSettings().Flags64()&fuse.CAP_POSIX_ACL == 0 {
		t.Error("this kernel knows no access control lists: nothing was tested")
	}
	for _, lower := range []string{dir, fs.Dir(0)} {
		root, err := unix.Open(over(t, lower), unix.O_PATH|unix.O_DIRECTORY, 0)
		must(t, err)
		// The way to the root is for this user only, so it is handed on.
		cmd := exec.Command("setpriv", "--reuid=1000", "--regid=1000", "--clear-groups", "sh", "-c", "cd /proc/self/fd/3 && for f in any group own; do cat $f 2>/dev/null || echo -$f; done")
		cmd.ExtraFiles = []*os.File{os.NewFile(uintptr(root), "root")}
		out, err := cmd.CombinedOutput()
		cmd.ExtraFiles[0].Close()
		if string(out) != "any-group\n-own\n" || err != nil {
			t.Errorf("%s: %v: %q", lower, err, out)
		}
	}
	if got := looked(fs, 0); got != "=E any=EC group=E own=E" {
		t.Errorf("got %s", got)
	}
}

// TestMarksDirectly: overlay's mark on an opaque directory is there for overlay.
func TestMarksDirectly(t *testing.T) {
	fs := show(t, Options{}, marked(t).part())
	if got := xattr(t, fs.Dir(0)+"/o", opaqueMark); got != "y" {
		t.Errorf("got %q", got)
	}
	if got := xattr(t, fs.Dir(0)+"/d", opaqueMark); got != "no data available" {
		t.Errorf("got %q", got)
	}
	if got := looked(fs, 0); got != "=E d=E o=E" {
		t.Errorf("got %s", got)
	}
	if got := xattrs(t, fs.Dir(0)+"/o"); got != opaqueMark {
		t.Errorf("got %q", got)
	}
	var st unix.Stat_t
	must(t, unix.Lstat(fs.Dir(0)+"/gone", &st))
	if st.Mode&unix.S_IFMT != unix.S_IFCHR || st.Rdev != 0 {
		t.Errorf("a whiteout is %o %d", st.Mode, st.Rdev)
	}
}

// xattr gives an attribute, or the error.
func xattr(t *testing.T, path, name string) string {
	t.Helper()
	buf := make([]byte, 100)
	size, err := unix.Lgetxattr(path, name, nil)
	if err == nil {
		var n int
		if n, err = unix.Lgetxattr(path, name, buf); n != size {
			t.Errorf("%s of %s has a size of %d, and of %d", name, path, size, n)
		}
		buf = buf[:n]
	}
	var errno unix.Errno
	if errors.As(err, &errno) {
		return errno.Error()
	}
	return string(buf)
}

func xattrs(t *testing.T, path string) string {
	t.Helper()
	buf := make([]byte, 1000)
	n, err := unix.Llistxattr(path, buf)
	if err != nil {
		return err.Error()
	}
	return strings.ReplaceAll(strings.TrimSuffix(string(buf[:n]), "\x00"), "\x00", " ")
}

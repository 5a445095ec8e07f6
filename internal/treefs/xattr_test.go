package treefs

import (
	"encoding/binary"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

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
		{"nothing", func(*testing.T, string) {}, "=EP"},
		{"read", func(t *testing.T, root string) { read(t, root+"/d/a") }, "=EP d=E d/a=EC"},
		{"get", func(t *testing.T, root string) {
			if got := xattr(t, root+"/d/b", "user.u"); got != "value" {
				t.Errorf("got %q", got)
			}
		}, "=EP d=E d/b=EX"},
		{"get none", func(t *testing.T, root string) {
			if got := xattr(t, root+"/d/a", "user.u"); got != "no data available" {
				t.Errorf("got %q", got)
			}
		}, "=EP d=E d/a=EX"},
		{"list", func(t *testing.T, root string) {
			if got := xattrs(t, root+"/d/b"); got != "trusted.t user.u" {
				t.Errorf("got %q", got)
			}
		}, "=EP d=E d/b=EX"},
		{"overlay's own", func(t *testing.T, root string) {
			if got := names(t, root+"/o"); got != "x" {
				t.Errorf("got %q", got)
			}
		}, "=EP o=EL"},
		{"a whiteout", func(t *testing.T, root string) { absent(t, root+"/gone") }, "=EP gone=E"},
		{"copy", func(t *testing.T, root string) {
			must(t, os.Chmod(root+"/d/b", 0o600))
			upper := filepath.Join(filepath.Dir(root), "upper/d/b")
			if got := xattr(t, upper, "user.u") + xattr(t, upper, "trusted.t"); got != "value\x00\x01" {
				t.Errorf("got %q", got)
			}
		}, "=EP d=EX d/b=ECX"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, _ := marked(t).written(true)
			fs := show(t, Options{}, p, draw(t).file("z", "z").part())
			root := over(t, fs.Dir(0), fs.Dir(1), native(t, "o/hidden=h", "gone=g"))
			c.do(t, root)
			if got := looked(fs, 0); got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
			if got := looked(fs, 1); !strings.HasPrefix(got, "=EP") { // what it has would decide if this one had nothing
				t.Errorf("the other part: %s", got)
			}
		})
	}
}

// TestPlain: where no part has attributes, that is what every part was looked at for, and the kernel asks once.
func TestPlain(t *testing.T) {
	fs := show(t, Options{}, draw(t).file("a", "a").part(), draw(t).file("b/c", "c").part())
	for range 2 {
		if got := xattr(t, fs.Dir(1)+"/b/c", "user.u"); got != "operation not supported" {
			t.Errorf("got %q", got)
		}
		if got := xattrs(t, fs.Dir(1)+"/b"); got != "operation not supported" {
			t.Errorf("got %q", got)
		}
	}
	if got := looked(fs, 0) + " " + looked(fs, 1); got != "=EP =EP b=E b/c=E" {
		t.Errorf("got %s", got)
	}
}

// TestAccessList: an access control list decides as it does in a native layer, and whoever it may decide for is noted to have asked.
func TestAccessList(t *testing.T) {
	// user::rw-, user:1000:r--, group::---, mask::r--, other::---
	list := binary.LittleEndian.AppendUint32(nil, 2)
	for _, e := range []struct {
		tag, may uint16
		id       uint32
	}{{0x01, 6, ^uint32(0)}, {0x02, 4, 1000}, {0x04, 0, ^uint32(0)}, {0x10, 4, ^uint32(0)}, {0x20, 0, ^uint32(0)}} {
		list = binary.LittleEndian.AppendUint16(list, e.tag)
		list = binary.LittleEndian.AppendUint16(list, e.may)
		list = binary.LittleEndian.AppendUint32(list, e.id)
	}
	s := draw(t)
	n := s.fileNode("list", 0o640)
	n.Xattrs = []tree.Xattr{{Name: "system.posix_acl_access", Value: list}}
	p, dir := s.put("list", n).put("mode", s.fileNode("mode", 0o640)).written(true)
	fs := show(t, Options{}, p)
	for _, lower := range []string{dir, fs.Dir(0)} {
		root, err := unix.Open(over(t, lower), unix.O_PATH|unix.O_DIRECTORY, 0)
		must(t, err)
		// The way to the root is for this user only, so it is handed on.
		cmd := exec.Command("setpriv", "--reuid=1000", "--regid=1000", "--clear-groups", "sh", "-c", "cat /proc/self/fd/3/list; cat /proc/self/fd/3/mode 2>&1")
		cmd.ExtraFiles = []*os.File{os.NewFile(uintptr(root), "root")}
		out, _ := cmd.CombinedOutput()
		cmd.ExtraFiles[0].Close()
		if !strings.HasPrefix(string(out), "listcat: ") || !strings.Contains(string(out), "Permission denied") {
			t.Errorf("%s: %s", lower, out)
		}
	}
	if got := looked(fs, 0); got != "=EP list=ECX mode=EX" {
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
	if got := looked(fs, 0); got != "=EP d=E o=E" {
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

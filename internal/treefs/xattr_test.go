package treefs

import (
	"errors"
	"os"
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
		{"nothing", func(*testing.T, string) {}, "=E"},
		{"read", func(t *testing.T, root string) { read(t, root+"/d/a") }, "=E d=E d/a=EC"},
		{"get", func(t *testing.T, root string) {
			if got := xattr(t, root+"/d/b", "user.u"); got != "value" {
				t.Errorf("got %q", got)
			}
		}, "=E d=E d/b=EX"},
		{"get none", func(t *testing.T, root string) {
			if got := xattr(t, root+"/d/a", "user.u"); got != "no data available" {
				t.Errorf("got %q", got)
			}
		}, "=E d=E d/a=EX"},
		{"list", func(t *testing.T, root string) {
			if got := xattrs(t, root+"/d/b"); got != "trusted.t user.u" {
				t.Errorf("got %q", got)
			}
		}, "=E d=E d/b=EX"},
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
		}, "=E d=EX d/b=ECX"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, _ := marked(t).written(true)
			fs := show(t, Options{}, p, draw(t).file("z", "z").part())
			root := over(t, fs.Dir(0), fs.Dir(1), native(t, "o/hidden=h", "gone=g"))
			c.do(t, root)
			if got := looked(fs, 0); got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
			if got := looked(fs, 1); strings.Contains(got, "P") {
				t.Errorf("the other part: %s", got)
			}
		})
	}
}

// TestPlain: one part without attributes does not make the other plain, and two that have none are asked once.
func TestPlain(t *testing.T) {
	fs := show(t, Options{}, draw(t).file("a", "a").part(), draw(t).file("b/c", "c").part())
	if got := looked(fs, 0) + looked(fs, 1); got != "=E=E" {
		t.Errorf("nobody has asked: %s", got)
	}
	if got := xattr(t, fs.Dir(1)+"/b/c", "user.u"); got != "operation not supported" {
		t.Errorf("got %q", got)
	}
	if got := looked(fs, 0) + " " + looked(fs, 1); got != "=EP =EP b=E b/c=E" {
		t.Errorf("got %s", got)
	}
	if got := xattrs(t, fs.Dir(1)+"/b"); got != "" && got != "operation not supported" {
		t.Errorf("got %q", got)
	}
}

// TestMarksDirectly: overlay's mark on an opaque directory is there for overlay, and is in no list.
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
	if got := xattrs(t, fs.Dir(0)+"/o"); got != "" {
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

package treefs

import (
	"errors"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestLooks has one rule of DESIGN section 3 in each case: what a step does through an overlay, and what is noted of it.
func TestLooks(t *testing.T) {
	for _, c := range []struct {
		name string
		do   func(t *testing.T, root string)
		want string
	}{
		{"nothing", func(*testing.T, string) {}, "=E"},
		{"an absent name", func(t *testing.T, root string) { absent(t, root+"/nothing") }, "=E nothing=E"},
		{"an absent name below", func(t *testing.T, root string) { absent(t, root+"/d/nothing") }, "=E d=E d/nothing=E"},
		{"below an absent name", func(t *testing.T, root string) { absent(t, root+"/no/thing") }, "=E no=E"},
		{"an entry", func(t *testing.T, root string) { stat(t, root+"/d/a") }, "=E d=E d/a=E"},
		{"a listing", func(t *testing.T, root string) { names(t, root+"/d") }, "=E d=EL"},
		{"an open directory", func(t *testing.T, root string) {
			fd, err := unix.Open(root+"/d", unix.O_RDONLY|unix.O_DIRECTORY, 0)
			must(t, err)
			unix.Close(fd)
		}, "=E d=E"},
		{"contents", func(t *testing.T, root string) { read(t, root+"/d/a") }, "=E d=E d/a=EC"},
		{"an empty file", func(t *testing.T, root string) { read(t, root+"/empty") }, "=E empty=E"},
		{"a link", func(t *testing.T, root string) {
			if l, err := os.Readlink(root + "/link"); err != nil || l != "d/a" {
				t.Errorf("got %q, %v", l, err)
			}
		}, "=E link=E"},
		{"through a link", func(t *testing.T, root string) { read(t, root+"/link") }, "=E d=E d/a=EC link=E"},
		{"change of mode", func(t *testing.T, root string) { must(t, os.Chmod(root+"/d/a", 0o600)) }, "=E d=E d/a=EC"},
		{"overwritten", func(t *testing.T, root string) { must(t, os.WriteFile(root+"/d/a", []byte("new"), 0o644)) }, "=E d=E d/a=E"},
		{"removed", func(t *testing.T, root string) { must(t, os.Remove(root+"/d/a")) }, "=E d=E d/a=E"},
		{"renamed", func(t *testing.T, root string) { must(t, os.Rename(root+"/d/a", root+"/d/z")) }, "=E d=E d/a=EC d/z=E"},
		{"made beside", func(t *testing.T, root string) { must(t, os.WriteFile(root+"/d/new", nil, 0o644)) }, "=E d=E d/new=E"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := draw(t).file("d/a", "a").file("d/b", "b").file("empty", "").link("link", "d/a")
			p, _ := s.written(true)
			fs := show(t, Options{}, p)
			root := over(t, fs.Dir(0), native(t, "native/x=x"))
			c.do(t, root)
			if got := looked(fs, 0); got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
			if err := fs.Err(); err != nil {
				t.Error(err)
			}
		})
	}
}

func absent(t *testing.T, path string) {
	t.Helper()
	for range 3 {
		if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: got %v", path, err)
		}
	}
}

func stat(t *testing.T, path string) {
	t.Helper()
	_, err := os.Lstat(path)
	must(t, err)
}

func names(t *testing.T, path string) string {
	t.Helper()
	entries, err := os.ReadDir(path)
	must(t, err)
	var out []string
	for _, e := range entries {
		out = append(out, e.Name())
	}
	return strings.Join(out, " ")
}

package treefs

import (
	"os"
	"os/exec"
	"testing"

	"golang.org/x/sys/unix"
)

// TestDirsThatTheStepChanged: what is below a directory that a step modified, copied up, renamed or whited out is still noted. The
// observed part lies over a native layer that has the directory d too.
func TestDirsThatTheStepChanged(t *testing.T) {
	for _, c := range []struct {
		name string
		do   func(t *testing.T, root string)
		want string
	}{
		{"merged and one name", func(t *testing.T, root string) { stat(t, root+"/d/a") }, "=E d=E d/a=E"},
		{"merged and the native name", func(t *testing.T, root string) { stat(t, root+"/d/n") }, "=E d=E d/n=E"},
		{"written to and read", func(t *testing.T, root string) {
			must(t, os.WriteFile(root+"/o/new", nil, 0o644))
			read(t, root+"/o/a")
			absent(t, root+"/o/no")
		}, "=E o=E o/a=EC o/new=E o/no=E"},
		{"changed mode and read", func(t *testing.T, root string) {
			must(t, os.Chmod(root+"/o", 0o700))
			read(t, root+"/o/a")
		}, "=E o=E o/a=EC"},
		{"removed whole", func(t *testing.T, root string) { must(t, os.RemoveAll(root+"/o/sub")) }, "=E o=E o/sub=EL o/sub/x=E"},
		{"removed and made again", func(t *testing.T, root string) {
			must(t, os.RemoveAll(root+"/o/sub"))
			must(t, os.Mkdir(root+"/o/sub", 0o755))
			absent(t, root+"/o/sub/x")
			absent(t, root+"/o/sub/y")
		}, "=E o=E o/sub=EL o/sub/x=E"},
		{"removed while full", func(t *testing.T, root string) {
			if err := unix.Rmdir(root + "/o/sub"); err != unix.ENOTEMPTY {
				t.Errorf("got %v", err)
			}
		}, "=E o=E o/sub=EL"},
		{"moved by mv", func(t *testing.T, root string) {
			if err := unix.Rename(root+"/o/sub", root+"/o/moved"); err != unix.EXDEV {
				t.Errorf("got %v", err)
			}
			if out, err := exec.Command("mv", root+"/o/sub", root+"/o/moved").CombinedOutput(); err != nil {
				t.Errorf("%v: %s", err, out)
			}
			if got := read(t, root+"/o/moved/x"); got != "x" {
				t.Errorf("got %s", got)
			}
		}, "=E o=E o/moved=E o/sub=EL o/sub/x=EC"},
		{"linked to", func(t *testing.T, root string) {
			must(t, os.Link(root+"/o/a", root+"/o/z"))
			read(t, root+"/o/z")
		}, "=E o=E o/a=EC o/z=E"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, _ := draw(t).file("d/a", "a").file("d/b", "b").file("o/a", "a").file("o/b", "b").file("o/sub/x", "x").written(true)
			fs := show(t, Options{}, p)
			c.do(t, over(t, fs.Dir(0), native(t, "d/n=n")))
			if got := looked(fs, 0); got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
		})
	}
}

// TestListingOfMergedDirs: where overlay gives files of all layers one device number (xino=on), it looks up each name of a merged
// directory to list it, and all of the directory's entries are noted. Without, the listing is.
func TestListingOfMergedDirs(t *testing.T) {
	for _, c := range []struct{ xino, want string }{
		{"on", "=E d=EL d/a=E d/b=E d/n=E o=EL o/a=E o/new=E"},
		{"off", "=E d=EL o=EL o/new=E"},
	} {
		p, _ := draw(t).file("d/a", "a").file("d/b", "b").file("o/a", "a").written(true)
		fs := show(t, Options{}, p)
		root, done := overlayOn(t, c.xino, fs.Dir(0), native(t, "d/n=n"))
		must(t, os.WriteFile(root+"/o/new", nil, 0o644))
		if got := names(t, root+"/d") + ", " + names(t, root+"/o"); got != "a b n, a new" {
			t.Errorf("xino=%s: listed %s", c.xino, got)
		}
		if got := looked(fs, 0); got != c.want {
			t.Errorf("xino=%s: got  %s\nwant %s", c.xino, got, c.want)
		}
		done()
	}
}

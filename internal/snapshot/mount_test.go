package snapshot

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"larder/internal/layer"
)

// TestMount stacks, writes, commits and stacks again, on root paths and kernels of all kinds.
func TestMount(t *testing.T) {
	for _, c := range []struct {
		name, root string
		layers     int
		classic    bool
	}{
		{name: "one", layers: 1},
		{name: "none", layers: 0},
		{name: "127 layers", layers: 127},
		{name: "127 layers, classic mount", layers: 127, classic: true},
		{name: "colon and comma", root: "a:b,c=d", layers: 3},
		{name: "colon and comma, classic mount", root: "a:b,c=d", layers: 3, classic: true},
		{name: "backslash and space", root: `a\b c\:`, layers: 2},
		{name: "long", root: strings.Repeat("long/", 60), layers: 127},
		{name: "long, classic mount", root: strings.Repeat("long/", 60), layers: 127, classic: true},
		{name: "one, classic mount", layers: 1, classic: true},
		{name: "none, classic mount", layers: 0, classic: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			defer classicOnly.Store(classicOnly.Swap(c.classic))
			s := openStore(t, filepath.Join(t.TempDir(), c.root), Options{})
			var st *layer.State
			for i := range c.layers {
				files := []string{fmt.Sprintf("f%d=%d", i, i), fmt.Sprintf("same=%d", i)}
				if i > 1 {
					files = append(files, fmt.Sprintf(".wh.f%d", i-2))
				}
				st = st.Push(image(t, s, files...))
			}
			check := func(root string) {
				t.Helper()
				for i := range c.layers {
					want := fmt.Sprint(i)
					if i < c.layers-2 {
						want = "-"
					}
					if got := read(t, fmt.Sprintf("%s/f%d", root, i)); got != want {
						t.Errorf("f%d: got %s, want %s", i, got, want)
					}
				}
			}
			m := mount(t, s, st, MountOptions{})
			check(m.Root)
			write(t, m.Root+"/new", "new")
			if c.layers > 0 {
				if err := os.Remove(m.Root + "/same"); err != nil {
					t.Fatal(err)
				}
			}
			l, err := m.Commit(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			m = mount(t, s, st.Push(l), MountOptions{ReadOnly: true})
			check(m.Root)
			if got := read(t, m.Root+"/new") + read(t, m.Root+"/same"); got != "new-" {
				t.Errorf("got %s", got)
			}
			if err := os.WriteFile(m.Root+"/x", nil, 0o600); !os.IsPermission(err) && err == nil {
				t.Error("a read-only mount was written to")
			}
			if _, err := m.Commit(t.Context()); err == nil {
				t.Error("a read-only mount was committed")
			}
		})
	}
}

// TestMountOptions checks that overlay runs with the options that DESIGN section 3 pins, whatever the host's defaults.
func TestMountOptions(t *testing.T) {
	s := openStore(t, t.TempDir(), Options{})
	for _, classic := range []bool{false, true} {
		defer classicOnly.Store(classicOnly.Swap(classic))
		m := mount(t, s, layer.Stack(image(t, s, "a=a")), MountOptions{})
		b, err := os.ReadFile("/proc/self/mountinfo")
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(b)) {
			if !strings.Contains(line, m.Root+" ") {
				continue
			}
			if !strings.Contains(line, "volatile") {
				t.Errorf("volatile is not in %s", line)
			}
			for _, bad := range []string{"metacopy=on", "redirect_dir=on", "redirect_dir=follow", "index=on", "xino=off", "xino=auto"} {
				if strings.Contains(line, bad) {
					t.Errorf("%s is in %s", bad, line)
				}
			}
		}
	}
}

func TestMountRootMeta(t *testing.T) {
	s := openStore(t, t.TempDir(), Options{})
	st := layer.Stack(image(t, s, "./", "a=a"))
	m := mount(t, s, st, MountOptions{})
	if err := os.Chmod(m.Root, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(m.Root, 3, 4); err != nil {
		t.Fatal(err)
	}
	l, err := m.Commit(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	m = mount(t, s, st.Push(l), MountOptions{})
	var fi unix.Stat_t
	if err := unix.Stat(m.Root, &fi); err != nil {
		t.Fatal(err)
	}
	if fi.Mode&0o7777 != 0o700 || fi.Uid != 3 || fi.Gid != 4 {
		t.Errorf("got %o %d:%d", fi.Mode&0o7777, fi.Uid, fi.Gid)
	}
}

// TestSameLayerTwice stacks a layer that is there already, which two steps that do the same make.
func TestSameLayerTwice(t *testing.T) {
	s := openStore(t, t.TempDir(), Options{})
	base := image(t, s, "d/gone=gone", "kept=kept")
	twice := image(t, s, "d/a=a", ".wh.kept", "e/.wh..wh..opq", "e/x=x")
	between := image(t, s, "d/.wh.a", "kept=again", "e/y=y")
	m := mount(t, s, layer.Stack(base, twice, between, twice), MountOptions{})
	for path, want := range map[string]string{"d/gone": "gone", "d/a": "a", "kept": "-", "e/x": "x", "e/y": "-"} {
		if got := read(t, filepath.Join(m.Root, path)); got != want {
			t.Errorf("%s: got %s, want %s", path, got, want)
		}
	}
}

func TestTooManyLayers(t *testing.T) {
	o := overlay{lowers: make([]string, 501)}
	if err := o.mountAt("/nowhere"); err == nil || !strings.Contains(err.Error(), "501 layers") {
		t.Errorf("got %v", err)
	}
}

// onOverlay makes a directory that lies on an overlay, as the root file system of most containers does.
func onOverlay(t testing.TB) string {
	t.Helper()
	needRoot(t)
	dir := t.TempDir()
	for _, d := range []string{"lower", "upper", "work", "container"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	o := overlay{lowers: []string{dir + "/lower"}, upper: dir + "/upper", work: dir + "/work"}
	if err := o.mountAt(dir + "/container"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := removeTree(dir); err != nil {
			t.Error(err)
		}
	})
	return dir + "/container"
}

// TestRootOnOverlay opens a store whose root cannot hold uppers.
func TestRootOnOverlay(t *testing.T) {
	container := onOverlay(t)
	volume := t.TempDir()
	if err := unix.Mount("tmpfs", volume, "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Unmount(volume, unix.MNT_DETACH) })
	checkout := filepath.Join(volume, "group/project")
	if err := os.MkdirAll(checkout, 0o755); err != nil {
		t.Fatal(err)
	}
	root := container + "/root"
	s := openStore(t, root, Options{Places: []string{container, checkout}})
	if filepath.Dir(s.Base()) != volume {
		t.Errorf("layers are at %s", s.Base())
	}
	st := layer.Stack(image(t, s, "a=a"), image(t, s, ".wh.a"))
	m := mount(t, s, st, MountOptions{})
	if got := read(t, m.Root+"/a"); got != "-" {
		t.Errorf("got %s", got)
	}
	write(t, m.Root+"/b", "b")
	if _, err := m.Commit(t.Context()); err != nil {
		t.Error(err)
	}
	if again := openStore(t, root, Options{}); again.Base() != s.Base() {
		t.Errorf("another process has its layers at %s, this one at %s", again.Base(), s.Base())
	}
}

func TestOwnTmpfs(t *testing.T) {
	root := onOverlay(t)
	for range 2 {
		base, err := ownTmpfs(root)
		if err != nil {
			t.Fatal(err)
		}
		if err := tryOverlay(base); err != nil {
			t.Error(err)
		}
	}
	if m, err := mountsBelow(root); err != nil || len(m) != 2 {
		t.Errorf("got %v, %v", m, err)
	}
}

package snapshot

import (
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"larder/internal/fault"
	"larder/internal/layer"
)

// TestDiskFull runs out of space while a layer is unpacked and while one is committed; afterwards there is room again.
func TestDiskFull(t *testing.T) {
	needRoot(t)
	root := t.TempDir()
	if err := unix.Mount("tmpfs", root, "tmpfs", 0, "size=4m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Unmount(root, unix.MNT_DETACH) })
	s := openStore(t, root, Options{})
	check := func(err error) {
		t.Helper()
		if err == nil || fault.Of(err) != fault.Machine || !strings.Contains(err.Error(), root) || !strings.Contains(err.Error(), "prune") {
			t.Errorf("got %v", err)
		}
		if list, _ := os.ReadDir(s.proc); len(list) > 0 {
			t.Errorf("left: %v", list)
		}
	}
	_, err := s.Dir(t.Context(), image(t, s, "big="+strings.Repeat("x", 5<<20)))
	check(err)
	st := layer.Stack(image(t, s, "f="+strings.Repeat("x", 2<<20)))
	m := mount(t, s, st, MountOptions{})
	if err := os.WriteFile(m.Root+"/big", make([]byte, 3<<20), 0o644); err == nil {
		t.Error("the disk is not full")
	}
	_, err = m.Commit(t.Context())
	if err != nil {
		check(err)
	}
	if _, err := s.Dir(t.Context(), image(t, s, "small=x")); err != nil && strings.Contains(err.Error(), "no space") {
		t.Log(err) // what the step wrote filled it to the brim, and is a layer now
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	s = openStore(t, root, Options{})
	if l, ok := s.Layer(t.Context(), st.Top().Identity); !ok || l == nil {
		t.Error("the good layer is gone")
	}
}

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestManyLayers builds an image of 127 layers, the most that overlay's users count on.
func TestManyLayers(t *testing.T) {
	var b strings.Builder
	b.WriteString("ARG REGISTRY\nFROM ${REGISTRY}/busybox\n") // one layer
	for i := range 124 {
		fmt.Fprintf(&b, "COPY src/f%03d /f%03d\n", i, i)
	}
	b.WriteString("RUN test $(ls /f* | wc -l) = 124 && rm /f000\nRUN test ! -e /f000 && touch /done\n")
	s := newSite(t, b.String())
	root := filepath.Join(s.work, "root")
	s.build(t, root, filepath.Join(s.work, "out"))
	nothingLeft(t, root, root)
}

// TestOddRoots builds under local roots that confuse mount options, and on overlay, which cannot hold uppers.
func TestOddRoots(t *testing.T) {
	s := newSite(t, small)
	want := s.build(t, filepath.Join(s.work, "plain"), filepath.Join(s.work, "out"))
	for _, name := range []string{"a:b,c", `back\slash`, "space and 'quote'", strings.Repeat("long", 50)} {
		t.Run(name, func(t *testing.T) {
			root := filepath.Join(s.work, name, "root")
			if got := s.build(t, root, filepath.Join(s.work, "out")); got != want {
				t.Errorf("%s, a plain root gives %s", got, want)
			}
			nothingLeft(t, root, root)
		})
	}
	t.Run("overlay", func(t *testing.T) {
		merged := mountOverlay(t, filepath.Join(s.work, "container"))
		if got := s.build(t, filepath.Join(merged, "root"), filepath.Join(s.work, "out")); got != want {
			t.Errorf("%s, a plain root gives %s", got, want)
		}
		nothingLeft(t, filepath.Join(merged, "root"), merged)
	})
}

// mountOverlay makes what a container's own file system is.
func mountOverlay(t *testing.T, dir string) string {
	t.Helper()
	for _, d := range []string{"lower", "upper", "work", "merged"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	merged := filepath.Join(dir, "merged")
	options := fmt.Sprintf("lowerdir=%s/lower,upperdir=%s/upper,workdir=%s/work", dir, dir, dir)
	if err := unix.Mount("overlay", merged, "overlay", 0, options); err != nil {
		t.Skipf("needs overlay: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(merged, 0); err != nil {
			t.Errorf("unmount %s: %v", merged, err)
			_ = unix.Unmount(merged, unix.MNT_DETACH)
		}
	})
	return merged
}

package layer

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/pkg/archive"
	"golang.org/x/sys/unix"
	"pgregory.net/rapid"
)

// cage is a directory to unpack into that lies in another one whose content no layer may touch.
type cage struct {
	outer, dir string
	before     string
}

func newCage(t testing.TB, dir string) cage {
	t.Helper()
	outer, err := os.MkdirTemp(dir, "cage-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(outer) })
	c := cage{outer: outer, dir: filepath.Join(outer, "dir")}
	for _, d := range []string{"dir", "a", "etc"} {
		if err := os.Mkdir(filepath.Join(outer, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, f := range []string{"canary", "a/b", "etc/passwd"} {
		if err := os.WriteFile(filepath.Join(outer, f), []byte("sings"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	c.before = c.outside(t)
	return c
}

// outside describes the outer directory without the inner one.
func (c cage) outside(t testing.TB) string {
	t.Helper()
	root, err := FromUpper(context.Background(), c.outer)
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for line := range strings.Lines(describe(t, root, true)) {
		if !strings.HasPrefix(line, "/dir") {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines, "")
}

func (c cage) check(t testing.TB) {
	t.Helper()
	if after := c.outside(t); after != c.before {
		t.Fatalf("outside changed:\n%s\nwas:\n%s", after, c.before)
	}
}

// FuzzUnpack feeds bytes as a layer blob, plain or compressed: no panic, nothing outside the directory, and where it
// succeeds, the tree is what is on disk.
func FuzzUnpack(f *testing.F) {
	needRoot(f)
	for _, seed := range [][]tar.Header{
		{file("a/b", "x"), hardlink("c", "a/b"), symlink("d", "a"), file("d/e", "y")},
		{symlink("l", "/etc"), file("l/passwd", "x"), file(".wh.l", ""), dir("l")},
		{{Name: "x", Typeflag: tar.TypeReg, Linkname: "1", PAXRecords: map[string]string{"SCHILY.xattr.user.a": "b", "mtime": "1.5"}}},
		{{Name: "n", Typeflag: tar.TypeBlock, Devmajor: 7}, {Name: "p", Typeflag: tar.TypeFifo}, file("d/.wh..wh..opq", "")},
	} {
		data := makeTar(f, seed...)
		f.Add(data)
		var z bytes.Buffer
		w := gzip.NewWriter(&z)
		w.Write(data)
		w.Close()
		f.Add(z.Bytes())
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		c := newCage(t, "/dev/shm")
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		root, err := UnpackBlob(ctx, bytes.NewReader(data), "", c.dir)
		c.check(t)
		if err != nil {
			return
		}
		back, err := FromUpper(t.Context(), c.dir)
		if err != nil {
			t.Fatal(err)
		}
		if got, want := describe(t, back, false), describe(t, root, false); got != want {
			t.Fatalf("on disk:\n%s\nin the tree:\n%s", got, want)
		}
	})
}

// drawTar draws entries whose paths, links and whiteouts meet each other and try to get out.
func drawTar(t *rapid.T, whiteouts bool) []tar.Header {
	elem := rapid.SampledFrom([]string{"a", "b", "c", "etc", "..", ".", "canary"})
	name := func(label string) string {
		p := strings.Join(rapid.SliceOfN(elem, 1, 4).Draw(t, label), "/")
		if rapid.IntRange(0, 9).Draw(t, label+" absolute") == 0 {
			p = "/" + p
		}
		return p
	}
	return rapid.SliceOfN(rapid.Custom(func(t *rapid.T) tar.Header {
		h := tar.Header{
			Name: name("name"), ModTime: time.Unix(int64(rapid.IntRange(1, 1e9).Draw(t, "time")), 0),
			Mode: rapid.SampledFrom([]int64{0o644, 0o755, 0o4711, 0o1777}).Draw(t, "mode"), Uid: rapid.IntRange(0, 2).Draw(t, "owner"),
		}
		kinds := []byte{tar.TypeReg, tar.TypeReg, tar.TypeDir, tar.TypeSymlink, tar.TypeSymlink, tar.TypeLink, tar.TypeLink, tar.TypeFifo, tar.TypeChar}
		if whiteouts {
			kinds = append(kinds, 'W', 'O')
		}
		switch h.Typeflag = rapid.SampledFrom(kinds).Draw(t, "kind"); h.Typeflag {
		case tar.TypeReg:
			h.Linkname = rapid.SampledFrom([]string{"", "1", "2"}).Draw(t, "data")
		case tar.TypeSymlink, tar.TypeLink:
			h.Linkname = name("target")
		case tar.TypeChar:
			h.Devmajor, h.Devminor = 1, 3
		case 'W':
			h.Typeflag = tar.TypeReg
			h.Name = filepath.Join(filepath.Dir(h.Name), ".wh."+elem.Filter(func(s string) bool { return s[0] != '.' }).Draw(t, "gone"))
		case 'O':
			h.Typeflag, h.Name = tar.TypeReg, h.Name+"/"+whiteoutOpaque
		}
		return h
	}), 1, 12).Draw(t, "entries")
}

// TestUnpackProperties: whatever is in the tar, nothing outside changes, the tree is what is on disk, and it survives being
// written, unpacked and materialised.
func TestUnpackProperties(t *testing.T) {
	needRoot(t)
	tmp := t.TempDir()
	rapid.Check(t, func(rt *rapid.T) {
		in := makeTar(t, drawTar(rt, true)...)
		c := newCage(t, tmp)
		defer os.RemoveAll(c.outer)
		root, err := Unpack(t.Context(), bytes.NewReader(in), c.dir)
		c.check(t)
		if errors.Is(err, ErrBadTar) {
			return
		}
		if err != nil {
			rt.Fatal(err)
		}
		back, err := FromUpper(t.Context(), c.dir)
		if err != nil {
			rt.Fatal(err)
		}
		want := describe(t, root, true)
		if got := describe(t, back, true); got != want {
			rt.Fatalf("on disk:\n%s\nin the tree:\n%s", got, want)
		}
		var again bytes.Buffer
		src := DirSource(c.dir, root)
		if err := Write(t.Context(), &again, root, src, WriteOptions{}); err != nil {
			rt.Fatal(err)
		}
		second := newCage(t, tmp)
		defer os.RemoveAll(second.outer)
		unpacked, err := Unpack(t.Context(), &again, second.dir)
		if err != nil {
			rt.Fatal(err)
		}
		if got, want := describeAs(t, unpacked, true, true), describeAs(t, root, true, true); got != want {
			rt.Fatalf("written and unpacked:\n%s\nbefore:\n%s", got, want)
		}
		third := newCage(t, tmp)
		defer os.RemoveAll(third.outer)
		if err := Materialise(t.Context(), root, src, third.dir); err != nil {
			rt.Fatal(err)
		}
		if back, err = FromUpper(t.Context(), third.dir); err != nil {
			rt.Fatal(err)
		}
		if got := describe(t, back, true); got != want {
			rt.Fatalf("materialised:\n%s\nbefore:\n%s", got, want)
		}
	})
}

// TestUnpackAsContainerd compares with what containerd, and so BuildKit, makes of the same tar. Whiteouts are left out: there
// containerd lets the order of entries count, which the image specification does not.
func TestUnpackAsContainerd(t *testing.T) {
	needRoot(t)
	tmp := t.TempDir()
	rapid.Check(t, func(rt *rapid.T) {
		headers := drawTar(rt, false)
		for i, h := range headers {
			if h.Typeflag == tar.TypeSymlink || h.Typeflag == tar.TypeLink {
				// Spellings that no tool writes: containerd cleans "x/.." in a symlink's target before it looks at x
				// (the kernel, and we, do not) and follows a symlink when a hard link to it ends in "/.".
				headers[i].Linkname = path.Clean(h.Linkname)
			}
		}
		in := makeTar(t, headers...)
		ours, theirs := newCage(t, tmp), newCage(t, tmp)
		defer os.RemoveAll(ours.outer)
		defer os.RemoveAll(theirs.outer)
		root, err := Unpack(t.Context(), bytes.NewReader(in), ours.dir)
		_, terr := archive.Apply(t.Context(), theirs.dir, bytes.NewReader(in))
		if terr != nil {
			return // what containerd refuses we may do either way
		}
		if err != nil {
			rt.Fatalf("containerd unpacks it, we say: %v", err)
		}
		back, err := FromUpper(t.Context(), theirs.dir)
		if err != nil {
			rt.Fatal(err)
		}
		if got, want := describe(t, root, false), describe(t, back, false); got != want {
			rt.Fatalf("ours:\n%s\ncontainerd's:\n%s", got, want)
		}
	})
}

// TestUnpackCancelled stops in the middle of a file that would take for ever.
func TestUnpackCancelled(t *testing.T) {
	needRoot(t)
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	if err := w.WriteHeader(&tar.Header{Name: "f", Size: 1 << 40, Mode: 0o644}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	r := io.MultiReader(&b, readerFunc(func(p []byte) (int, error) {
		cancel()
		return len(p), nil
	}))
	if _, err := UnpackBlob(ctx, r, "", t.TempDir()); !errors.Is(err, context.Canceled) {
		t.Fatalf("error is %v", err)
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// TestFromUpperRefusesRedirects: such a directory holds no whole files.
func TestFromUpperRefusesRedirects(t *testing.T) {
	needRoot(t)
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "d"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Setxattr(filepath.Join(dir, "d"), overlayRedirect, []byte("/x"), 0); err != nil {
		t.Fatal(err)
	}
	if _, err := FromUpper(t.Context(), dir); err == nil || !strings.Contains(err.Error(), "redirect_dir=off") {
		t.Fatalf("error is %v", err)
	}
}

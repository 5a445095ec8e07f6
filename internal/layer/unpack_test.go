package layer

import (
	"archive/tar"
	"bytes"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// needRoot skips where devices, owners and trusted attributes cannot be made.
func needRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: makes devices and trusted attributes")
	}
}

func makeTar(t testing.TB, headers ...tar.Header) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range headers {
		var data string
		if h.Typeflag == tar.TypeReg || h.Typeflag == 0 {
			data = h.Linkname // tests give a file's content there
			h.Linkname, h.Size = "", int64(len(data))
		}
		if h.Mode == 0 {
			h.Mode = 0o644
		}
		if h.ModTime.IsZero() {
			h.ModTime = time.Unix(1e9, 0)
		}
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(data)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func file(name, data string) tar.Header { return tar.Header{Name: name, Linkname: data} }
func dir(name string) tar.Header {
	return tar.Header{Name: name + "/", Typeflag: tar.TypeDir, Mode: 0o755}
}
func symlink(name, to string) tar.Header {
	return tar.Header{Name: name, Typeflag: tar.TypeSymlink, Linkname: to}
}
func hardlink(name, to string) tar.Header {
	return tar.Header{Name: name, Typeflag: tar.TypeLink, Linkname: to}
}

func TestUnpack(t *testing.T) {
	needRoot(t)
	for _, c := range []struct {
		name string
		in   []tar.Header
		want string // as short writes it
	}{
		{"implied parents", []tar.Header{file("a/b/c", "x")}, "/a D755\n/a/b D755\n/a/b/c F644 x\n"},
		{"last one wins", []tar.Header{file("f", "one"), file("f", "two")}, "/f F644 two\n"},
		{"file replaces directory", []tar.Header{file("d/x", "1"), file("d", "2")}, "/d F644 2\n"},
		{"directory replaces file", []tar.Header{file("d", "1"), dir("d"), file("d/x", "2")}, "/d D755\n/d/x F644 2\n"},
		{"directories merge", []tar.Header{file("d/x", "1"), {Name: "d", Typeflag: tar.TypeDir, Mode: 0o700}, file("d/y", "2")}, "/d D700\n/d/x F644 1\n/d/y F644 2\n"},
		{"dots stop at the root", []tar.Header{file("../../a", "1"), file("/b", "2"), file("./c/../d", "3")}, "/a F644 1\n/b F644 2\n/d F644 3\n"},
		{"through a link", []tar.Header{symlink("l", "t/u"), file("l/f", "1")}, "/l -> t/u\n/t D755\n/t/u D755\n/t/u/f F644 1\n"},
		{"through an absolute link", []tar.Header{symlink("a/l", "/etc"), file("a/l/f", "1")}, "/a D755\n/a/l -> /etc\n/etc D755\n/etc/f F644 1\n"},
		{"through a link upwards", []tar.Header{symlink("a/b/l", "../../../../../x"), file("a/b/l/f", "1")}, "/a D755\n/a/b D755\n/a/b/l -> ../../../../../x\n/x D755\n/x/f F644 1\n"},
		{"link is replaced", []tar.Header{symlink("l", "/etc/passwd"), file("l", "1")}, "/l F644 1\n"},
		{"hard link", []tar.Header{file("a", "1"), hardlink("d/b", "a")}, "/a F644 1 =a\n/d D755\n/d/b F644 1 =a\n"},
		{"hard link by way of a link", []tar.Header{file("d/a", "1"), symlink("l", "d"), hardlink("b", "../l/a")}, "/b F644 1 =b\n/d D755\n/d/a F644 1 =b\n/l -> d\n"},
		{"hard link to a link", []tar.Header{symlink("a", "/x"), hardlink("b", "a")}, "/a -> /x =a\n/b -> /x =a\n"},
		{"hard link to itself", []tar.Header{file("a", "1"), hardlink("a", "./a")}, "/a F644 1\n"},
		{"whiteout", []tar.Header{file("d/.wh.x", ""), file(".wh.y", "")}, "/d D755\n/d/x W\n/y W\n"},
		{"whiteout beside its file", []tar.Header{file("x", "1"), file(".wh.x", ""), file(".wh.y", ""), file("y", "2")}, "/x F644 1\n/y F644 2\n"},
		{"whiteout of a directory that is here", []tar.Header{file("x/a", "1"), file(".wh.x", ""), file(".wh.y", ""), file("y/b", "2")}, "/x D755 opaque\n/x/a F644 1\n/y D755 opaque\n/y/b F644 2\n"},
		{"whiteout, file, directory", []tar.Header{file(".wh.x", ""), file("x", "1"), dir("x")}, "/x D755 opaque\n"},
		{"opaque", []tar.Header{file("d/a", "1"), file("d/.wh..wh..opq", "")}, "/d D755 opaque\n/d/a F644 1\n"},
		{"AUFS left-overs", []tar.Header{dir(".wh..wh.plnk"), file(".wh..wh.plnk/1.2", "1"), file(".wh..wh.aufs", "")}, ""},
		{"device 0:0 is a whiteout", []tar.Header{{Name: "x", Typeflag: tar.TypeChar}}, "/x W\n"},
		{"the root's own entry", []tar.Header{{Name: "./", Typeflag: tar.TypeDir, Mode: 0o700}, file("./a", "1")}, "/a F644 1\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			root, err := Unpack(t.Context(), bytes.NewReader(makeTar(t, c.in...)), dir)
			if err != nil {
				t.Fatal(err)
			}
			full := describe(t, root, true)
			if got := short(t, root); got != c.want {
				t.Errorf("tree:\n%s\nwant:\n%s", got, c.want)
			}
			back, err := FromUpper(t.Context(), dir)
			if err != nil {
				t.Fatal(err)
			}
			if again := describe(t, back, true); again != full {
				t.Errorf("read back:\n%s\nunpacked:\n%s", again, full)
			}
		})
	}
}

func TestUnpackRefuses(t *testing.T) {
	needRoot(t)
	long := strings.Repeat("x", 256)
	loop := []tar.Header{symlink("a", "b"), symlink("b", "a"), file("a/x", "1")}
	deep := []tar.Header{file(strings.Repeat("d/", 2100)+"f", "1")}
	for name, in := range map[string][]tar.Header{
		"hard link to nothing":     {hardlink("a", "b")},
		"hard link out":            {hardlink("a", "../../etc/passwd")},
		"hard link to a directory": {dir("d"), hardlink("a", "d")},
		"hard link to a whiteout":  {file(".wh.d", ""), hardlink("a", "d")},
		"file as a parent":         {file("a", "1"), file("a/b", "2")},
		"links in a circle":        loop,
		"long name":                {file(long, "1")},
		"deep path":                deep,
		"whiteout of dot":          {file(".wh..", "")},
		"whiteout of dot dot":      {file(".wh...", "")},
		"whiteout of nothing":      {file(".wh.", "")},
		"negative owner":           {{Name: "a", Uid: -1, Format: tar.FormatGNU}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			_, err := Unpack(t.Context(), bytes.NewReader(makeTar(t, in...)), dir)
			if err == nil || !strings.Contains(err.Error(), ErrBadTar.Error()) {
				t.Fatalf("error is %v", err)
			}
		})
	}
}

func TestUnpackMetadata(t *testing.T) {
	needRoot(t)
	mtime := time.Unix(1700000000, 123456789)
	pax := map[string]string{
		"SCHILY.xattr.user.a":                   "1\x00\xff",
		"LIBARCHIVE.xattr.user.b%20c":           "aGVsbG8",
		"SCHILY.xattr.trusted.overlay.redirect": "/etc",
		"SCHILY.xattr.security.selinux":         "x",
	}
	in := makeTar(t,
		tar.Header{Name: "f", Linkname: "data", Mode: 0o6755, Uid: 3000000, Gid: 7, ModTime: mtime, Format: tar.FormatPAX, PAXRecords: pax},
		tar.Header{Name: "d/", Typeflag: tar.TypeDir, Mode: 0o1777, Gid: 9, ModTime: mtime, Format: tar.FormatPAX, PAXRecords: pax},
		tar.Header{Name: "d/n", Typeflag: tar.TypeChar, Devmajor: 1, Devminor: 3, Mode: 0o666},
		tar.Header{Name: "d/p", Typeflag: tar.TypeFifo, Mode: 0o600},
		tar.Header{Name: "l", Typeflag: tar.TypeSymlink, Linkname: "f", Uid: 4, ModTime: mtime, Format: tar.FormatPAX, PAXRecords: pax},
		tar.Header{Name: "old", Linkname: "1", ModTime: time.Unix(-5, 0), Format: tar.FormatPAX},
	)
	dir := t.TempDir()
	root, err := Unpack(t.Context(), bytes.NewReader(in), dir)
	if err != nil {
		t.Fatal(err)
	}
	back, err := FromUpper(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	got := describe(t, root, true)
	if again := describe(t, back, true); got != again {
		t.Errorf("read back:\n%s\nunpacked:\n%s", again, got)
	}
	want := `/ kind=2
/d kind=2 mode=1777 owner=0:9 mtime=1700000000123456789 user.a="1\x00\xff" user.b c="hello"
/d/n kind=4 mode=666 owner=0:0 mtime=1000000000000000000 rdev=103
/d/p kind=6 mode=600 owner=0:0 mtime=1000000000000000000
/f kind=1 mode=6755 owner=3000000:7 mtime=1700000000123456789 user.a="1\x00\xff" user.b c="hello" size=4 3a6eb0790f39
/l kind=3 mode=777 owner=4:0 mtime=1700000000123456789 -> "f"
/old kind=1 mode=644 owner=0:0 mtime=-5000000000 size=1 6b86b273ff34
`
	if got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
	var st unix.Stat_t
	if err := unix.Lstat(dir+"/l", &st); err != nil || st.Uid != 4 {
		t.Errorf("link's owner: %d, %v", st.Uid, err)
	}
}

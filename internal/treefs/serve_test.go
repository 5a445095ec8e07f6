package treefs

import (
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"larder/internal/tree"
)

// TestAttributes: what stat shows of everything that a tree can hold, through an overlay.
func TestAttributes(t *testing.T) {
	s := draw(t)
	setuid := s.fileNode("#!", 0o4751)
	setuid.UID, setuid.GID = 1000, 70_000
	s.put("setuid", setuid)
	old := s.fileNode("old", 0o600)
	old.MTime = -1 // one nanosecond before 1970
	s.put("old", old)
	s.put("sticky", dirNode(0o1777))
	s.link("link", strings.Repeat("long/", 200))
	s.put("null", &tree.Node{Kind: tree.Char, Meta: tree.Meta{Mode: 0o666}, Rdev: unix.Mkdev(1, 3)})
	s.put("disk", &tree.Node{Kind: tree.Block, Meta: tree.Meta{Mode: 0o660, GID: 6}, Rdev: unix.Mkdev(259, 70_000)})
	s.put("pipe", &tree.Node{Kind: tree.Fifo, Meta: tree.Meta{Mode: 0o622}})
	s.put("socket", &tree.Node{Kind: tree.Socket, Meta: tree.Meta{Mode: 0o755}})
	fs := show(t, Options{}, s.part())
	root := over(t, fs.Dir(0))
	show := func(name string) string {
		var st unix.Stat_t
		if err := unix.Lstat(root+"/"+name, &st); err != nil {
			return err.Error()
		}
		return fmt.Sprintf("%o %d:%d %d bytes %d names %d:%d at %d, %d", st.Mode, st.Uid, st.Gid, st.Size, st.Nlink, unix.Major(st.Rdev), unix.Minor(st.Rdev), st.Mtim.Nano(), st.Ctim.Nano())
	}
	for name, want := range map[string]string{
		"setuid": "104751 1000:70000 2 bytes 1 names 0:0 at 1500000000000000002, 1500000000000000002",
		"old":    "100600 0:0 3 bytes 1 names 0:0 at -1, -1",
		"sticky": "41777 0:0 4096 bytes 1 names 0:0 at 1600000000000000001, 1600000000000000001",
		"link":   "120777 0:0 1000 bytes 1 names 0:0 at 0, 0",
		"null":   "20666 0:0 0 bytes 1 names 1:3 at 0, 0",
		"disk":   "60660 0:6 0 bytes 1 names 259:70000 at 0, 0",
		"pipe":   "10622 0:0 0 bytes 1 names 0:0 at 0, 0",
		"socket": "no such file or directory",
	} {
		if got := show(name); got != want {
			t.Errorf("%s: got  %s\nwant %s", name, got, want)
		}
	}
	if got := names(t, root); got != "disk link null old pipe setuid sticky" {
		t.Errorf("listed %s", got)
	}
	if n, err := unix.Write(open(t, root+"/null", unix.O_WRONLY), []byte("x")); n != 1 || err != nil {
		t.Errorf("write to a device: %d, %v", n, err)
	}
}

func open(t *testing.T, path string, flags int) int {
	t.Helper()
	fd, err := unix.Open(path, flags|unix.O_CLOEXEC, 0)
	must(t, err)
	t.Cleanup(func() { unix.Close(fd) })
	return fd
}

// TestHardLinks: the names of one file are one inode, and what was looked at by one of them is noted for all that were looked up.
func TestHardLinks(t *testing.T) {
	s := draw(t)
	one, lone := s.fileNode("one", 0o644), s.fileNode("lone", 0o644)
	one.Group, lone.Group = tree.NewGroup(), tree.NewGroup()
	p, _ := s.put("d/x", one).put("a", one).put("z", one).put("lone", lone).written(true)
	fs := show(t, Options{}, p)
	dir := fs.Dir(0)
	stat := func(name string) (ino, names uint64) {
		var st unix.Stat_t
		must(t, unix.Lstat(dir+"/"+name, &st))
		return st.Ino, uint64(st.Nlink)
	}
	z, n := stat("z")
	if n != 3 {
		t.Errorf("z has %d names", n)
	}
	if _, n := stat("lone"); n != 1 {
		t.Errorf("lone has %d names", n)
	}
	if got := looked(fs, 0); got != "=E lone=E z=E" {
		t.Errorf("got %s", got)
	}
	if x, _ := stat("d/x"); x != z {
		t.Errorf("d/x is %d, z is %d", x, z)
	}
	if got := read(t, dir+"/z"); got != "one" {
		t.Errorf("got %s", got)
	}
	if got := looked(fs, 0); got != "=E d=E d/x=EC lone=E z=EC" {
		t.Errorf("got %s", got)
	}
	// A listing shows the numbers that stat does, and looks at no entry.
	buf := make([]byte, 4096)
	size, err := unix.Getdents(open(t, dir, unix.O_RDONLY|unix.O_DIRECTORY), buf)
	must(t, err)
	listed := map[string]uint64{}
	for b := buf[:size]; len(b) > 0; b = b[binary.NativeEndian.Uint16(b[16:]):] {
		name, _, _ := strings.Cut(string(b[19:]), "\x00")
		listed[name] = binary.NativeEndian.Uint64(b)
	}
	if listed["a"] != z || listed["z"] != z || listed["lone"] == z || len(listed) != 6 {
		t.Errorf("inode %d; listed %v", z, listed)
	}
	if got := looked(fs, 0); got != "=EL d=E d/x=EC lone=E z=EC" {
		t.Errorf("got %s", got)
	}
}

// TestExec runs a program from an overlay on the file system, by another process.
func TestExec(t *testing.T) {
	for _, opt := range []Options{{}, {Copy: true}, {Passthrough: inMemory + 1}} {
		s := draw(t)
		sh, err := os.ReadFile("/bin/sh")
		must(t, err)
		large := append(sh, make([]byte, 4<<20)...)
		s.put("bin/small", s.fileNode(string(sh), 0o755)).put("bin/large", s.fileNode(string(large), 0o755))
		p, _ := s.written(true)
		fs := show(t, opt, p)
		root := over(t, fs.Dir(0))
		out, err := exec.Command("/bin/sh", "-c", root+"/bin/small -c 'echo small'; "+root+"/bin/large -c 'echo large'; cd "+root+" && bin/large -c 'echo again'").CombinedOutput()
		if err != nil || string(out) != "small\nlarge\nagain\n" {
			t.Errorf("%+v: %v: %s", opt, err, out)
		}
		if got := looked(fs, 0); got != "=E bin=E bin/large=EC bin/small=EC" {
			t.Errorf("%+v: got %s", opt, got)
		}
		if fs.Passthrough() == opt.Copy {
			t.Errorf("%+v: passthrough is %t", opt, !opt.Copy)
		}
	}
}

// TestContents reads files of all sizes in all ways, as a whole, by pieces from several readers, and mapped by another process.
func TestContents(t *testing.T) {
	s := draw(t)
	sizes := map[string]int{"1": 1, "page": 4096, "page+1": 4097, "most in memory": inMemory, "one more": inMemory + 1, "large": 5<<20 + 7}
	texts := map[string]string{"sparse": string(make([]byte, 3<<20)) + "end"}
	for name, size := range sizes {
		texts[name] = strings.Repeat(name+" ", size/len(name)+1)[:size]
	}
	for name, text := range texts {
		s.file(name, text)
	}
	stored, _ := s.written(true)
	for _, c := range []struct {
		name string
		part Part
		opt  Options
		pass bool
	}{
		{"stored and handed over", stored, Options{}, true},
		{"stored and copied", stored, Options{Copy: true}, false},
		{"context and handed over", Part{stored.Root, plainFiles{stored.Contents}}, Options{}, true},
		{"context and copied", Part{stored.Root, plainFiles{stored.Contents}}, Options{Copy: true}, false},
		{"memory", s.part(), Options{}, true}, // in no file that could be handed over
	} {
		t.Run(c.name, func(t *testing.T) {
			fs := show(t, c.opt, c.part)
			root := over(t, fs.Dir(0))
			if fs.Passthrough() != c.pass {
				t.Errorf("passthrough is %t", !c.pass)
			}
			var wg sync.WaitGroup
			for name, text := range texts {
				for i := range 4 {
					wg.Go(func() {
						var b []byte
						var err error
						if i == 3 { // mapped
							b, err = exec.Command("perl", "-e", `open(F, "<:mmap", $ARGV[0]) or die; local $/; print <F>`, root+"/"+name).Output()
						} else {
							b, err = os.ReadFile(root + "/" + name)
						}
						if err != nil || string(b) != text {
							t.Errorf("%s: %d bytes, %v", name, len(b), err)
						}
					})
				}
			}
			wg.Wait()
			if err := fs.Check(t.Context()); err != nil {
				t.Error(err)
			}
			if err := fs.Err(); err != nil {
				t.Error(err)
			}
			part := make([]byte, 10)
			if n, err := unix.Pread(open(t, root+"/large", unix.O_RDONLY), part, 5<<20); err != nil || string(part[:n]) != texts["large"][5<<20:] {
				t.Errorf("the end of a file: %q, %v", part[:n], err)
			}
		})
	}
}

// TestManyFiles: 50,000 files, more than may be open at a time, read by several processes.
func TestManyFiles(t *testing.T) {
	s := draw(t)
	const files = 50_000
	for i := range files {
		s.file(fmt.Sprintf("d%d/f%d", i%100, i), fmt.Sprint("file ", i%1000))
	}
	fs := show(t, Options{}, s.part())
	root := over(t, fs.Dir(0))
	out, err := exec.Command("sh", "-c", "cd "+root+" && ulimit -n 100 && find . -type f -print0 | xargs -0 -P 4 -n 5000 cat | wc").CombinedOutput()
	must(t, err)
	want := 0
	for i := range files {
		want += len(fmt.Sprint("file ", i%1000))
	}
	if got := strings.Fields(string(out)); got[2] != fmt.Sprint(want) {
		t.Errorf("got %s bytes, want %d", out, want)
	}
	if looks := fs.Looks(0); len(looks) != files+100+1 {
		t.Errorf("%d looks", len(looks))
	}
}

// TestAbsentNames: what is asked for again is asked once, and beyond a bound the listing stands for all absent names.
func TestAbsentNames(t *testing.T) {
	fs := show(t, Options{}, draw(t).file("d/a", "a").part())
	var st unix.Stat_t
	for i := range mostAbsent + 10 {
		if err := unix.Lstat(fmt.Sprintf("%s/d/no%d", fs.Dir(0), i), &st); err != unix.ENOENT {
			t.Fatal(err)
		}
	}
	looks := fs.Looks(0)
	if len(looks) != mostAbsent+2 || looks[1].Path != "d" || looks[1].Kind != 3 {
		t.Errorf("%d looks, %v", len(looks), looks[1])
	}
	if err := unix.Lstat(fs.Dir(0)+"/"+strings.Repeat("x", 256), &st); err != unix.ENAMETOOLONG {
		t.Errorf("a long name: %v", err)
	}
	if err := unix.Lstat(fs.dir+"/7", &st); err != unix.ENOENT {
		t.Errorf("no part: %v", err)
	}
	if again := fs.Looks(0); len(again) != len(looks) {
		t.Errorf("%d looks after others", len(again))
	}
}

// TestParts: each part has its own looks, also where they share nodes, and more than ten are in order.
func TestParts(t *testing.T) {
	p := draw(t).file("a", "a").part()
	parts := make([]Part, 12)
	for i := range parts {
		parts[i] = p
	}
	fs := show(t, Options{}, parts...)
	read(t, fs.Dir(10)+"/a")
	for i := range parts {
		want := "=E"
		if i == 10 {
			want = "=E a=EC"
		}
		if got := looked(fs, i); got != want {
			t.Errorf("%d: got %s, want %s", i, got, want)
		}
	}
}

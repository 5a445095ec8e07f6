package cachemount

import (
	"bytes"
	"flag"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"larder/internal/generation"
	"larder/internal/key"
	"larder/internal/tree"
)

// TestSoakBuildAfterBuild: whatever builds do to a mount, what is captured is what is there, comes back as it was on another machine, and is
// the same as without anything known from before; what is idle is what nobody touched.
func TestSoakBuildAfterBuild(t *testing.T) {
	base := t.TempDir()
	must(t, unix.Mount("tmpfs", base, "tmpfs", 0, "size=1g")) // many files come and go, which disks are slow at
	t.Cleanup(func() {
		if err := unix.Unmount(base, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	checks := flag.Lookup("rapid.checks").Value
	defer checks.Set(checks.String())
	if os.Getenv("LARDER_SOAK") == "" {
		checks.Set("60")
	} else {
		checks.Set("3000")
	}
	stepSees, weSee := seenThrough(t, base, unix.MS_STRICTATIME), seenThrough(t, base, unix.MS_NOATIME)
	rapid.Check(t, func(rt *rapid.T) {
		tmp, err := os.MkdirTemp(base, "")
		must(t, err)
		defer os.RemoveAll(tmp)
		name := filepath.Base(tmp)
		w := newWorld(t)
		must(t, os.Mkdir(filepath.Join(tmp, "0"), 0o755))
		dir := filepath.Join(name, "0")
		var before *generation.Generation
		var stamps *Stamps
		idle := map[string]int{}
		for build := range rapid.IntRange(1, 4).Draw(rt, "builds") {
			if stamps != nil {
				stamps = keptOrNot(t, rt, tmp, stamps)
			}
			e := &editor{t: t, rt: rt, dir: filepath.Join(stepSees, dir), seen: filepath.Join(weSee, dir)}
			e.remember()
			for range rapid.IntRange(0, 8).Draw(rt, "edits") {
				e.edit()
			}
			touched := e.touched()
			got := w.captured(filepath.Join(base, dir), before, stamps)
			want := look(t, filepath.Join(weSee, dir))
			next := map[string]int{}
			for path, n := range filesOf(t, got.Next) {
				if n.Kind == tree.Symlink { // read on the way to somewhere else
					next[path] = got.Next.Idle[path]
				} else if before != nil && !touched[path] {
					next[path] = idle[path] + 1
				}
				if next[path] == 0 {
					delete(next, path)
				}
			}
			if idle = next; !maps.Equal(idle, got.Next.Idle) {
				rt.Fatalf("build %d: idle %v, want %v", build, got.Next.Idle, idle)
			}
			before, stamps = got.Next, got.Stamps
			out := filepath.Join(name, fmt.Sprint(build+1))
			must(t, os.Mkdir(filepath.Join(base, out), 0o700))
			if _, err := Restore(t.Context(), filepath.Join(base, out), before, w.open); err != nil {
				rt.Fatal(err)
			}
			if again := look(t, filepath.Join(weSee, out)); again != want {
				rt.Fatalf("build %d: restored\n%s\nwas\n%s", build, again, want)
			}
			if fresh := newWorld(t).captured(filepath.Join(base, out), nil, nil); tell(t, fresh.Next) != tell(t, got.Next) {
				rt.Fatalf("build %d: captured\n%s\nfrom nothing\n%s\nfor\n%s", build, tell(t, got.Next), tell(t, fresh.Next), want)
			}
			if rapid.Bool().Draw(rt, "another machine") {
				dir = out + "b" // the capture from nothing has read the links in out
				must(t, os.Mkdir(filepath.Join(base, dir), 0o700))
				stamps, err = Restore(t.Context(), filepath.Join(base, dir), before, w.open)
				must(t, err)
			}
		}
	})
}

// keptOrNot is stamps as the next build has them.
func keptOrNot(t testing.TB, rt *rapid.T, tmp string, s *Stamps) *Stamps {
	t.Helper()
	if rapid.Bool().Draw(rt, "kept in a file") {
		path := filepath.Join(tmp, "stamps")
		must(t, s.Save(path))
		back, err := LoadStamps(path)
		must(t, err)
		s = back
	}
	if rapid.IntRange(0, 3).Draw(rt, "left alone") == 0 {
		time.Sleep(tick)
		s = aged(s)
	}
	return s
}

// editor is a step that works in a mount.
type editor struct {
	t    testing.TB
	rt   *rapid.T
	dir  string // as the step sees it
	seen string // the same, to look at unnoticed

	paths, files map[string]string // what was there in the beginning
	read         map[string]bool   // inode numbers
}

var contents = map[string][]byte{
	"none": nil, "1": []byte("1"), "2": []byte("2"), "z": bytes.Repeat([]byte("z"), 70_000), "zeros": make([]byte, 200_000),
	"medium": noise(1, 300_000), "large": noise(2, 1_500_000),
}

func (e *editor) path(label string) string {
	n := rapid.IntRange(1, 3).Draw(e.rt, label+" depth")
	p := e.dir
	for range n {
		p = filepath.Join(p, rapid.SampledFrom([]string{"a", "b", "c d", "\xff"}).Draw(e.rt, label))
	}
	return p
}

// edit does something, or fails to as steps do.
func (e *editor) edit() {
	p := e.path("path")
	switch rapid.IntRange(0, 12).Draw(e.rt, "edit") {
	case 0, 1, 2:
		os.MkdirAll(filepath.Dir(p), 0o755)
		data := contents[rapid.SampledFrom([]string{"none", "1", "2", "z", "zeros", "medium", "large"}).Draw(e.rt, "contents")]
		e.open(p, os.O_CREATE|os.O_TRUNC, func(f *os.File) { f.Write(data) })
	case 3:
		os.MkdirAll(p, 0o755)
	case 4:
		os.Rename(p, e.path("to"))
	case 5:
		os.Link(p, e.path("to"))
	case 6:
		os.Symlink(rapid.SampledFrom([]string{"a", "b/a", "nowhere"}).Draw(e.rt, "target"), p)
	case 7:
		if _, err := os.Lstat(p); err == nil { // RemoveAll would open a fifo where p's directory should be
			os.RemoveAll(p)
		}
	case 8:
		ns := rapid.Int64Range(-1e10, 1<<61).Draw(e.rt, "time")
		ts := []unix.Timespec{{Nsec: unix.UTIME_OMIT}, unix.NsecToTimespec(ns)}
		unix.UtimesNanoAt(unix.AT_FDCWD, p, ts, unix.AT_SYMLINK_NOFOLLOW)
	case 9:
		if st, err := os.Lstat(p); err == nil && st.Mode()&fs.ModeSymlink == 0 {
			unix.Chmod(p, rapid.SampledFrom([]uint32{0o644, 0o755, 0o4711, 0o1777, 0o400}).Draw(e.rt, "mode"))
			unix.Setxattr(p, "user.x", []byte(rapid.SampledFrom([]string{"", "1"}).Draw(e.rt, "attribute")), 0)
		}
	case 10:
		at := rapid.Int64Range(0, 1_000_000).Draw(e.rt, "at")
		e.open(p, 0, func(f *os.File) { f.WriteAt([]byte("X"), at) })
	case 11:
		unix.Mkfifo(p, 0o600)
	case 12:
		e.readAll(p)
	}
}

// open opens a file for writing, if it is one.
func (e *editor) open(p string, flags int, fn func(*os.File)) {
	f, err := os.OpenFile(p, os.O_WRONLY|unix.O_NONBLOCK|flags, 0o644) // a fifo would keep us waiting
	if err == nil {
		fn(f)
		must(e.t, f.Close())
	}
}

// readAll reads a file, if it is one.
func (e *editor) readAll(p string) {
	var st unix.Stat_t
	if unix.Lstat(p, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFREG && st.Size > 0 {
		_, err := os.ReadFile(p)
		must(e.t, err)
		e.read[fmt.Sprint(st.Ino)] = true
	}
}

// state tells by path what is there, and by inode number when it was changed last.
func (e *editor) state() (paths, files, inos map[string]string) {
	paths, files, inos = map[string]string{}, map[string]string{}, map[string]string{}
	must(e.t, filepath.WalkDir(e.seen, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		var st unix.Stat_t
		must(e.t, unix.Lstat(p, &st))
		rel, err := filepath.Rel(e.seen, p)
		must(e.t, err)
		target, _ := os.Readlink(p)
		paths[rel] = fmt.Sprint(st.Mode&unix.S_IFMT, st.Mtim, target)
		if st.Mode&unix.S_IFMT == unix.S_IFREG {
			data, err := os.ReadFile(p)
			must(e.t, err)
			paths[rel] += fmt.Sprint(key.Bytes(data))
		}
		inos[rel] = fmt.Sprint(st.Ino)
		files[inos[rel]] = fmt.Sprint(st.Ctim)
		return nil
	}))
	return paths, files, inos
}

func (e *editor) remember() {
	e.read = map[string]bool{}
	e.paths, e.files, _ = e.state()
}

// touched gives the paths where something else is than was, or what was changed or read.
func (e *editor) touched() map[string]bool {
	out := map[string]bool{}
	paths, files, inos := e.state()
	for p := range paths {
		out[p] = e.paths[p] != paths[p] || e.files[inos[p]] != files[inos[p]] || e.read[inos[p]]
	}
	return out
}

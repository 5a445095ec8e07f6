package cachemount

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"larder/internal/generation"
	"larder/internal/key"
	"larder/internal/pack"
	"larder/internal/tree"
)

// noise is bytes that cannot be compressed.
func noise(seed uint64, n int) []byte {
	var s [32]byte
	s[0] = byte(seed)
	b := make([]byte, n)
	rand.NewChaCha8(s).Read(b)
	return b
}

// everything makes a directory with one of each thing that a cache mount can hold.
func everything(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	p := func(name string) string { return filepath.Join(dir, name) }
	write(t, dir, map[string]string{
		"plain": "contents", "same": "contents", "empty": "", "setuid": "#!", "d/deep/er/file": "x", "odd \xff\n*'\"/ ": "y",
		"cap": "can", "secret-mode": "0", ".hidden": "h", "\x01": "1", strings.Repeat("long", 63): "name",
	})
	long := p(strings.Repeat(strings.Repeat("n", 200)+"/", 18))
	must(t, os.MkdirAll(long, 0o755))
	must(t, os.WriteFile(long+"/end", []byte("deep"), 0o600))
	big := noise(1, 5<<20)
	must(t, os.WriteFile(p("big"), big, 0o644))
	must(t, os.WriteFile(p("big copy"), big, 0o600))
	must(t, os.WriteFile(p("big changed"), append([]byte("in front"), big...), 0o644))
	must(t, os.WriteFile(p("sparse"), []byte("begin"), 0o644))
	must(t, os.Truncate(p("sparse"), 40<<20))
	must(t, os.WriteFile(p("sparse end"), make([]byte, 90_000), 0o644))
	must(t, os.WriteFile(p("repeated"), bytes.Repeat(noise(2, 64<<10), 100), 0o644))
	must(t, os.Link(p("plain"), p("d/deep/another")))
	must(t, os.Link(p("big"), p("d/big again")))
	must(t, os.Link(p("empty"), p("empty again")))
	must(t, os.Symlink("../nowhere", p("d/dangling")))
	must(t, os.Symlink("/etc", p("d/out")))
	must(t, os.Link(p("d/out"), p("d/out again")))
	must(t, unix.Mkfifo(p("fifo"), 0o622))
	must(t, unix.Mknod(p("null"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))))
	must(t, unix.Mknod(p("disk"), unix.S_IFBLK|0o660, int(unix.Mkdev(259, 70_000))))
	must(t, unix.Mknod(p("no whiteout"), unix.S_IFCHR, 0))
	must(t, os.Mkdir(p("empty dir"), 0o700))
	must(t, os.Mkdir(p("sticky"), 0o700))
	must(t, unix.Chmod(p("sticky"), 0o1777))
	must(t, os.Mkdir(p("closed"), 0o700))
	must(t, os.WriteFile(p("closed/in"), []byte("in"), 0o000))
	must(t, unix.Setxattr(p("empty"), "user.note", []byte("a\x00b"), 0))
	must(t, unix.Setxattr(p("d"), "user.dir", nil, 0))
	must(t, unix.Lsetxattr(p("d/dangling"), "trusted.link", []byte("l"), 0))
	must(t, unix.Setxattr(p("cap"), "security.capability", []byte("\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"), 0))
	must(t, os.Chown(p("setuid"), 3_000_000, 100))
	must(t, unix.Chmod(p("setuid"), 0o6755))
	must(t, os.Lchown(p("d/dangling"), 5, 6))
	must(t, os.Chown(p("d/deep"), 1, 2))
	must(t, unix.Chmod(p("closed"), 0))
	must(t, unix.Chmod(p("d/deep/er"), 0o2555))
	for name, ns := range map[string]int64{"plain": 1, "fifo": -5e9 + 7, "d/deep": 1_600_000_000_123_456_789, "big": 4_000_000_000_000_000_001} {
		ts := []unix.Timespec{unix.NsecToTimespec(ns), unix.NsecToTimespec(ns)}
		must(t, unix.UtimesNanoAt(unix.AT_FDCWD, p(name), ts, 0))
	}
	must(t, unix.Chmod(dir, 0o2750))
	must(t, os.Chown(dir, 7, 8))
	must(t, os.Chtimes(dir, time.Unix(5, 6), time.Unix(7, 8)))
	return dir
}

func blocks(t testing.TB, path string) int64 {
	t.Helper()
	var st unix.Stat_t
	must(t, unix.Lstat(path, &st))
	return st.Blocks * 512
}

func TestRestoresExactly(t *testing.T) {
	w := newWorld(t)
	dir := everything(t)
	want := look(t, dir)
	first := w.captured(dir, nil, nil)
	if got := look(t, dir); got != want {
		t.Errorf("Capture changed the directory:\n%s\nit was\n%s", got, want)
	}
	w.opened = 0
	out, stamps := w.restored(first.Next)
	if w.opened > 14<<20 { // big and most of its changed copy, once; what repeats, once
		t.Errorf("%d bytes were read", w.opened)
	}
	for name, most := range map[string]int64{"sparse": 1 << 20, "sparse end": 0} {
		if n := blocks(t, filepath.Join(out, name)); n > most {
			t.Errorf("%s takes %d bytes on disk", name, n)
		}
	}
	// Nothing has to be read the second time, and the first generation's own tree comes back.
	second := w.captured(out, first.Next, aged(stamps))
	if second.Next.Tree != first.Next.Tree || second.New != 0 || second.Used != 0 || second.Had != first.Files {
		t.Errorf("captured again: the same tree: %v, %+v", second.Next.Tree == first.Next.Tree, second)
	}
	if got := look(t, out); got != want {
		t.Errorf("restored:\n%s\nwas:\n%s", got, want)
	}
	fresh := newWorld(t).captured(out, nil, nil)
	if got, want := tell(t, second.Next), tell(t, fresh.Next); got != want {
		t.Errorf("with stamps:\n%s\nwithout:\n%s", got, want)
	}
	if first.Files != fresh.Files || first.Size != fresh.Size || first.New != fresh.New || first.NewBytes != fresh.NewBytes {
		t.Errorf("%+v and %+v", first, fresh)
	}
}

// aged gives stamps of files that were left alone for long enough.
func aged(s *Stamps) *Stamps {
	out := &Stamps{}
	for _, e := range s.list {
		e.flags &^= stampRacy
		out.list = append(out.list, e)
	}
	return out
}

func TestCounts(t *testing.T) {
	w := newWorld(t)
	dir := t.TempDir()
	write(t, dir, map[string]string{"a": "12345", "b": "12345", "c": "1", "d": ""})
	must(t, os.Link(filepath.Join(dir, "c"), filepath.Join(dir, "c2")))
	must(t, os.Symlink("a", filepath.Join(dir, "l")))
	got := w.captured(dir, nil, nil)
	if got.Files != 5 || got.Size != 11 || got.New != 2 || got.NewBytes != 6 || got.Had != 0 || got.Used != 0 || len(got.Next.Idle) != 0 {
		t.Errorf("%+v", got)
	}
	out, stamps := w.restored(got.Next)
	stamps = aged(stamps)
	must(t, os.WriteFile(filepath.Join(out, "c2"), []byte("2"), 0o644)) // c as well
	must(t, os.Remove(filepath.Join(out, "d")))
	must(t, os.WriteFile(filepath.Join(out, "new"), []byte("12345"), 0o644))
	again := w.captured(out, got.Next, stamps)
	if again.Files != 5 || again.Size != 16 || again.New != 1 || again.NewBytes != 1 || again.Had != 5 || again.Used != 2 {
		t.Errorf("%+v", again)
	}
	if len(again.Next.Idle) != 3 || again.Next.Idle["a"] != 1 || again.Next.Idle["b"] != 1 || again.Next.Idle["l"] != 1 {
		t.Errorf("idle: %v", again.Next.Idle)
	}
	third := w.captured(out, again.Next, again.Stamps)
	if third.Next.Idle["a"] != 2 || third.Next.Idle["new"] != 1 || third.Used != 0 {
		t.Errorf("idle: %v, %+v", third.Next.Idle, third)
	}
}

func TestRenamedDirectoryIsNotRead(t *testing.T) {
	w := newWorld(t)
	dir := t.TempDir()
	write(t, dir, map[string]string{"a/b/1": "one", "a/b/2": "two"})
	first := w.captured(dir, nil, nil)
	out, stamps := w.restored(first.Next)
	must(t, os.Rename(filepath.Join(out, "a"), filepath.Join(out, "z")))
	// A writer that fails when it is used shows what is read.
	dead := w.writer()
	dead.Abort()
	c := &capture{before: first.Next, stamps: aged(stamps), writer: dead, secrets: secretsOf(nil), began: time.Now(), inodes: map[inode]names{}, refs: map[key.Digest][]pack.Ref{}}
	root, err := os.Open(out)
	must(t, err)
	defer root.Close()
	c.rootfd = int(root.Fd())
	l := &listing{old: first.Next.Tree}
	must(t, c.walk(t.Context(), l))
	l.each(func(e *entry) {
		if e.unread {
			t.Errorf("%s would be read", e.path())
		}
	})
	got := w.captured(out, first.Next, aged(stamps))
	if tell(t, got.Next) != tell(t, newWorld(t).captured(out, nil, nil).Next) || got.New != 0 {
		t.Errorf("%+v\n%s", got, tell(t, got.Next))
	}
}

// TestHardLinks are told apart from files that only look alike, whatever they were before.
func TestHardLinks(t *testing.T) {
	w := newWorld(t)
	src := t.TempDir()
	p := func(name string) string { return filepath.Join(src, name) }
	write(t, src, map[string]string{"a": "same", "x": "other"})
	for _, name := range []string{"b", "c", "d", "e"} {
		must(t, os.Link(p("a"), p(name)))
	}
	must(t, os.Link(p("x"), p("y")))
	g := w.captured(src, nil, nil).Next
	dir, stamps := w.restored(g)
	p = func(name string) string { return filepath.Join(dir, name) }
	for _, c := range []struct {
		name   string
		change func()
	}{
		{"two pairs and a single one", func() {
			st, err := os.Stat(p("a"))
			must(t, err)
			for _, name := range []string{"c", "e"} {
				must(t, os.Remove(p(name)))
				must(t, os.WriteFile(p(name), []byte("same"), 0o644))
				must(t, os.Chtimes(p(name), time.Time{}, st.ModTime()))
			}
			must(t, os.Remove(p("d")))
			must(t, os.Link(p("c"), p("d")))
			must(t, os.Rename(p("y"), p("z")))
		}},
		{"all apart", func() {
			for _, name := range []string{"b", "d", "z"} {
				st, err := os.Stat(p(name))
				must(t, err)
				data, err := os.ReadFile(p(name))
				must(t, err)
				must(t, os.Remove(p(name)))
				must(t, os.WriteFile(p(name), data, 0o644))
				must(t, os.Chtimes(p(name), time.Time{}, st.ModTime()))
			}
		}},
	} {
		c.change()
		got := w.captured(dir, g, stamps)
		if have, want := tell(t, got.Next), tell(t, newWorld(t).captured(dir, nil, nil).Next); have != want {
			t.Errorf("%s: captured\n%s\nfrom nothing\n%s", c.name, have, want)
		}
		g, stamps = got.Next, got.Stamps
	}
}

// TestStampsWithoutBefore: knowing a file's digest is not having its contents stored.
func TestStampsWithoutBefore(t *testing.T) {
	w := newWorld(t)
	src := t.TempDir()
	write(t, src, map[string]string{"a": "1", "d/b": "2"})
	g := w.captured(src, nil, nil).Next
	dir, stamps := w.restored(g)
	other := newWorld(t)
	got := other.captured(dir, nil, aged(stamps))
	if tell(t, got.Next) != tell(t, g) || got.New != 2 {
		t.Errorf("%+v\n%s", got, tell(t, got.Next))
	}
	back, _ := other.restored(got.Next)
	if look(t, back) != look(t, src) {
		t.Error("it does not come back")
	}
}

func TestCaptureErrors(t *testing.T) {
	w := newWorld(t)
	dir := t.TempDir()
	write(t, dir, map[string]string{"a": "12345", "d/b": "1"})
	ctx, cancel := context.WithCancelCause(t.Context())
	stop := errors.New("stop")
	cancel(stop)
	if _, err := Capture(ctx, dir, nil, nil, w.writer(), CaptureOptions{}); !errors.Is(err, stop) {
		t.Errorf("cancelled: %v", err)
	}
	if _, err := Capture(t.Context(), filepath.Join(dir, "none"), nil, nil, w.writer(), CaptureOptions{}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no directory: %v", err)
	}
	full := errors.New("disk full")
	broken := pack.NewWriter(pack.Options{Dir: t.TempDir(), Done: func(pack.Pack) error { return full }})
	if _, err := Capture(t.Context(), dir, nil, nil, broken, CaptureOptions{}); !errors.Is(err, full) {
		t.Errorf("a pack that is not taken over: %v", err)
	}
	// What comes, goes or changes meanwhile is no state to be saved.
	for name, change := range map[string]func() error{
		"a new file":     func() error { return os.WriteFile(filepath.Join(dir, "d/new"), nil, 0o644) },
		"a removed file": func() error { return os.Remove(filepath.Join(dir, "d/b")) },
		"a longer file":  func() error { return os.WriteFile(filepath.Join(dir, "a"), []byte("longer"), 0o644) },
		"a link":         func() error { return os.Rename(filepath.Join(dir, "d"), filepath.Join(dir, "e")) },
	} {
		var once sync.Once
		opt := pack.Options{Dir: t.TempDir(), Done: func(p pack.Pack) error { return os.Remove(p.Path) }}
		opt.Have = func(key.Digest) (pack.Piece, bool) {
			once.Do(func() {
				time.Sleep(tick) // the kernel's clock has gone on
				must(t, change())
			})
			return pack.Piece{}, false
		}
		if got, err := Capture(t.Context(), dir, nil, nil, pack.NewWriter(opt), CaptureOptions{}); err == nil {
			t.Errorf("%s: %s", name, tell(t, got.Next))
		}
		must(t, os.RemoveAll(filepath.Join(dir, "e")))
		write(t, dir, map[string]string{"a": "12345", "d/b": "1"})
	}
}

// TestRestoreCancelled: nothing is left running, nothing is written outside, and the error is the cause.
func TestRestoreCancelled(t *testing.T) {
	w := newWorld(t)
	dir := t.TempDir()
	for i := range 40 {
		must(t, os.WriteFile(filepath.Join(dir, string(rune('a'+i))), noise(uint64(i), 400<<10), 0o644))
	}
	g := w.captured(dir, nil, nil).Next
	stop := errors.New("stop")
	for after := range 4 {
		ctx, cancel := context.WithCancelCause(t.Context())
		c := newCage(t)
		n := 0
		_, err := Restore(ctx, c.dir, g, func(ctx context.Context, d key.Digest, off, size int64) (io.ReadCloser, error) {
			w.mu.Lock()
			if n++; n > after {
				cancel(stop)
			}
			w.mu.Unlock()
			return w.open(ctx, d, off, size)
		})
		if !errors.Is(err, stop) {
			t.Errorf("after %d: %v", after, err)
		}
		c.check(t)
		cancel(nil)
	}
}

func TestRestoreNothing(t *testing.T) {
	w := newWorld(t)
	empty, err := tree.NewDir(tree.Meta{Mode: 0o711, MTime: 5}, false, nil)
	must(t, err)
	dir, stamps := w.restored(&generation.Generation{Tree: empty})
	if got := look(t, dir); !strings.HasPrefix(got, `"." mode=40711 owner=0:0 mtime=5`) || len(stamps.list) != 0 {
		t.Error(got)
	}
}

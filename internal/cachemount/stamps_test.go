package cachemount

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"larder/internal/key"
	"larder/internal/tree"
)

func TestStampsAreKept(t *testing.T) {
	path := filepath.Join(t.TempDir(), "stamps")
	if _, err := LoadStamps(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
	now := time.Now()
	s := newStamps([]stamp{
		{ino: 9, size: 1, mtime: -5, ctime: now.Add(-time.Hour).UnixNano(), atime: 1 << 60, content: key.Digest{1}, flags: stampXattrs},
		{ino: 1 << 63, ctime: now.UnixNano()},
		{ino: 4, ctime: now.Add(-time.Second).Truncate(time.Second).UnixNano()},
		{ino: 5, ctime: now.Add(-time.Second).Truncate(time.Second).UnixNano() + 1},
		{ino: 7, size: 1}, {ino: 7, size: 2},
	}, now)
	if s.find(4).flags != stampRacy || s.find(5).flags != 0 || s.find(9).flags != stampXattrs || s.find(1<<63).flags != stampRacy || s.find(7) != nil || s.find(6) != nil {
		t.Errorf("%+v", s.list)
	}
	must(t, s.Save(path))
	back, err := LoadStamps(path)
	must(t, err)
	if !slices.Equal(back.list, s.list) {
		t.Errorf("came back as %+v, was %+v", back.list, s.list)
	}
	if list, _ := os.ReadDir(filepath.Dir(path)); len(list) != 1 {
		t.Errorf("files left: %v", list)
	}
	if err := s.Save(filepath.Join(path, "x")); err == nil {
		t.Error("saved below a file")
	}
}

func TestDamagedStamps(t *testing.T) {
	path := filepath.Join(t.TempDir(), "stamps")
	must(t, (&Stamps{list: []stamp{{ino: 1}, {ino: 2}, {ino: 3}}}).Save(path))
	good, err := os.ReadFile(path)
	must(t, err)
	refused := func(what string, data []byte) {
		t.Helper()
		must(t, os.WriteFile(path, data, 0o600))
		if s, err := LoadStamps(path); !errors.Is(err, tree.ErrDamaged) {
			t.Errorf("%s: %v, %v", what, s, err)
		}
	}
	sealed := func(edit func(body []byte) []byte) []byte {
		body := edit(slices.Clone(good[:len(good)-4]))
		return binary.LittleEndian.AppendUint32(body, crc32.Checksum(body, castagnoli))
	}
	for n := range good {
		refused("cut short", good[:n])
		flipped := slices.Clone(good)
		flipped[n] ^= 1
		refused("flipped", flipped)
	}
	at := len(stampsHeader)
	refused("another count", sealed(func(b []byte) []byte { b[at] = 2; return b }))
	refused("a huge count", sealed(func(b []byte) []byte { binary.LittleEndian.PutUint32(b[at:], 1<<31); return b }))
	refused("another order", sealed(func(b []byte) []byte { b[at+4] = 2; return b }))
	refused("another version", sealed(func(b []byte) []byte { b[at-2]++; return b }))
}

// TestChangesAreSeen: no way of changing a file within its size and time hides the change.
func TestChangesAreSeen(t *testing.T) {
	w := newWorld(t)
	src := t.TempDir()
	write(t, src, map[string]string{"f": "old", "g": "gold"})
	g := w.captured(src, nil, nil).Next
	out, stamps := w.restored(g)
	p := filepath.Join(out, "f")
	var st unix.Stat_t
	must(t, unix.Stat(p, &st))
	for name, change := range map[string]func() error{
		"in place": func() error { return os.WriteFile(p, []byte("new"), 0) },
		"renamed over": func() error {
			if err := os.WriteFile(p+".tmp", []byte("nEw"), 0o644); err != nil {
				return err
			}
			return os.Rename(p+".tmp", p)
		},
		"mapped": func() error {
			f, err := os.OpenFile(p, os.O_RDWR, 0)
			if err != nil {
				return err
			}
			defer f.Close()
			m, err := unix.Mmap(int(f.Fd()), 0, 3, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
			if err != nil {
				return err
			}
			copy(m, "NEW")
			return unix.Munmap(m)
		},
		"exchanged": func() error {
			if err := os.WriteFile(p+".tmp", []byte("NeW"), 0o644); err != nil {
				return err
			}
			defer os.Remove(p + ".tmp")
			return unix.Renameat2(unix.AT_FDCWD, p, unix.AT_FDCWD, p+".tmp", unix.RENAME_EXCHANGE)
		},
	} {
		time.Sleep(tick)
		must(t, change())
		must(t, unix.UtimesNanoAt(unix.AT_FDCWD, p, []unix.Timespec{st.Atim, st.Mtim}, 0))
		data, err := os.ReadFile(p)
		must(t, err)
		got := w.captured(out, g, aged(stamps))
		n, err := got.Next.Tree.Lookup("f")
		must(t, err)
		if n.Content != key.Bytes(data) || got.Used != 1 || got.Next.Idle["f"] != 0 {
			t.Errorf("%s: not seen, or not taken for a use: %+v", name, got)
		}
		g, stamps = got.Next, got.Stamps
	}
}

// TestRacyFilesAreRead: a stamp that was made in the same tick of the clock as a later change is not believed. What such a change
// leaves is a stamp with another content; how finely the kernel's clock ticks must not decide this test.
func TestRacyFilesAreRead(t *testing.T) {
	w := newWorld(t)
	dir := t.TempDir()
	write(t, dir, map[string]string{"f": "aa", "g": "bb"})
	first := w.captured(dir, nil, nil)
	wrong := &Stamps{list: slices.Clone(first.Stamps.list)}
	for i := range wrong.list {
		if wrong.list[i].flags&stampRacy == 0 {
			t.Error("a file that was just written has a stamp like an old one's")
		}
		wrong.list[i].content = key.Bytes([]byte("aa"))
	}
	if got := w.captured(dir, first.Next, wrong); tell(t, got.Next) != tell(t, first.Next) {
		t.Errorf("a racy stamp was believed:\n%s", tell(t, got.Next))
	}
	if got := w.captured(dir, first.Next, aged(wrong)); tell(t, got.Next) == tell(t, first.Next) {
		t.Error("a file was read although its stamp is good")
	}
	time.Sleep(tick)
	if again := w.captured(dir, first.Next, first.Stamps); again.Stamps.list[0].flags != 0 {
		t.Error("a file that was left alone is still racy")
	}
}

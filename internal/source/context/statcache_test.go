package context

import (
	"encoding/binary"
	"hash/crc32"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"larder/internal/key"
)

// honest skips where the file system of temporary directories is not one that the cache trusts.
func honest(t testing.TB, dir string) {
	t.Helper()
	f, err := os.Open(dir)
	must(t, err)
	defer f.Close()
	if !identify(int(f.Fd()), 0).honest {
		t.Skip("the file system of temporary directories has no trusted ctime")
	}
}

// later is a cache that takes everything on the disk to be old.
func later(t testing.TB) *StatCache {
	return &StatCache{filepath.Join(t.TempDir(), "cache"), inAMinute}
}

func inAMinute() time.Time { return time.Now().Add(time.Minute) }

func content(t testing.TB, dir, name string, opt Options) key.Digest {
	t.Helper()
	root, _ := scanned(t, dir, opt)
	n, err := root.Lookup(name)
	must(t, err)
	return n.Content
}

func TestCacheReadsNothingTwice(t *testing.T) {
	dir := t.TempDir()
	honest(t, dir)
	write(t, dir, map[string]string{"a": "1", "d/b": "22", "d/c": ""})
	must(t, os.Link(filepath.Join(dir, "a"), filepath.Join(dir, "d/a")))
	opt := Options{Cache: later(t)}
	first, stats := scanned(t, dir, opt)
	if stats.HashedFiles != 4 || stats.CacheErr != nil { // both names of a
		t.Errorf("cold: %+v", stats)
	}
	second, stats := scanned(t, dir, opt)
	if stats.HashedFiles != 0 || stats.Files != 4 || stats.Bytes != 4 {
		t.Errorf("warm: %+v", stats)
	}
	a, err := first.Identity()
	must(t, err)
	b, err := second.Identity()
	must(t, err)
	if a != b {
		t.Error("warm and cold differ")
	}
	// A scan of a part keeps the rest; a changed file is one to read.
	must(t, os.WriteFile(filepath.Join(dir, "d/b"), []byte("33"), 0o644))
	if _, stats = scanned(t, dir, Options{Cache: opt.Cache, Include: []string{"d/b"}}); stats.HashedFiles != 1 {
		t.Errorf("part: %+v", stats)
	}
	if _, stats = scanned(t, dir, opt); stats.HashedFiles != 0 {
		t.Errorf("warm after part: %+v", stats)
	}
}

// A file rewritten with the same size and the same mtime: moby/buildkit#2592.
func TestCacheSeesRewriteWithOldTimes(t *testing.T) {
	dir := t.TempDir()
	honest(t, dir)
	write(t, dir, map[string]string{"a": "old"})
	p := filepath.Join(dir, "a")
	when := time.Now().Add(-time.Hour)
	must(t, os.Chtimes(p, when, when))
	opt := Options{Cache: later(t)}
	content(t, dir, "a", opt)

	for name, edit := range map[string]func() error{
		"in place": func() error { return os.WriteFile(p, []byte("new"), 0o644) },
		"renamed over": func() error {
			tmp := filepath.Join(t.TempDir(), "a")
			if err := os.WriteFile(tmp, []byte("nEw"), 0o644); err != nil {
				return err
			}
			return os.Rename(tmp, p)
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
	} {
		must(t, edit())
		must(t, os.Chtimes(p, when, when))
		data, err := os.ReadFile(p)
		must(t, err)
		if content(t, dir, "a", opt) != key.Bytes(data) {
			t.Errorf("%s: an old digest", name)
		}
	}
}

func TestCacheDoesNotTrustFreshFiles(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, map[string]string{"a": "old"})
	opt := Options{Cache: NewStatCache(filepath.Join(t.TempDir(), "cache"))}
	content(t, dir, "a", opt)
	if _, stats := scanned(t, dir, opt); stats.HashedFiles != 1 {
		t.Errorf("a file that was just written is believed: %+v", stats)
	}
}

func TestDamagedCacheIsEmpty(t *testing.T) {
	dir := t.TempDir()
	honest(t, dir)
	write(t, dir, map[string]string{"a": "1", "b": "2"})
	opt := Options{Cache: later(t)}
	scanned(t, dir, opt)
	file := opt.Cache.open(dir).path
	whole, err := os.ReadFile(file)
	must(t, err)
	flipped := append([]byte(nil), whole...)
	flipped[headerSize+45] ^= 1
	for name, data := range map[string][]byte{
		"empty": nil, "cut": whole[:len(whole)-1], "half": whole[:len(whole)/2], "flipped": flipped, "header": whole[:headerSize],
		"rubbish": make([]byte, 5000),
	} {
		must(t, os.WriteFile(file, data, 0o600))
		if content(t, dir, "a", opt) != key.Bytes([]byte("1")) {
			t.Errorf("%s: wrong digest", name)
		}
		if _, stats := scanned(t, dir, opt); stats.HashedFiles != 0 {
			t.Errorf("%s: not repaired: %+v", name, stats)
		}
	}
	must(t, opt.Cache.Prune(time.Now().Add(time.Hour)))
	if _, stats := scanned(t, dir, opt); stats.HashedFiles != 2 {
		t.Errorf("pruned: %+v", stats)
	}
}

func TestCacheThatCannotBeSaved(t *testing.T) {
	dir := t.TempDir()
	honest(t, dir)
	write(t, dir, map[string]string{"a": "1", "file": ""})
	c := later(t)
	c.dir = filepath.Join(dir, "file")
	if _, stats := scanned(t, dir, Options{Cache: c}); stats.CacheErr == nil {
		t.Error("nobody is told")
	}
}

func TestCacheForgets(t *testing.T) {
	dir := t.TempDir()
	honest(t, dir)
	write(t, dir, map[string]string{"a": "1", "b": "2"})
	c := later(t)
	start := time.Now().Add(time.Minute)
	scanned(t, dir, Options{Cache: c})
	for _, step := range []struct{ day, records int }{{5, 2}, {16, 1}} {
		c.now = func() time.Time { return start.Add(time.Duration(step.day) * 24 * time.Hour) }
		scanned(t, dir, Options{Cache: c, Include: []string{"a"}})
		tab := c.open(dir)
		tab.load()
		if tab.len() != step.records {
			t.Errorf("day %d: %d records", step.day, tab.len())
		}
	}
}

// FuzzStatCache feeds a scan a cache file that somebody else wrote.
func FuzzStatCache(f *testing.F) {
	good := (&table{today: 1}).merge([]record{{ino: 1, size: 2, mode: unix.S_IFREG | 0o644}})
	f.Add(good)
	f.Add(good[:len(good)-4])
	f.Add([]byte(magic))
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, data []byte) {
		tab := (&StatCache{dir, time.Now}).open("/x")
		for _, data := range [][]byte{data, sealed(data)} {
			must(t, os.WriteFile(tab.path, data, 0o600))
			tab := tab.cache.open("/x")
			tab.find(&unix.Stat_t{Ino: 1})
			tab.merge([]record{{ino: 1}, {ino: 7}})
		}
	})
}

// sealed puts a checksum behind data, so that what it says is looked at.
func sealed(data []byte) []byte {
	data = slices.Clone(data)
	return binary.LittleEndian.AppendUint32(data, crc32.Checksum(data, castagnoli))
}

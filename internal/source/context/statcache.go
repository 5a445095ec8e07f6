package context

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"larder/internal/key"
	"larder/internal/tree"
)

// StatCache remembers what files of contexts hashed to, in one file per context directory. An entry is believed only
// for a file with the same inode number, size, mode, mtime and ctime. The ctime is what makes that right: the kernel
// sets it at each write, truncation or change of the other times, and no program can set it back, so a file that was
// rewritten with its old size and mtime is read again (moby/buildkit#2592). What it cannot tell apart are two writes within
// one tick of the clock; so a file is only remembered when it had been left alone for a while before it was read (racy). File
// systems that do not keep an honest ctime (filesystem.go) are read anew each time. The device number is not compared: it
// changes at every mount on some file systems, and no two files share an inode number and a ctime in nanoseconds.
//
// Damage, also a half-written file after a power cut, makes a cache empty. It is safe for concurrent use, by several processes
// too: the last to save wins, which costs the others' entries and no more.
type StatCache struct {
	dir string
	now func() time.Time
}

// NewStatCache keeps its files in dir, which is made when there is something to save.
func NewStatCache(dir string) *StatCache { return &StatCache{dir, time.Now} }

const (
	// racy is how long a file must have been unchanged when it is read: more than the tick of any file system's clock (FAT's is
	// two seconds, ext4's at most ten milliseconds, with small inodes one second).
	racy = 2 * time.Second
	// unusedDays is how long an entry is kept that no scan asked for: scans of one context have different filters.
	unusedDays = 14
	// maxUnused bounds their number: a context that is cloned afresh for each build leaves all of its old inodes behind.
	maxUnused = 100_000
	// maxRecords bounds a cache: 72 MB of memory. The files beyond are read again.
	maxRecords = 1_000_000
)

// A cache file: magic, day of the last save (uint32), number of records (uint32), records by rising inode number, and the
// CRC-32C of all that. Integers are little-endian. A record: inode, size, mtime, ctime (64 bits each), mode with
// flagXattrs, day of the last use (32 bits each), digest.
const (
	magic      = "LRDCTX1\n"
	headerSize = len(magic) + 8
	recordSize = 4*8 + 2*4 + key.Size
	flagXattrs = 1 << 31 // the file has extended attributes, which are not kept here
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// record is what is known of one file.
type record struct {
	ino                uint64
	size, mtime, ctime int64
	mode               uint32
	day                uint32
	content            key.Digest
}

func (r *record) put(b []byte) {
	binary.LittleEndian.PutUint64(b[0:], r.ino)
	binary.LittleEndian.PutUint64(b[8:], uint64(r.size))
	binary.LittleEndian.PutUint64(b[16:], uint64(r.mtime))
	binary.LittleEndian.PutUint64(b[24:], uint64(r.ctime))
	binary.LittleEndian.PutUint32(b[32:], r.mode)
	binary.LittleEndian.PutUint32(b[36:], r.day)
	copy(b[40:], r.content[:])
}

func decodeRecord(b []byte) (r record) {
	r.ino = binary.LittleEndian.Uint64(b[0:])
	r.size = int64(binary.LittleEndian.Uint64(b[8:]))
	r.mtime = int64(binary.LittleEndian.Uint64(b[16:]))
	r.ctime = int64(binary.LittleEndian.Uint64(b[24:]))
	r.mode = binary.LittleEndian.Uint32(b[32:])
	r.day = binary.LittleEndian.Uint32(b[36:])
	copy(r.content[:], b[40:])
	return r
}

func (r *record) xattrs() bool { return r.mode&flagXattrs != 0 }

// fits reports whether the record is about a file with this stat.
func (r *record) fits(st *unix.Stat_t) bool {
	return r.ino == st.Ino && r.size == st.Size && r.mtime == st.Mtim.Nano() && r.ctime == st.Ctim.Nano() &&
		r.mode&^flagXattrs == st.Mode
}

// table is a cache in the hands of one scan. It is loaded when a file is first looked up. A nil table knows nothing. It is safe for
// concurrent use.
type table struct {
	cache *StatCache
	path  string
	today uint32

	once  sync.Once
	saved uint32   // day
	data  []byte   // records
	used  []uint32 // a bit for each, set atomically
}

func (c *StatCache) open(dir string) *table {
	return &table{
		cache: c,
		path:  filepath.Join(c.dir, key.Bytes([]byte(dir)).Hex()[:32]),
		today: uint32(c.now().Unix() / (24 * 60 * 60)),
	}
}

func (t *table) load() {
	data, err := os.ReadFile(t.path)
	if err != nil || len(data) < headerSize+crc32.Size || string(data[:len(magic)]) != magic {
		return
	}
	body, sum := data[:len(data)-crc32.Size], data[len(data)-crc32.Size:]
	if crc32.Checksum(body, castagnoli) != binary.LittleEndian.Uint32(sum) {
		return
	}
	count := int64(binary.LittleEndian.Uint32(body[len(magic)+4:]))
	if count > maxRecords || int64(len(body)-headerSize) != count*int64(recordSize) {
		return
	}
	t.saved = binary.LittleEndian.Uint32(body[len(magic):])
	t.data = body[headerSize:]
	t.used = make([]uint32, (count+31)/32)
}

func (t *table) len() int { return len(t.data) / recordSize }

func (t *table) ino(i int) uint64 { return binary.LittleEndian.Uint64(t.data[i*recordSize:]) }

// find gives the record of a file with this stat.
func (t *table) find(st *unix.Stat_t) (record, bool) {
	if t == nil {
		return record{}, false
	}
	t.once.Do(t.load)
	lo, hi := 0, t.len()
	for lo < hi {
		if mid := int(uint(lo+hi) / 2); t.ino(mid) < st.Ino {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	for ; lo < t.len() && t.ino(lo) == st.Ino; lo++ {
		if r := decodeRecord(t.data[lo*recordSize:]); r.fits(st) {
			atomic.OrUint32(&t.used[lo/32], 1<<(lo%32))
			return r, true
		}
	}
	return record{}, false
}

// remember keeps what a file hashed to, if its stat, which is that of the bytes, will tell it from any later state. began is
// when the reading began.
func (w *worker) remember(st *unix.Stat_t, n *tree.Node, began time.Time) {
	if w.s.table == nil {
		return
	}
	limit := began.Add(-racy).UnixNano()
	mtime, ctime := st.Mtim.Nano(), st.Ctim.Nano()
	if ctime > limit || mtime > limit && mtime < began.Add(racy).UnixNano() {
		return
	}
	mode := st.Mode
	if len(n.Xattrs) > 0 {
		mode |= flagXattrs
	}
	w.fresh = append(w.fresh, record{st.Ino, st.Size, mtime, ctime, mode, w.s.table.today, n.Content})
}

// save writes the table with what a scan learnt, or once a day to note what is in use.
func (t *table) save(fresh []record) error {
	if len(fresh) == 0 && (t.saved == t.today || t.len() == 0) {
		return nil
	}
	slices.SortFunc(fresh, func(a, b record) int { return cmp.Compare(a.ino, b.ino) })
	fresh = slices.CompactFunc(fresh, func(a, b record) bool { b.day = a.day; return a == b }) // names of one file
	out := t.merge(fresh)

	if err := os.MkdirAll(t.cache.dir, 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(t.cache.dir, filepath.Base(t.path)+".*.tmp")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // of no effect once it is renamed
	_, err = f.Write(out)
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), t.path)
}

// merge gives the new file. A fresh record replaces those of its inode that this scan did not meet.
func (t *table) merge(fresh []record) []byte {
	out := bytes.NewBuffer(make([]byte, 0, headerSize+min(maxRecords, t.len()+len(fresh))*recordSize+crc32.Size))
	out.WriteString(magic)
	out.Write(binary.LittleEndian.AppendUint32(nil, t.today))
	out.Write(make([]byte, 4))
	var count, unused uint32
	var buf [recordSize]byte
	put := func(r *record) {
		if count < maxRecords {
			r.put(buf[:])
			out.Write(buf[:])
			count++
		}
	}
	for i, next := 0, 0; i < t.len() || next < len(fresh); {
		if i == t.len() || next < len(fresh) && fresh[next].ino < t.ino(i) {
			put(&fresh[next])
			next++
			continue
		}
		r := decodeRecord(t.data[i*recordSize:])
		if t.used[i/32]>>(i%32)&1 != 0 {
			r.day = t.today
			put(&r)
		} else if !(next < len(fresh) && fresh[next].ino == r.ino) && t.today-r.day <= unusedDays && unused < maxUnused {
			put(&r)
			unused++
		}
		i++
	}
	data := out.Bytes()
	binary.LittleEndian.PutUint32(data[len(magic)+4:], count)
	return binary.LittleEndian.AppendUint32(data, crc32.Checksum(data, castagnoli))
}

// Prune removes the files of contexts that no scan has saved to since the given time, and what interrupted saves left
// behind. It is the collector's; a scan that runs meanwhile loses nothing but its entries.
func (c *StatCache) Prune(before time.Time) error {
	list, err := os.ReadDir(c.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("prune digests of contexts: %w", err)
	}
	for _, e := range list {
		info, err := e.Info()
		if err == nil && info.Mode().IsRegular() && info.ModTime().Before(before) {
			err = os.Remove(filepath.Join(c.dir, e.Name()))
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("prune digests of contexts: %w", err)
		}
	}
	return nil
}

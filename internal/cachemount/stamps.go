package cachemount

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"slices"
	"sort"
	"time"

	"golang.org/x/sys/unix"

	"larder/internal/disk"
	"larder/internal/key"
	"larder/internal/tree"
)

// Stamps remember of each file of a directory what stat said when its content was known, so that Capture need not read what was
// not touched, and sees what was. They know files by inode number: a directory that was renamed is not read again. They are never
// changed once made.
type Stamps struct {
	list []stamp // by rising inode number
}

// stamp is what is known of one file, link, device or fifo. The kernel sets ctime at each change of a file or its metadata, and no
// program can set it back.
type stamp struct {
	ino          uint64
	size         int64
	mtime, ctime int64 // nanoseconds
	atime        int64 // as it was left: another one says that somebody read
	content      key.Digest
	flags        uint32
}

const (
	stampXattrs = 1 << iota // it has attributes, which are not kept here
	stampRacy               // it was changed so lately that another change could have left the same ctime: its content is not known
)

// A change within one tick of the kernel's clock leaves no trace in ctime. tick is more than any kernel's; coarseTick is for file
// systems that keep whole seconds.
const (
	tick       = 20 * time.Millisecond
	coarseTick = 2 * time.Second
)

func stampOf(st *unix.Stat_t, content key.Digest, xattrs bool) stamp {
	s := stamp{
		ino: st.Ino, size: st.Size, mtime: st.Mtim.Nano(), ctime: st.Ctim.Nano(), atime: st.Atim.Nano(), content: content,
	}
	if xattrs {
		s.flags = stampXattrs
	}
	return s
}

// unchanged reports whether two stamps are of the same file in the same state, however often it was read between.
func (s *stamp) unchanged(t *stamp) bool {
	return s.ino == t.ino && s.size == t.size && s.mtime == t.mtime && s.ctime == t.ctime
}

// racy reports whether somebody who writes from the given time on could leave the same ctime.
func (s *stamp) racy(from time.Time) bool {
	window := tick
	if s.ctime%int64(time.Second) == 0 {
		window = coarseTick
	}
	return s.ctime > from.Add(-window).UnixNano()
}

// newStamps takes the list over; from is the time before which nobody but larder wrote.
func newStamps(list []stamp, from time.Time) *Stamps {
	for i := range list {
		if list[i].racy(from) {
			list[i].flags |= stampRacy
		}
	}
	slices.SortFunc(list, func(a, b stamp) int { return cmp.Compare(a.ino, b.ino) })
	// Two files with one number lie on two file systems: the number says nothing about either.
	unique := list[:0]
	for i, s := range list {
		if (i == 0 || list[i-1].ino != s.ino) && (i+1 == len(list) || list[i+1].ino != s.ino) {
			unique = append(unique, s)
		}
	}
	return &Stamps{unique}
}

// find gives the stamp of an inode. Nil stamps know none.
func (s *Stamps) find(ino uint64) *stamp {
	if s == nil {
		return nil
	}
	i := sort.Search(len(s.list), func(i int) bool { return s.list[i].ino >= ino })
	if i == len(s.list) || s.list[i].ino != ino {
		return nil
	}
	return &s.list[i]
}

// The file of stamps: this line, their number (32 bits), the stamps by rising inode number, and the CRC-32C of all that. Integers are
// little-endian. A stamp: inode, size, mtime, ctime, atime (64 bits each), digest, flags (32 bits).
const (
	stampsHeader = "larder stamps 1\n"
	stampSize    = 5*8 + key.Size + 4
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Save writes them to a file, complete or not at all.
func (s *Stamps) Save(path string) error {
	out := make([]byte, 0, len(stampsHeader)+4+len(s.list)*stampSize+crc32.Size)
	out = append(out, stampsHeader...)
	out = binary.LittleEndian.AppendUint32(out, uint32(len(s.list)))
	for i := range s.list {
		e := &s.list[i]
		for _, v := range []uint64{e.ino, uint64(e.size), uint64(e.mtime), uint64(e.ctime), uint64(e.atime)} {
			out = binary.LittleEndian.AppendUint64(out, v)
		}
		out = append(out, e.content[:]...)
		out = binary.LittleEndian.AppendUint32(out, e.flags)
	}
	out = binary.LittleEndian.AppendUint32(out, crc32.Checksum(out, castagnoli))
	err := disk.Replace(path, func(w io.Writer) error {
		_, err := w.Write(out)
		return err
	})
	if err != nil {
		return fmt.Errorf("save stamps: %w", err)
	}
	return nil
}

// LoadStamps reads what Save wrote. Damage is an error that wraps tree.ErrDamaged; a file that is not there is fs.ErrNotExist.
func LoadStamps(path string) (*Stamps, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("load stamps: %w", err)
	}
	defer f.Close()
	const most = len(stampsHeader) + 4 + maxEntries*stampSize + crc32.Size
	data, err := io.ReadAll(io.LimitReader(f, int64(most)+1))
	if err != nil {
		return nil, fmt.Errorf("load stamps: %w", err)
	}
	s := parseStamps(data)
	if s == nil {
		return nil, fmt.Errorf("load stamps: %s: %w", path, tree.ErrDamaged)
	}
	return s, nil
}

func parseStamps(data []byte) *Stamps {
	if len(data) < len(stampsHeader)+4+crc32.Size || string(data[:len(stampsHeader)]) != stampsHeader {
		return nil
	}
	body, sum := data[:len(data)-crc32.Size], data[len(data)-crc32.Size:]
	if crc32.Checksum(body, castagnoli) != binary.LittleEndian.Uint32(sum) {
		return nil
	}
	body = body[len(stampsHeader):]
	count := int64(binary.LittleEndian.Uint32(body))
	if body = body[4:]; count > maxEntries || int64(len(body)) != count*stampSize {
		return nil
	}
	s := &Stamps{list: make([]stamp, count)}
	for i := range s.list {
		b := body[i*stampSize:]
		e := &s.list[i]
		e.ino = binary.LittleEndian.Uint64(b)
		e.size = int64(binary.LittleEndian.Uint64(b[8:]))
		e.mtime = int64(binary.LittleEndian.Uint64(b[16:]))
		e.ctime = int64(binary.LittleEndian.Uint64(b[24:]))
		e.atime = int64(binary.LittleEndian.Uint64(b[32:]))
		copy(e.content[:], b[40:])
		e.flags = binary.LittleEndian.Uint32(b[40+key.Size:])
		if i > 0 && s.list[i-1].ino >= e.ino {
			return nil
		}
	}
	return s
}

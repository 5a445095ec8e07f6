package tree

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math"
	"sync"

	"larder/internal/key"
)

// ErrDamaged is wrapped by the errors of Decode, and of listing a directory that it read, when the bytes are not what
// Encode wrote. A store takes it for a miss.
var ErrDamaged = errors.New("damaged tree")

// Decode reads a tree that Encode wrote; size is its length in bytes. Only the root is read at once: a directory is
// fetched, and checked against its digest in its parent, when it is first listed, so r must stay open as long as the
// tree is used. Identity needs no listing, except to find hard links. r is used by several goroutines if the tree is.
func Decode(r io.ReaderAt, size int64) (*Node, error) {
	if size < int64(len(header)+footerSize) {
		return nil, fmt.Errorf("%d bytes: %w", size, ErrDamaged)
	}
	head := make([]byte, len(header))
	if err := readFull(r, head, 0); err != nil {
		return nil, err
	}
	footer := make([]byte, footerSize)
	if err := readFull(r, footer, size-footerSize); err != nil {
		return nil, err
	}
	length := int64(binary.LittleEndian.Uint32(footer))
	end := size - footerSize - length
	if string(head) != header || string(footer[8:]) != footerMagic || end < int64(len(header)) || length > maxBlock {
		return nil, fmt.Errorf("no header and footer of a tree: %w", ErrDamaged)
	}
	rec := make([]byte, length)
	if err := readFull(r, rec, end); err != nil {
		return nil, err
	}
	if crc32.Checksum(rec, castagnoli) != binary.LittleEndian.Uint32(footer[4:]) {
		return nil, fmt.Errorf("root record: %w", ErrDamaged)
	}
	src := &blocks{r: r, groups: uint64(size)} // provisional: the root itself has no group
	p := &parser{buf: rec, src: src, start: int64(len(header)), end: end}
	root := &Node{}
	p.node(root, 0)
	count := p.uvarint()
	if p.bad || len(p.buf) != 0 || p.start != end || count > uint64(size) {
		return nil, fmt.Errorf("root record: %w", ErrDamaged)
	}
	src.groups = count
	src.base = groups.Add(count) - count
	return root, nil
}

func readFull(r io.ReaderAt, b []byte, off int64) error {
	n, err := r.ReadAt(b, off)
	if n == len(b) {
		return nil
	}
	if err == nil || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("cut short: %w", ErrDamaged)
	}
	return fmt.Errorf("read tree: %w", err)
}

// blocks is what the directories of one decoded tree are read from.
type blocks struct {
	r      io.ReaderAt
	base   uint64 // Group of number 1 is base+1
	groups uint64 // how many there are
}

// lazyDir says where a directory's listing is: the last block bytes before end. What is below it fills start to there.
type lazyDir struct {
	src        *blocks
	start, end int64
	block      int64
	depth      int
	mu         sync.Mutex
}

func (l *lazyDir) load(d *dirData) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if d.lazy.Load() == nil {
		return nil
	}
	buf := make([]byte, l.block)
	if err := readFull(l.src.r, buf, l.end-l.block); err != nil {
		return err
	}
	if len(buf) < 5 || crc32.Checksum(buf[4:], castagnoli) != binary.LittleEndian.Uint32(buf) {
		return fmt.Errorf("directory at %d: %w", l.end-l.block, ErrDamaged)
	}
	p := &parser{buf: buf[4:], src: l.src, start: l.start, end: l.end - l.block, depth: l.depth}
	entries := p.entries()
	var m marks
	for _, e := range entries {
		m |= e.Node.marks()
	}
	if p.bad || len(p.buf) != 0 || p.start != p.end || m != d.marks {
		return fmt.Errorf("directory at %d: %w", l.end-l.block, ErrDamaged)
	}
	if got, err := hashList(entries); err != nil || got != *d.digest.Load() {
		return fmt.Errorf("directory at %d is not the one its parent names: %w", l.end-l.block, ErrDamaged)
	}
	d.entries = entries
	d.lazy.Store(nil)
	return nil
}

// parser reads records. After bad is set, everything that it yields is zero.
type parser struct {
	buf        []byte
	src        *blocks
	start, end int64 // what is left of the region for the directories still to come
	depth      int
	bad        bool
}

var whiteout = &Node{Kind: Whiteout}

// smallest is the least number of bytes that an entry takes: a Whiteout's.
const smallest = 3

func (p *parser) entries() []Entry {
	count := p.uvarint()
	if count == 0 || count > uint64(len(p.buf)/smallest) {
		p.bad = true
		return nil
	}
	entries := make([]Entry, 0, count)
	ends := make([]int, 0, count)
	var names []byte
	var mtime int64
	for range count {
		name := p.bytes()
		if p.bad || !goodName(name) || len(p.buf) == 0 {
			p.bad = true
			return nil
		}
		names = append(names, name...)
		ends = append(ends, len(names))
		n := whiteout
		if Kind(p.buf[0]) == Whiteout {
			p.buf = p.buf[1:]
		} else {
			n = &Node{}
			mtime = p.node(n, mtime)
		}
		entries = append(entries, Entry{Node: n})
	}
	all, from := string(names), 0 // one allocation for all names of a directory
	for i, to := range ends {
		entries[i].Name = all[from:to]
		from = to
		if i > 0 && entries[i-1].Name >= entries[i].Name {
			p.bad = true
		}
	}
	return entries
}

func goodName(name []byte) bool {
	for _, c := range name {
		if c == '/' || c == 0 {
			return false
		}
	}
	s := string(name)
	return s != "" && s != "." && s != ".."
}

func (p *parser) node(n *Node, mtime int64) int64 {
	kind := p.byte()
	n.Kind = Kind(kind & (flagOpaque - 1))
	n.Mode = p.uint32()
	n.UID = p.uint32()
	n.GID = p.uint32()
	n.MTime = mtime + p.varint()
	n.Xattrs = p.xattrs()
	if n.Kind == Dir && n.Mode&flagImplied != 0 {
		n.Implied = true
		n.Mode &^= flagImplied
	}
	if n.Mode > 0o7777 || n.Kind != Dir && kind >= flagOpaque {
		p.bad = true
	}
	switch n.Kind {
	case File:
		n.Size = p.int63()
		n.Content = p.digest()
	case Dir:
		n.Opaque = kind&flagOpaque != 0
		n.dir = p.dir(marks(kind >> marksShift))
	case Symlink:
		n.Link = string(p.bytes())
	case Char, Block:
		n.Rdev = p.uvarint()
	case Fifo, Socket:
	default:
		p.bad = true
	}
	if n.Kind != Dir {
		if g := p.uvarint(); g != 0 {
			if g > p.src.groups {
				p.bad = true
			}
			n.Group = p.src.base + g
		}
	}
	return n.MTime
}

// noEntries is the digest of an empty listing.
var noEntries = key.Digest(sha256.Sum256(append([]byte(listDomain), 0)))

func (p *parser) dir(m marks) *dirData {
	region, block := p.int63(), p.int63()
	digest := p.digest()
	d := &dirData{marks: m}
	d.digest.Store(&digest)
	switch {
	case region == 0 && block == 0:
		if m != 0 || digest != noEntries {
			p.bad = true
		}
	case block < 5 || block > region || block > maxBlock || region > p.end-p.start || p.depth > maxDepth:
		p.bad = true
	default:
		d.lazy.Store(&lazyDir{src: p.src, start: p.start, end: p.start + region, block: block, depth: p.depth + 1})
		p.start += region
	}
	return d
}

func (p *parser) xattrs() []Xattr {
	count := p.uvarint()
	if count == 0 {
		return nil
	}
	if count > uint64(len(p.buf)/2) {
		p.bad = true
		return nil
	}
	list := make([]Xattr, 0, count)
	for i := range count {
		x := Xattr{Name: string(p.bytes())}
		x.Value = append([]byte{}, p.bytes()...)
		if p.bad || i > 0 && list[i-1].Name >= x.Name {
			p.bad = true
			return nil
		}
		list = append(list, x)
	}
	return list
}

func (p *parser) byte() byte {
	if len(p.buf) == 0 {
		p.bad = true
		return 0
	}
	b := p.buf[0]
	p.buf = p.buf[1:]
	return b
}

func (p *parser) uvarint() uint64 {
	v, n := binary.Uvarint(p.buf)
	if n <= 0 {
		p.bad, p.buf = true, nil
		return 0
	}
	p.buf = p.buf[n:]
	return v
}

func (p *parser) varint() int64 {
	v, n := binary.Varint(p.buf)
	if n <= 0 {
		p.bad, p.buf = true, nil
		return 0
	}
	p.buf = p.buf[n:]
	return v
}

func (p *parser) uint32() uint32 {
	v := p.uvarint()
	if v > math.MaxUint32 {
		p.bad = true
	}
	return uint32(v)
}

func (p *parser) int63() int64 {
	v := p.uvarint()
	if v > math.MaxInt64 {
		p.bad = true
		return 0
	}
	return int64(v)
}

func (p *parser) bytes() []byte {
	n := p.uvarint()
	if n > uint64(len(p.buf)) {
		p.bad, p.buf = true, nil
		return nil
	}
	b := p.buf[:n]
	p.buf = p.buf[n:]
	return b
}

func (p *parser) digest() (d key.Digest) {
	if len(p.buf) < key.Size {
		p.bad, p.buf = true, nil
		return d
	}
	copy(d[:], p.buf)
	p.buf = p.buf[key.Size:]
	return d
}

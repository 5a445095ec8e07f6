package tree

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
)

// The format is described in docs/formats.md, "Trees". Numbers here are part of it.
const (
	header      = "larder tree 1\n"
	footerMagic = "LTR1"
	footerSize  = 12 // length and checksum of the root record, footerMagic

	flagOpaque  = 1 << 4  // in an entry's kind byte, of a Dir
	flagImplied = 1 << 12 // in a Dir's mode
	marksShift  = 5       // above it, a Dir's marks

	// maxBlock bounds what one directory's listing takes: some two million names.
	maxBlock = 256 << 20
	// maxDepth is beyond what any path that Linux accepts can reach (PATH_MAX is 4096 bytes).
	maxDepth = 2100
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Encode writes root and everything below it, mtimes and hard links included. Equal trees give equal bytes.
func Encode(w io.Writer, root *Node) error {
	buf := bufio.NewWriterSize(w, 64<<10)
	e := &encoder{w: buf, groups: map[uint64]uint64{}}
	if root.HasGroups() {
		if err := e.countGroups(root); err != nil {
			return fmt.Errorf("encode tree: %w", err)
		}
	}
	if _, err := buf.WriteString(header); err != nil {
		return err
	}
	span, err := e.dir(root, 0)
	if err != nil {
		return fmt.Errorf("encode tree: %w", err)
	}
	rec, _, err := e.node(nil, root, span, 0)
	if err != nil {
		return fmt.Errorf("encode tree: %w", err)
	}
	rec = binary.AppendUvarint(rec, e.next)
	footer := binary.LittleEndian.AppendUint32(nil, uint32(len(rec)))
	footer = binary.LittleEndian.AppendUint32(footer, crc32.Checksum(rec, castagnoli))
	buf.Write(rec)
	buf.Write(footer)
	buf.WriteString(footerMagic)
	return buf.Flush()
}

type encoder struct {
	w      *bufio.Writer
	groups map[uint64]uint64 // Group -> number in the file; 0 not numbered yet; absent: a file with one name
	next   uint64
}

// span is where a directory lies: its own block is the last bytes of a region that holds those below it too. Its marks
// are those of what was written, where a Group of one file counts for none.
type span struct {
	region, block int64
	marks         marks
}

func (e *encoder) countGroups(root *Node) error {
	members := map[uint64]int{}
	err := Walk(root, func(_ string, n *Node) error {
		if !n.HasGroups() {
			return skip(n)
		}
		if n.Group != 0 {
			members[n.Group]++
		}
		return nil
	})
	for g, count := range members {
		if count > 1 {
			e.groups[g] = 0
		}
	}
	return err
}

func (e *encoder) dir(n *Node, depth int) (span, error) {
	var s span
	entries, err := n.Entries()
	if err != nil || len(entries) == 0 {
		return s, err
	}
	if depth > maxDepth {
		return s, fmt.Errorf("more than %d directories deep", maxDepth)
	}
	var below []span
	for _, c := range entries {
		if c.Node.Kind == Dir {
			b, err := e.dir(c.Node, depth+1)
			if err != nil {
				return s, err
			}
			below = append(below, b)
			s.region += b.region
		}
	}
	block := make([]byte, 4, 64+len(entries)*96)
	block = binary.AppendUvarint(block, uint64(len(entries)))
	var mtime int64
	for _, c := range entries {
		var at span
		if c.Node.Kind == Dir {
			at, below = below[0], below[1:]
		}
		block = appendString(block, c.Name)
		if block, mtime, err = e.node(block, c.Node, at, mtime); err != nil {
			return s, err
		}
		s.marks |= c.Node.marks()&^markGroup | at.marks
		if e.group(c.Node.Group) != 0 {
			s.marks |= markGroup
		}
	}
	if len(block) > maxBlock {
		return s, fmt.Errorf("a directory of %d names is too large", len(entries))
	}
	binary.LittleEndian.PutUint32(block, crc32.Checksum(block[4:], castagnoli))
	s.block = int64(len(block))
	s.region += s.block
	_, err = e.w.Write(block)
	return s, err
}

// node appends a node's record. mtimes are written as differences, as neighbours mostly have the same.
func (e *encoder) node(buf []byte, n *Node, at span, mtime int64) ([]byte, int64, error) {
	kind := byte(n.Kind)
	if n.Kind == Whiteout {
		return append(buf, kind), mtime, nil
	}
	if n.Kind == Dir {
		kind |= byte(at.marks) << marksShift
		if n.Opaque {
			kind |= flagOpaque
		}
	}
	buf = append(buf, kind)
	mode := n.Mode
	if n.Implied {
		mode |= flagImplied
	}
	buf = binary.AppendUvarint(buf, uint64(mode))
	buf = binary.AppendUvarint(buf, uint64(n.UID))
	buf = binary.AppendUvarint(buf, uint64(n.GID))
	buf = binary.AppendVarint(buf, n.MTime-mtime)
	buf = binary.AppendUvarint(buf, uint64(len(n.Xattrs)))
	for _, x := range n.Xattrs {
		buf = appendString(buf, x.Name)
		buf = appendString(buf, string(x.Value))
	}
	switch n.Kind {
	case File:
		buf = binary.AppendUvarint(buf, uint64(n.Size))
		buf = append(buf, n.Content[:]...)
	case Dir:
		list, err := n.listDigest()
		if err != nil {
			return nil, 0, err
		}
		buf = binary.AppendUvarint(buf, uint64(at.region))
		buf = binary.AppendUvarint(buf, uint64(at.block))
		buf = append(buf, list[:]...)
	case Symlink:
		buf = appendString(buf, n.Link)
	case Char, Block:
		buf = binary.AppendUvarint(buf, n.Rdev)
	}
	if n.Kind != Dir {
		buf = binary.AppendUvarint(buf, e.group(n.Group))
	}
	return buf, n.MTime, nil
}

func (e *encoder) group(g uint64) uint64 {
	number, ok := e.groups[g]
	if !ok || g == 0 {
		return 0
	}
	if number == 0 {
		e.next++
		number = e.next
		e.groups[g] = number
	}
	return number
}

package fileop

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math"

	"larder/internal/key"
	"larder/internal/tree"
)

// ErrDamaged is wrapped by UnmarshalBinary when the bytes are not what MarshalBinary wrote.
var ErrDamaged = errors.New("damaged destination resolution")

const resolutionHeader = "larder resolution 1\n"

// Flags of a stored Probe.
const (
	probeFound = 1 << iota
	probeContent
	probeListed
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// MarshalBinary writes the resolution for storage (docs/formats.md, "Destination resolutions"). Equal resolutions give
// equal bytes.
func (r *Resolution) MarshalBinary() ([]byte, error) {
	w := writer(resolutionHeader)
	w.uint(uint64(len(r.Probes)))
	for _, p := range r.Probes {
		flags := 0
		if p.Node != nil {
			flags |= probeFound
		}
		if p.HasContent {
			flags |= probeContent
		}
		if p.Listed {
			flags |= probeListed
		}
		w.uint(uint64(p.Input))
		w.str(p.Path)
		w.uint(uint64(flags))
		if p.Node != nil {
			w.node(p.Node)
		}
		if p.HasContent {
			w.uint(uint64(p.Node.Size))
			w = append(w, p.Node.Content[:]...)
		}
		if p.Listed {
			w.uint(uint64(len(p.Names)))
			for _, name := range p.Names {
				w.str(name)
			}
		}
	}
	w.uint(uint64(len(r.Owners)))
	for _, o := range r.Owners {
		w.uint(uint64(o.Input))
		w.bool(o.Group)
		w.str(o.Name)
		w.bool(o.Found)
		w.uint(uint64(o.UID))
		w.uint(uint64(o.GID))
	}
	return binary.LittleEndian.AppendUint32(w, crc32.Checksum(w, castagnoli)), nil
}

// UnmarshalBinary reads what MarshalBinary wrote.
func (r *Resolution) UnmarshalBinary(b []byte) error {
	end := len(b) - 4
	if end < len(resolutionHeader) || string(b[:len(resolutionHeader)]) != resolutionHeader ||
		crc32.Checksum(b[:end], castagnoli) != binary.LittleEndian.Uint32(b[end:]) {
		return ErrDamaged
	}
	p := &reader{buf: b[len(resolutionHeader):end]}
	var out Resolution
	for range p.count() {
		out.Probes = append(out.Probes, p.probe())
	}
	for range p.count() {
		o := Owner{Input: int(p.uint(math.MaxInt32)), Group: p.bool(), Name: p.str(), Found: p.bool()}
		o.UID, o.GID = uint32(p.uint(math.MaxUint32)), uint32(p.uint(math.MaxUint32))
		out.Owners = append(out.Owners, o)
	}
	if p.bad || len(p.buf) > 0 {
		return fmt.Errorf("%d bytes: %w", len(b), ErrDamaged)
	}
	out.sort()
	*r = out
	return nil
}

type writer []byte

func (w *writer) uint(v uint64) { *w = binary.AppendUvarint(*w, v) }
func (w *writer) str(s string)  { w.uint(uint64(len(s))); *w = append(*w, s...) }

func (w *writer) bool(v bool) {
	if v {
		w.uint(1)
		return
	}
	w.uint(0)
}

func (w *writer) node(n *tree.Node) {
	w.uint(uint64(n.Kind))
	w.uint(uint64(n.Mode))
	w.uint(uint64(n.UID))
	w.uint(uint64(n.GID))
	*w = binary.AppendVarint(*w, n.MTime)
	w.uint(uint64(len(n.Xattrs)))
	for _, x := range n.Xattrs {
		w.str(x.Name)
		w.str(string(x.Value))
	}
	w.str(n.Link)
	w.uint(n.Rdev)
}

// reader reads what writer wrote. After bad is set, everything that it yields is zero.
type reader struct {
	buf []byte
	bad bool
}

func (p *reader) fail() {
	p.bad, p.buf = true, nil
}

func (p *reader) uint(limit uint64) uint64 {
	v, n := binary.Uvarint(p.buf)
	if n <= 0 || v > limit {
		p.fail()
		return 0
	}
	p.buf = p.buf[n:]
	return v
}

// count reads how many things follow, each of which takes a byte or more.
func (p *reader) count() uint64 { return p.uint(uint64(len(p.buf))) }
func (p *reader) bool() bool    { return p.uint(1) == 1 }

func (p *reader) take(n uint64) []byte {
	if n > uint64(len(p.buf)) {
		p.fail()
		return nil
	}
	b := p.buf[:n]
	p.buf = p.buf[n:]
	return b
}

func (p *reader) str() string { return string(p.take(p.uint(math.MaxInt32))) }

func (p *reader) probe() Probe {
	out := Probe{Input: int(p.uint(math.MaxInt32)), Path: p.str()}
	flags := p.uint(probeFound | probeContent | probeListed)
	if flags&probeFound != 0 {
		out.Node = p.node()
	}
	if flags&probeContent != 0 {
		if out.Node == nil {
			p.fail()
			return out
		}
		out.HasContent = true
		out.Node.Size = int64(p.uint(math.MaxInt64))
		copy(out.Node.Content[:], p.take(key.Size))
	}
	if flags&probeListed != 0 {
		out.Listed = true
		for range p.count() {
			out.Names = append(out.Names, p.str())
		}
	}
	return out
}

func (p *reader) node() *tree.Node {
	kind := tree.Kind(p.uint(uint64(tree.Socket)))
	meta := tree.Meta{Mode: uint32(p.uint(0o7777)), UID: uint32(p.uint(math.MaxUint32)), GID: uint32(p.uint(math.MaxUint32))}
	mtime, n := binary.Varint(p.buf)
	if n <= 0 || kind == 0 {
		p.fail()
		return &tree.Node{Kind: tree.File}
	}
	p.buf = p.buf[n:]
	meta.MTime = mtime
	for range p.count() {
		x := tree.Xattr{Name: p.str()}
		x.Value = append([]byte{}, p.take(p.uint(math.MaxInt32))...)
		meta.Xattrs = append(meta.Xattrs, x)
	}
	link := p.str()
	rdev := p.uint(math.MaxUint64)
	if kind == tree.Dir {
		return tree.Empty().WithMeta(meta)
	}
	return &tree.Node{Kind: kind, Meta: meta, Link: link, Rdev: rdev}
}

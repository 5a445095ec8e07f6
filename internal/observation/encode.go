package observation

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"sync"

	"github.com/klauspost/compress/zstd"

	"larder/internal/tree"
)

// A stored set is one zstd frame of its body: the header; the number of parts; of each part the number of looks; of each look its
// kinds (a byte), how many bytes its path has in common with the one before in its part, the length of the rest, and the rest.
// Numbers are varints, everything as short as can be.
const (
	header = "larder looks 1\n"

	// maxBody bounds a body, in bytes, and what it is packed in.
	maxBody = maxPaths + 8*(MaxLooks+MaxParts)
	// smallest is the least number of bytes that a look takes.
	smallest = 3
)

var (
	packer = sync.OnceValues(func() (*zstd.Encoder, error) {
		return zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedBetterCompression), zstd.WithEncoderConcurrency(1))
	})
	unpacker = sync.OnceValues(func() (*zstd.Decoder, error) {
		return zstd.NewReader(nil, zstd.WithDecoderMaxMemory(maxBody), zstd.WithDecoderConcurrency(2))
	})
)

// MarshalBinary gives the set's stored form. A set that is not sorted, or beyond the bounds, has none.
func (s Set) MarshalBinary() ([]byte, error) {
	if err := s.check(); err != nil {
		return nil, err
	}
	enc, err := packer()
	if err != nil {
		return nil, err
	}
	return enc.EncodeAll(s.appendBody(nil), nil), nil
}

// UnmarshalBinary reads what MarshalBinary gave. The error wraps tree.ErrDamaged, and leaves s as it was.
func (s *Set) UnmarshalBinary(b []byte) error {
	dec, err := unpacker()
	if err != nil {
		return err
	}
	if len(b) > maxBody {
		return fmt.Errorf("path set of %d bytes: %w", len(b), tree.ErrDamaged)
	}
	body, err := dec.DecodeAll(b, nil)
	if err != nil {
		return fmt.Errorf("path set: %w: %w", err, tree.ErrDamaged)
	}
	read, err := readBody(body)
	if err != nil {
		return err
	}
	*s = read
	return nil
}

func (s Set) appendBody(buf []byte) []byte {
	buf = append(buf, header...)
	buf = binary.AppendUvarint(buf, uint64(len(s.Parts)))
	for _, part := range s.Parts {
		buf = binary.AppendUvarint(buf, uint64(len(part)))
		before := ""
		for _, l := range part {
			common := commonPrefix(before, l.Path)
			buf = append(buf, byte(l.Kind))
			buf = binary.AppendUvarint(buf, uint64(common))
			buf = appendString(buf, l.Path[common:])
			before = l.Path
		}
	}
	return buf
}

func readBody(body []byte) (Set, error) {
	bad := func(what string) (Set, error) { return Set{}, fmt.Errorf("path set: %s: %w", what, tree.ErrDamaged) }
	rest, ok := bytes.CutPrefix(body, []byte(header))
	if !ok {
		return bad("no header")
	}
	p := &parser{buf: rest, room: maxPaths}
	s := Set{Parts: make([][]Look, p.count(min(MaxParts, len(p.buf))))}
	left := MaxLooks
	for i := range s.Parts {
		looks := make([]Look, p.count(min(left, len(p.buf)/smallest)))
		left -= len(looks)
		var path []byte
		for j := range looks {
			looks[j].Kind = Kind(p.byte())
			path = p.path(path)
			looks[j].Path = string(path)
		}
		s.Parts[i] = looks
	}
	if p.bad || len(p.buf) > 0 {
		return bad("cut short or longer than it says")
	}
	if err := s.check(); err != nil {
		return bad(err.Error())
	}
	if !bytes.Equal(s.appendBody(make([]byte, 0, len(body))), body) {
		return bad("written otherwise than it is")
	}
	return s, nil
}

// parser reads a body. After bad is set, everything that it yields is zero.
type parser struct {
	buf  []byte
	room int // how many bytes of paths may still come
	bad  bool
}

func (p *parser) fail() {
	p.bad, p.buf = true, nil
}

func (p *parser) byte() byte {
	if len(p.buf) == 0 {
		p.fail()
		return 0
	}
	b := p.buf[0]
	p.buf = p.buf[1:]
	return b
}

// count reads a number that is at most most.
func (p *parser) count(most int) int {
	v, n := binary.Uvarint(p.buf)
	if n <= 0 || v > uint64(most) {
		p.fail()
		return 0
	}
	p.buf = p.buf[n:]
	return int(v)
}

// path reads a path that begins as the one before does, in whose memory it may be written.
func (p *parser) path(before []byte) []byte {
	common := p.count(min(len(before), maxPath))
	n := p.count(min(len(p.buf), maxPath-common))
	if p.room -= common + n; p.room < 0 || n > len(p.buf) {
		p.fail()
		return nil
	}
	path := append(before[:common], p.buf[:n]...)
	p.buf = p.buf[n:]
	return path
}

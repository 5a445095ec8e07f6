package generation

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"sync"

	"github.com/klauspost/compress/zstd"

	"larder/internal/key"
	"larder/internal/tree"
)

const (
	header = "larder mount 1\n"
	// maxPlain bounds a segment when it is unpacked, and a segment's blob: some two million files.
	maxPlain = 256 << 20
)

// The columns of a segment, as they follow each other. The package's comment describes them.
const (
	colStates = iota
	colTree
	colTouched
	colTimes
	colPacks
	colFrames
	colGaps
	colLengths
	colRaws
	colCounts
	colAt
	colOffsets
	colSizes
	colDigests
	colMoved
	colIdles
	colRuns
	colLedger
	columnCount
)

// column is one of them. Reading takes from its front; after bad is set, everything that it yields is zero.
type column struct {
	buf []byte
	bad bool
}

type columns [columnCount]column

func (c *column) addUint(v uint64)       { c.buf = binary.AppendUvarint(c.buf, v) }
func (c *column) addInt(v int64)         { c.buf = binary.AppendVarint(c.buf, v) }
func (c *column) addDigest(d key.Digest) { c.buf = append(c.buf, d[:]...) }

func (c *column) more() bool { return !c.bad && len(c.buf) > 0 }

func (c *column) fail() {
	c.bad, c.buf = true, nil
}

func (c *column) uint() uint64 {
	v, n := binary.Uvarint(c.buf)
	if n <= 0 {
		c.fail()
		return 0
	}
	c.buf = c.buf[n:]
	return v
}

// count reads a number that is at most most.
func (c *column) count(most int) int {
	v := c.uint()
	if v > uint64(most) {
		c.fail()
		return 0
	}
	return int(v)
}

// length reads a number of bytes.
func (c *column) length() int64 { return int64(c.count(math.MaxInt64)) }

func (c *column) int() int64 {
	v, n := binary.Varint(c.buf)
	if n <= 0 {
		c.fail()
		return 0
	}
	c.buf = c.buf[n:]
	return v
}

func (c *column) bytes(n int) []byte {
	if n > len(c.buf) {
		c.fail()
		return nil
	}
	b := c.buf[:n]
	c.buf = c.buf[n:]
	return b
}

func (c *column) digest() (d key.Digest) {
	copy(d[:], c.bytes(key.Size))
	return d
}

var (
	packer = sync.OnceValues(func() (*zstd.Encoder, error) {
		return zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedDefault), zstd.WithEncoderConcurrency(2))
	})
	unpacker = sync.OnceValues(func() (*zstd.Decoder, error) {
		return zstd.NewReader(nil, zstd.WithDecoderMaxMemory(maxPlain), zstd.WithDecoderConcurrency(2))
	})
)

// blob makes a segment of its columns.
func (s *columns) blob() ([]byte, error) {
	plain := []byte(header)
	for i := range s {
		plain = binary.AppendUvarint(plain, uint64(len(s[i].buf)))
		plain = append(plain, s[i].buf...)
	}
	if len(plain) > maxPlain {
		return nil, fmt.Errorf("its list of files takes %d bytes, more than %d", len(plain), maxPlain)
	}
	enc, err := packer()
	if err != nil {
		return nil, err
	}
	return enc.EncodeAll(plain, nil), nil
}

// openColumns is the reverse of blob. The columns' own contents are still to be checked.
func openColumns(blob []byte) (*columns, error) {
	if len(blob) > maxPlain {
		return nil, damaged("%d bytes", len(blob))
	}
	dec, err := unpacker()
	if err != nil {
		return nil, err
	}
	plain, err := dec.DecodeAll(blob, nil)
	if err != nil {
		return nil, damaged("unpack: %v", err)
	}
	rest, ok := bytes.CutPrefix(plain, []byte(header))
	if !ok {
		return nil, damaged("no header of a segment")
	}
	s := &columns{}
	all := column{buf: rest}
	for i := range s {
		s[i].buf = all.bytes(all.count(len(all.buf)))
	}
	if all.bad || all.more() {
		return nil, damaged("its columns are cut short")
	}
	return s, nil
}

// end says whether columns were read to their ends and without fault.
func (s *columns) end(which ...int) error {
	for _, i := range which {
		if s[i].bad || len(s[i].buf) > 0 {
			return damaged("column %d", i)
		}
	}
	return nil
}

func damaged(format string, args ...any) error {
	return fmt.Errorf("%s: %w", fmt.Sprintf(format, args...), tree.ErrDamaged)
}

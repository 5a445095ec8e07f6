package layer

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"

	"larder/internal/key"
	"larder/internal/tree"
)

// maxTail is how much a tar may hold after its end mark; tools pad to 10 KiB, or 1 MiB at most.
const maxTail = 64 << 20

// UnpackBlob unpacks a layer as it comes from a registry: it decompresses r, unpacks it as Unpack does, and compares the digest
// of the tar with diffID ("" for not known). Someone else's layer could otherwise be taken for one that is already
// here. The compressed bytes are verified by whoever opened r. r must end with an error when ctx is cancelled.
func UnpackBlob(ctx context.Context, r io.Reader, diffID digest.Digest, dir string) (*tree.Node, error) {
	dec, end, err := decompressor(r)
	if err != nil {
		return nil, err
	}
	p := newPump(dec, end, sha256.New())
	defer p.Close()
	root, err := Unpack(ctx, p, dir)
	if err != nil {
		return nil, err
	}
	if n, err := io.Copy(io.Discard, io.LimitReader(p, maxTail+1)); err != nil {
		return nil, fmt.Errorf("unpack layer: %w", err)
	} else if n > maxTail {
		return nil, fmt.Errorf("unpack layer: more than %d bytes after the end of the tar: %w", maxTail, ErrBadTar)
	}
	var sum key.Digest
	p.sum.Sum(sum[:0])
	if diffID != "" && sum.OCI() != diffID {
		return nil, fmt.Errorf("unpack layer: the tar has digest %s, the image says %s: %w", sum, diffID, ErrBadTar)
	}
	return root, nil
}

// Decompress yields the tar of a layer blob: gzip and zstd are told by their first bytes, anything else is passed on as it is.
// Decompression runs in a goroutine of its own, which Close ends and waits for; a Read of r that blocks then must be
// ended by r's own context.
func Decompress(r io.Reader) (io.ReadCloser, error) {
	dec, end, err := decompressor(r)
	if err != nil {
		return nil, err
	}
	return newPump(dec, end, nil), nil
}

func decompressor(r io.Reader) (dec io.Reader, end func(), err error) {
	from := &below{r: r}
	b := bufio.NewReaderSize(from, 128<<10)
	head, err := b.Peek(4)
	if err != nil && err != io.EOF {
		return nil, nil, fmt.Errorf("decompress layer: %w", err)
	}
	end = func() {}
	switch {
	case bytes.HasPrefix(head, []byte{0x1f, 0x8b}):
		dec, err = gzip.NewReader(b)
	case isZstd(head):
		var z *zstd.Decoder
		// The window is what a hostile blob may make us allocate; image builders stay at 8 MiB or below.
		z, err = zstd.NewReader(b, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(128<<20))
		if err == nil {
			dec, end = z, z.Close
		}
	default:
		return b, end, nil
	}
	if err != nil {
		return nil, nil, fmt.Errorf("decompress layer: %w", from.blame(err))
	}
	return &decoder{dec, from}, end, nil
}

// below is the stream that a decoder reads. It remembers why it broke off: decoders do not all hand on what they got.
type below struct {
	r   io.Reader
	err error
}

func (b *below) Read(p []byte) (int, error) {
	n, err := b.r.Read(p)
	if err != nil && err != io.EOF {
		b.err = err
	}
	return n, err
}

// blame gives what made a decoder fail: the stream's own error, or ErrBadTar for bytes that it cannot decode.
func (b *below) blame(err error) error {
	if b.err != nil {
		return b.err
	}
	return fmt.Errorf("%w: %w", ErrBadTar, err)
}

type decoder struct {
	dec  io.Reader
	from *below
}

func (d *decoder) Read(p []byte) (int, error) {
	n, err := d.dec.Read(p)
	if err != nil && err != io.EOF {
		err = d.from.blame(err)
	}
	return n, err
}

// isZstd knows frames, and the skippable ones with which zstd:chunked layers begin.
func isZstd(head []byte) bool {
	return bytes.Equal(head, []byte{0x28, 0xb5, 0x2f, 0xfd}) ||
		len(head) == 4 && head[0]&0xf0 == 0x50 && bytes.Equal(head[1:], []byte{0x2a, 0x4d, 0x18})
}

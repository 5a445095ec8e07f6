package pack

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"sync"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/sync/errgroup"

	"larder/internal/key"
	"larder/internal/remote"
)

// decompressor never gives more than the buffer holds that it is given.
var decompressor = sync.OnceValues(func() (*zstd.Decoder, error) {
	return zstd.NewReader(nil, zstd.WithDecoderConcurrency(runtime.GOMAXPROCS(0)), zstd.WithDecodeAllCapLimit(true), zstd.WithDecoderMaxMemory(maxRaw))
})

// DamageError says which pack has not the bytes that pieces promise. It wraps remote.ErrDamaged.
type DamageError struct {
	Pack key.Digest
	Err  error
}

func (e *DamageError) Error() string { return e.Err.Error() }
func (e *DamageError) Unwrap() error { return e.Err }

// Fetch reads pieces in few large ranges, `parallel` at once, and gives each, verified, to sink with its place in pieces, in no order,
// from several goroutines. data is sink's only while it runs. A digest that stands in pieces several times is read once and given for
// each. The first error ends everything: what is not what the pieces say wraps remote.ErrDamaged, as a *DamageError where it is a pack's
// fault; errors of open and sink are wrapped.
// Fetch holds the packed and the unpacked bytes of one frame for each range that is open.
func Fetch(ctx context.Context, open Opener, pieces []Piece, parallel int, sink func(i int, data []byte) error) error {
	parallel = max(parallel, 1)
	spans, err := plan(pieces, parallel)
	if err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(parallel)
	room := make(chan *scratch, parallel)
	for range parallel {
		room <- new(scratch)
	}
	for _, s := range spans {
		g.Go(func() error {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			b := <-room
			defer func() { room <- b }()
			err := s.fetch(ctx, open, b, sink)
			if errors.Is(err, remote.ErrDamaged) {
				return &DamageError{s.pack, err}
			}
			return err
		})
	}
	return g.Wait()
}

// scratch is what a range that is open needs to unpack its frames.
type scratch struct{ packed, raw []byte }

// grown gives n bytes of buf, or of a new one in its place where it is too small.
func grown(buf *[]byte, n int64) []byte {
	if int64(cap(*buf)) < n {
		*buf = make([]byte, (n+n/4+4095)&^4095)
	}
	return (*buf)[:n:n]
}

func (s *span) fetch(ctx context.Context, open Opener, b *scratch, sink func(int, []byte) error) error {
	rc, err := open(ctx, s.pack, s.off, s.n)
	if err != nil {
		return fmt.Errorf("pack %s: %w", s.pack, err)
	}
	defer rc.Close()
	at := s.off
	for _, f := range s.frames {
		if _, err := io.CopyN(io.Discard, rc, f.Offset-at); err != nil {
			return s.broken(err)
		}
		at = f.Offset + f.Length
		if err := s.frame(rc, f, b, sink); err != nil {
			return err
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
	return nil
}

// frame reads the next frame, which r is at, and gives what is wanted of it to sink.
func (s *span) frame(r io.Reader, f load, b *scratch, sink func(int, []byte) error) error {
	packed := grown(&b.packed, f.Length)
	if _, err := io.ReadFull(r, packed); err != nil {
		return s.broken(err)
	}
	dec, err := decompressor()
	if err != nil {
		return err
	}
	raw, err := dec.DecodeAll(packed, grown(&b.raw, f.Raw)[:0])
	if err != nil {
		return fmt.Errorf("pack %s: the frame at %d: %w: %w", s.pack, f.Offset, err, remote.ErrDamaged)
	}
	if int64(len(raw)) != f.Raw {
		return fmt.Errorf("pack %s: the frame at %d has %d bytes unpacked, %d expected: %w", s.pack, f.Offset, len(raw), f.Raw, remote.ErrDamaged)
	}
	for _, p := range f.pieces {
		data := raw[p.Offset : p.Offset+p.Size : p.Offset+p.Size]
		if got := key.Bytes(data); got != p.Digest {
			return fmt.Errorf("pack %s: the piece at %d of the frame at %d is %s, not %s: %w", s.pack, p.Offset, f.Offset, got, p.Digest, remote.ErrDamaged)
		}
		for _, i := range p.at {
			if err := sink(i, data); err != nil {
				return err
			}
		}
	}
	return nil
}

// broken says why a range could not be read to its end.
func (s *span) broken(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		err = fmt.Errorf("the range from %d of %d bytes is cut short: %w", s.off, s.n, remote.ErrDamaged)
	}
	return fmt.Errorf("pack %s: %w", s.pack, err)
}

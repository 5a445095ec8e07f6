package pack

import (
	"context"
	"runtime"
	"sync"

	"github.com/klauspost/compress/zstd"
)

const (
	// shareBelow is the size of a piece, in bytes, from which on it has a frame by itself.
	shareBelow = 256 << 10
	// sharedFrame is what pieces that share a frame fill it with, in bytes; the last one may reach over by less than shareBelow. On
	// go's build cache, frames of 256 KiB cost 1 % more than those of 512 KiB, and those of 1 MiB save 1 %.
	sharedFrame = 512 << 10
)

// compressor is one for all Writers, so that several do not compress on more cores than there are. On go's build cache the fastest
// level makes 26.5 % of the bytes at 220 MB/s on one core and the default one 25.7 % at 150 MB/s; on go sources it is 20.6 % at 290 MB/s
// and 18.9 % at 200 MB/s. What does not compress passes at gigabytes a second. A window of the usual piece's size bounds the memory.
// There is no checksum, since pieces have digests.
var compressor = sync.OnceValues(func() (*zstd.Encoder, error) {
	return zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(min(runtime.GOMAXPROCS(0), 8)),
		zstd.WithWindowSize(normalPiece), zstd.WithLowerEncoderMem(true), zstd.WithEncoderCRC(false))
})

// frame is one on its way into a pack.
type frame struct {
	raw    []byte
	packed []byte
	half   int64         // bytes that raw, and as many that packed, take of the Writer's memory
	ready  chan struct{} // closed when packed is there, or nothing will be because the Writer failed

	pack  *file // where it came to lie; for Close
	place Frame
}

// frame makes an empty frame with room for n bytes, as soon as there is memory for it.
func (w *Writer) frame(ctx context.Context, n int64) (*frame, error) {
	n = (n + bufferStep - 1) / bufferStep * bufferStep
	if !w.memory.TryAcquire(2 * n) {
		ctx, cancel := context.WithCancelCause(ctx)
		defer cancel(nil)
		stop := context.AfterFunc(w.ctx, func() { cancel(context.Cause(w.ctx)) })
		defer stop()
		if err := w.memory.Acquire(ctx, 2*n); err != nil {
			return nil, context.Cause(ctx)
		}
	}
	return &frame{raw: takeBuffer(n), half: n, ready: make(chan struct{})}, nil
}

// drop gives up a frame that was not needed.
func (w *Writer) drop(f *frame) {
	giveBuffer(f.raw)
	w.memory.Release(2 * f.half)
}

// seal sends a frame on its way. w.mu is held, which keeps the frames' order; it does not block, because the queue has room for all
// frames that there is memory for.
func (w *Writer) seal(f *frame) {
	if w.queue == nil {
		w.queue = make(chan *frame, inFrames/shareBelow)
		full := make(chan Pack, 1)
		w.running.Go(func() { w.write(full) })
		w.running.Go(func() { w.handOver(full) })
	}
	w.queue <- f
	go w.compress(f)
}

func (w *Writer) compress(f *frame) {
	defer close(f.ready)
	enc, err := compressor()
	if err != nil {
		w.cancel(err)
		return
	}
	f.place.Raw = int64(len(f.raw))
	f.packed = enc.EncodeAll(f.raw, takeBuffer(f.half))
	giveBuffer(f.raw)
	f.raw = nil
	w.memory.Release(f.half)
}

// Buffers of frames come in steps, with room for what zstd adds to bytes that do not compress.
const (
	bufferStep = 256 << 10
	bufferMore = 1 << 10
)

var buffers [maxLength/bufferStep + 2]sync.Pool

// takeBuffer gives an empty buffer for n bytes, maxLength at most, and what zstd adds to them.
func takeBuffer(n int64) []byte {
	i := (n + bufferStep - 1) / bufferStep
	if b, ok := buffers[i].Get().(*[]byte); ok {
		return (*b)[:0]
	}
	return make([]byte, 0, i*bufferStep+bufferMore)
}

// giveBuffer takes a buffer back, from wherever it is.
func giveBuffer(b []byte) {
	i := (cap(b) - bufferMore) / bufferStep
	if i > 0 && i < len(buffers) && cap(b) == i*bufferStep+bufferMore {
		buffers[i].Put(&b)
	}
}

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
	room   []byte        // that packed was written to
	half   int64         // bytes that raw, and as many that room, takes of the Writer's memory
	ready  chan struct{} // closed when packed is there, or nothing will be because the Writer failed

	pack  *file // where it came to lie; for Close
	place Frame
}

// frame makes an empty frame with room for n bytes, as soon as there is memory for it.
func (w *Writer) frame(ctx context.Context, n int64) (*frame, error) {
	n = bufferSizes[bufferClass(n)]
	if !w.memory.TryAcquire(2 * n) {
		ctx, cancel := context.WithCancelCause(ctx)
		defer cancel(nil)
		stop := context.AfterFunc(w.ctx, func() { cancel(context.Cause(w.ctx)) })
		defer stop()
		if err := w.memory.Acquire(ctx, 2*n); err != nil {
			return nil, context.Cause(ctx)
		}
	}
	return &frame{raw: w.buffers.take(n), half: n, ready: make(chan struct{})}, nil
}

// drop gives up a frame that was not needed.
func (w *Writer) drop(f *frame) {
	w.buffers.give(f.raw)
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
	f.room = w.buffers.take(f.half)
	f.packed = enc.EncodeAll(f.raw, f.room)
	w.buffers.give(f.raw)
	f.raw = nil
	w.memory.Release(f.half)
}

// release gives back what a frame that is written, or given up, still holds.
func (w *Writer) release(f *frame) {
	if f.room != nil {
		w.buffers.give(f.room)
	}
	f.packed, f.room = nil, nil
	w.memory.Release(f.half)
}

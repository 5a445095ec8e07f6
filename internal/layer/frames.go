package layer

import (
	"context"
	"crypto/sha256"
	"hash"
	"hash/crc32"
	"io"
	"runtime"
	"sync"

	"larder/internal/key"
)

// Frame says where in a blob something begins that can be unpacked without what is before it.
type Frame struct {
	Tar  int64 `json:"t"` // offset in the tar
	Blob int64 `json:"b"` // offset in the blob
}

// packing bounds the blocks that are packed at a time in the whole process, however many layers are exported.
var packing = make(chan struct{}, runtime.NumCPU())

// frameWriter packs a tar into frames: blocks are packed in parallel and written in order. One goroutine uses it; Close or
// abort ends its goroutines.
type frameWriter struct {
	ctx    context.Context
	cancel context.CancelCauseFunc
	codec  codec
	dst    io.Writer

	cur    *block
	frame  int64 // bytes of the current frame so far
	offset int64 // of the tar
	crc    uint32
	dict   []byte

	order   chan *block
	packers sync.WaitGroup
	out     sync.WaitGroup
	free    sync.Pool

	sum    hash.Hash // of the tar
	frames []Frame
	blob   int64
	err    error // after abort, why the blob is not complete
}

func newFrameWriter(ctx context.Context, dst io.Writer, c codec) *frameWriter {
	f := &frameWriter{codec: c, dst: dst, sum: sha256.New(), order: make(chan *block, 2*runtime.NumCPU())}
	f.ctx, f.cancel = context.WithCancelCause(ctx)
	f.out.Go(f.write)
	return f
}

// border says that an entry with so many bytes of contents comes next.
func (f *frameWriter) border(size int64) error {
	if f.frame >= f.codec.groupMin && f.frame+size > f.codec.groupMax {
		return f.endBlock(true)
	}
	return nil
}

func (f *frameWriter) Write(p []byte) (int, error) {
	total := len(p)
	for len(p) > 0 {
		// A full block is sent off when more comes, for only then it is known not to be the last of its frame.
		if f.cur != nil && len(f.cur.in) == f.codec.blockSize {
			if err := f.endBlock(!f.codec.join); err != nil {
				return total - len(p), err
			}
		}
		if f.cur == nil {
			f.cur = f.newBlock()
		}
		n := min(len(p), f.codec.blockSize-len(f.cur.in))
		f.cur.in = append(f.cur.in, p[:n]...)
		f.frame += int64(n)
		f.offset += int64(n)
		p = p[n:]
	}
	return total, nil
}

func (f *frameWriter) newBlock() *block {
	b, _ := f.free.Get().(*block)
	if b == nil {
		b = &block{in: make([]byte, 0, f.codec.blockSize)}
	}
	b.first, b.tarOffset, b.done = f.frame == 0, f.offset, make(chan struct{})
	b.dict = append(b.dict[:0], f.dict...)
	return b
}

// endBlock sends the current block to be packed; last says that it ends its frame.
func (f *frameWriter) endBlock(last bool) error {
	b := f.cur
	if b == nil {
		return nil
	}
	f.cur = nil
	b.last = last
	if f.codec.compression == Gzip {
		f.crc = crc32.Update(f.crc, crc32.IEEETable, b.in)
		b.crc, b.size = f.crc, uint32(f.frame)
		f.dict = append(f.dict[:0], b.in[max(0, len(b.in)-dictSize):]...)
	}
	if last {
		f.frame, f.crc, f.dict = 0, 0, f.dict[:0]
	}
	select {
	case f.order <- b:
	case <-f.ctx.Done():
		return context.Cause(f.ctx)
	}
	f.packers.Go(func() {
		defer close(b.done)
		packing <- struct{}{}
		defer func() { <-packing }()
		b.err = f.codec.pack(b)
	})
	return nil
}

// write puts out blocks in order.
func (f *frameWriter) write() {
	for b := range f.order {
		<-b.done
		if f.ctx.Err() != nil {
			continue
		}
		if b.err == nil {
			if b.first && f.codec.compression != Uncompressed {
				f.frames = append(f.frames, Frame{Tar: b.tarOffset, Blob: f.blob})
			}
			f.sum.Write(b.in)
			f.blob += int64(len(b.out))
			_, b.err = f.dst.Write(b.out)
		}
		if b.err != nil {
			f.cancel(b.err)
			continue
		}
		b.in, b.out = b.in[:0], b.out[:0]
		f.free.Put(b)
	}
}

// Close packs what is left and waits until all is written.
func (f *frameWriter) Close() error {
	err := f.endBlock(true)
	f.abort()
	if err == nil {
		err = f.err
	}
	return err
}

// abort ends the goroutines and waits for them. After Close it does nothing.
func (f *frameWriter) abort() {
	if f.order == nil {
		return
	}
	close(f.order)
	f.packers.Wait()
	f.out.Wait()
	f.order = nil
	f.err = context.Cause(f.ctx)
	f.cancel(nil)
}

// tarDigest is that of the tar, after Close.
func (f *frameWriter) tarDigest() key.Digest {
	var d key.Digest
	f.sum.Sum(d[:0])
	return d
}

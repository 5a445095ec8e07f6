package pack

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"sync"

	"golang.org/x/sync/semaphore"

	"larder/internal/key"
)

// What a Writer holds in memory at most, besides where the pieces are: the buffers of files that are read and cut, of frames, and the
// compressor's state. Together that stays under 64 MiB however large and many the files are.
const (
	readers  = 4        // files above smallFile that are read at once; CutAbove bytes each
	cutters  = 2        // files above CutAbove that are cut at once; maxPiece bytes each
	inFrames = 16 << 20 // bytes of frames on their way, before and after compression
	buffered = 30 << 20 // bytes of frames' buffers, those included that wait for the next frame of their size
)

// Options are what a Writer works with.
type Options struct {
	// Dir is where packs are written before they are taken over. It exists.
	Dir string
	// Have knows the pieces that are stored already. It is asked from several goroutines at once, and may be nil.
	Have func(key.Digest) (Piece, bool)
	// Done takes over each pack as soon as it is full, one at a time, while the next ones are written; writing waits when it falls
	// two packs behind. The file Path is Done's from then on, whatever it returns. Its error ends the Writer.
	Done func(Pack) error
}

var (
	errEnded   = errors.New("the writer of packs has ended")
	errAborted = errors.New("the writer of packs was called off")
)

// Writer packs files' contents. It is safe for concurrent use. Every piece is written once, whatever number of files has it. Added in
// the same order by one goroutine, the same files give the same packs.
type Writer struct {
	opt     Options
	full    int64           // bytes of a pack
	ctx     context.Context // ends with the first error, which is its cause
	cancel  context.CancelCauseFunc
	read    *slots
	cut     *slots
	memory  *semaphore.Weighted // of inFrames, which buffers take
	buffers pool

	mu     sync.Mutex
	stored map[key.Digest]Piece // what Have knew
	spots  map[key.Digest]spot  // what is, or will be, in a pack of this Writer
	open   *frame               // the frame that small pieces are added to; nil for none
	queue  chan *frame          // frames in the order in which they get into packs; nil until there is one
	ended  bool

	running sync.WaitGroup
}

// spot is where a piece lies in a frame.
type spot struct {
	frame     *frame
	off, size int64
}

// NewWriter starts a Writer. It is to be ended by Close or Abort.
func NewWriter(opt Options) *Writer {
	w := &Writer{
		opt:    opt,
		full:   fullPack,
		read:   newSlots(readers, CutAbove+1),
		cut:    newSlots(cutters, maxPiece),
		memory: semaphore.NewWeighted(inFrames),
		stored: map[key.Digest]Piece{},
		spots:  map[key.Digest]spot{},
	}
	w.ctx, w.cancel = context.WithCancelCause(context.Background())
	return w
}

// Add reads a file's contents to the end. It gives their sha256, their size and the pieces they were cut into: none for an empty
// file; exactly one, whose digest is the contents', up to CutAbove bytes. An error of r or ctx concerns this file only; any other
// is the Writer's end.
func (w *Writer) Add(ctx context.Context, r io.Reader) (content key.Digest, size int64, pieces []Ref, err error) {
	for _, ctx := range []context.Context{w.ctx, ctx} {
		if ctx.Err() != nil {
			return key.Digest{}, 0, nil, context.Cause(ctx)
		}
	}
	// Most files are small: they take no turn at the large buffers.
	small := smallBuffers.Get().(*[smallFile]byte)
	defer smallBuffers.Put(small)
	n, ended, err := fill(r, small[:])
	if err != nil {
		return key.Digest{}, 0, nil, err
	}
	if ended {
		return w.whole(ctx, small[:n])
	}

	buf, err := w.read.take(ctx, w.ctx)
	if err != nil {
		return key.Digest{}, 0, nil, err
	}
	defer w.read.give(buf)
	copy(buf, small[:])
	n, ended, err = fill(r, buf[smallFile:])
	if err != nil {
		return key.Digest{}, 0, nil, err
	}
	if ended {
		return w.whole(ctx, buf[:smallFile+n])
	}
	return w.parts(ctx, buf, r)
}

// whole adds contents that are one piece.
func (w *Writer) whole(ctx context.Context, data []byte) (key.Digest, int64, []Ref, error) {
	d := key.Bytes(data)
	if len(data) == 0 {
		return d, 0, nil, nil
	}
	if err := w.put(ctx, d, data); err != nil {
		return key.Digest{}, 0, nil, err
	}
	return d, int64(len(data)), []Ref{{d, int64(len(data))}}, nil
}

// parts cuts contents that begin with head and go on with r.
func (w *Writer) parts(ctx context.Context, head []byte, r io.Reader) (key.Digest, int64, []Ref, error) {
	buf, err := w.cut.take(ctx, w.ctx)
	if err != nil {
		return key.Digest{}, 0, nil, err
	}
	defer w.cut.give(buf)
	var list []Ref
	var size int64
	all := sha256.New()
	err = cut(head, r, buf, func(data []byte) error {
		all.Write(data)
		ref := Ref{key.Bytes(data), int64(len(data))}
		size, list = size+ref.Size, append(list, ref)
		if ctx.Err() != nil { // r may be endless
			return context.Cause(ctx)
		}
		return w.put(ctx, ref.Digest, data)
	})
	if err != nil {
		return key.Digest{}, 0, nil, err
	}
	return key.Digest(all.Sum(nil)), size, list, nil
}

// put sees to it that a piece is in a pack.
func (w *Writer) put(ctx context.Context, d key.Digest, data []byte) error {
	size := int64(len(data))
	if known, err := w.known(d); known || err != nil {
		return err
	}
	if w.opt.Have != nil {
		if p, ok := w.opt.Have(d); ok && p.Digest == d && p.Size == size && p.check() == nil {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.stored[d] = p
			return nil
		}
	}
	if size >= shareBelow {
		f, err := w.frame(ctx, size)
		if err != nil {
			return err
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		if known, err := w.knownLocked(d); known || err != nil { // somebody was faster
			w.drop(f)
			return err
		}
		w.add(f, d, data)
		w.seal(f)
		return nil
	}
	for {
		if done, err := w.share(d, data); done || err != nil {
			return err
		}
		f, err := w.frame(ctx, sharedFrame+shareBelow)
		if err != nil {
			return err
		}
		w.mu.Lock()
		if w.open == nil && !w.ended {
			w.open = f
		} else {
			w.drop(f)
		}
		w.mu.Unlock()
	}
}

// share adds a small piece to the open frame; false where there is none.
func (w *Writer) share(d key.Digest, data []byte) (done bool, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if known, err := w.knownLocked(d); known || err != nil {
		return known, err
	}
	f := w.open
	if f == nil {
		return false, nil
	}
	w.add(f, d, data)
	if len(f.raw) >= sharedFrame {
		w.open = nil
		w.seal(f)
	}
	return true, nil
}

func (w *Writer) known(d key.Digest) (bool, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.knownLocked(d)
}

func (w *Writer) knownLocked(d key.Digest) (bool, error) {
	if w.ctx.Err() != nil {
		return false, context.Cause(w.ctx)
	}
	if w.ended {
		return false, errEnded
	}
	_, packed := w.spots[d]
	_, stored := w.stored[d]
	return packed || stored, nil
}

// add appends a piece to a frame that has room for it. w.mu is held.
func (w *Writer) add(f *frame, d key.Digest, data []byte) {
	w.spots[d] = spot{f, int64(len(f.raw)), int64(len(data))}
	f.raw = append(f.raw, data...)
}

// Close writes what is left; it gives where every piece is that Add saw, those that Have knew included. Every pack has been taken over
// then. No Add may be under way. After an error nothing is to be used.
func (w *Writer) Close(ctx context.Context) (map[key.Digest]Piece, error) {
	if !w.end() {
		return nil, errEnded
	}
	stop := context.AfterFunc(ctx, func() { w.cancel(context.Cause(ctx)) })
	w.running.Wait()
	stop()
	if ctx.Err() != nil {
		w.cancel(context.Cause(ctx))
	}
	if w.ctx.Err() != nil {
		return nil, fmt.Errorf("write packs: %w", context.Cause(w.ctx))
	}
	w.cancel(errEnded)
	where := w.stored
	for d, s := range w.spots {
		where[d] = Piece{Digest: d, Size: s.size, Pack: s.frame.pack.digest, Frame: s.frame.place, Offset: s.off}
	}
	w.spots, w.stored = nil, nil
	return where, nil
}

// Abort drops what is unfinished: packs that Done has not seen are removed. It does nothing after Close.
func (w *Writer) Abort() {
	w.cancel(errAborted)
	if w.end() {
		w.running.Wait()
	}
}

// end closes the door: nothing gets into a frame from here on. It is false where that has happened before.
func (w *Writer) end() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.ended {
		return false
	}
	if w.open != nil {
		w.seal(w.open)
		w.open = nil
	}
	w.ended = true
	if w.queue != nil {
		close(w.queue)
	}
	return true
}

package pack

import (
	"crypto/sha256"
	"fmt"
	"hash"
	"os"

	"larder/internal/key"
)

// fullPack is how long a pack gets, in bytes; the last frame may reach over. Shorter ones would leave sooner, but every pack is a blob
// that catalogs name and stores are asked for.
const fullPack = 48 << 20

// file is a pack that is being written.
type file struct {
	f      *os.File
	hash   hash.Hash
	size   int64
	digest key.Digest // once it is finished
}

// write appends the queue's frames to packs, in their order, until it is closed, and sends the packs that are full.
func (w *Writer) write(full chan<- Pack) {
	defer close(full)
	var p *file
	for f := range w.queue {
		<-f.ready
		if w.ctx.Err() == nil {
			if err := w.append(&p, f); err != nil {
				w.cancel(err)
			}
		}
		w.release(f)
		if p != nil && p.size >= w.full {
			w.finish(p, full)
			p = nil
		}
	}
	if p != nil {
		w.finish(p, full)
	}
}

// append writes a frame to the pack p, a new one where it is nil.
func (w *Writer) append(p **file, f *frame) error {
	if *p == nil {
		out, err := os.CreateTemp(w.opt.Dir, "pack-")
		if err != nil {
			return fmt.Errorf("make a pack: %w", err)
		}
		*p = &file{f: out, hash: sha256.New()}
	}
	if _, err := (*p).f.Write(f.packed); err != nil {
		return fmt.Errorf("write a pack: %w", err)
	}
	(*p).hash.Write(f.packed)
	f.pack = *p
	f.place.Offset, f.place.Length = (*p).size, int64(len(f.packed))
	(*p).size += int64(len(f.packed))
	return nil
}

// finish sends a pack, or removes it where the Writer has failed.
func (w *Writer) finish(p *file, full chan<- Pack) {
	p.digest = key.Digest(p.hash.Sum(nil))
	path := p.f.Name()
	if err := p.f.Close(); err != nil {
		w.cancel(fmt.Errorf("write a pack: %w", err))
	}
	p.f, p.hash = nil, nil
	full <- Pack{Digest: p.digest, Size: p.size, Path: path}
}

// handOver gives the packs that are full to Done.
func (w *Writer) handOver(full <-chan Pack) {
	for p := range full {
		if w.ctx.Err() != nil {
			os.Remove(p.Path)
			continue
		}
		if err := w.opt.Done(p); err != nil {
			w.cancel(fmt.Errorf("pack %s: %w", p.Digest, err))
		}
	}
}

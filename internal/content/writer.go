package content

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"sync"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"larder/internal/key"
)

// ErrMismatch is wrapped when bytes that came in are not the ones that were announced.
var ErrMismatch = errors.New("bytes are not what was announced")

var buffers = sync.Pool{New: func() any { b := make([]byte, 256<<10); return &b }}

// Writer takes one blob. It belongs to one goroutine; Commit or Abort ends it, Abort after Commit does nothing.
type Writer struct {
	store *Store
	f     *os.File
	h     hash.Hash
	n     int64
}

// Create begins a blob whose digest is not known yet.
func (s *Store) Create() (*Writer, error) {
	for {
		f, err := os.CreateTemp(s.path("tmp"), "blob-")
		if err != nil {
			return nil, fmt.Errorf("store blob: %w", err)
		}
		// The lock tells sweepTmp that the writer lives. A sweep that came between creation and lock took the name away.
		if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
			f.Close()
			os.Remove(f.Name())
			return nil, fmt.Errorf("store blob: lock: %w", err)
		}
		var st unix.Stat_t
		if unix.Fstat(int(f.Fd()), &st) == nil && st.Nlink > 0 {
			return &Writer{store: s, f: f, h: sha256.New()}, nil
		}
		f.Close()
	}
}

// Write appends to the blob.
func (w *Writer) Write(p []byte) (int, error) {
	n, err := w.f.Write(p)
	w.h.Write(p[:n])
	w.n += int64(n)
	if err != nil {
		err = fmt.Errorf("store blob: %w", err)
	}
	return n, err
}

// Size is the number of bytes so far.
func (w *Writer) Size() int64 { return w.n }

// Commit makes the blob visible. want ("" for unknown) and size (-1 for unknown) must fit what was written, else the
// error wraps ErrMismatch and nothing is kept.
func (w *Writer) Commit(want digest.Digest, size int64) (Info, error) {
	defer w.Abort()
	var sum key.Digest
	w.h.Sum(sum[:0])
	if size >= 0 && size != w.n {
		return Info{}, fmt.Errorf("blob %s: %d bytes came, %d were announced: %w", want, w.n, size, ErrMismatch)
	}
	if want != "" && want != sum.OCI() {
		return Info{}, fmt.Errorf("blob %s: what came has digest %s: %w", want, sum, ErrMismatch)
	}
	if err := w.store.lease.hold(sum); err != nil {
		return Info{}, err
	}
	st, err := w.f.Stat()
	if err != nil {
		return Info{}, err
	}
	info := Info{Digest: sum.OCI(), Size: w.n, Used: st.ModTime()}
	if _, err := os.Stat(w.store.durablePath(sum)); err == nil {
		return info, nil
	}
	if err := os.Chmod(w.f.Name(), 0o444); err != nil {
		return Info{}, err
	}
	if err := os.Rename(w.f.Name(), w.store.freshPath(sum)); err != nil {
		return Info{}, fmt.Errorf("store blob %s: %w", sum, err)
	}
	w.f.Close()
	w.f = nil
	return info, nil
}

// Abort drops the blob unless it was committed.
func (w *Writer) Abort() {
	if w.f != nil {
		os.Remove(w.f.Name())
		w.f.Close()
		w.f = nil
	}
}

// Ingest stores what r yields. want ("" for unknown) and size (-1 for unknown) are checked, the error wraps ErrMismatch. A
// blob that is here already is not read from r at all. r may be endless: no more than size bytes and one are read of it
// where size is known.
func (s *Store) Ingest(ctx context.Context, r io.Reader, want digest.Digest, size int64) (Info, error) {
	if want != "" {
		info, err := s.Stat(want)
		if err == nil && (size < 0 || size == info.Size) {
			return info, nil
		}
		if err != nil && !errors.Is(err, ErrNotFound) {
			return Info{}, err
		}
	}
	w, err := s.Create()
	if err != nil {
		return Info{}, err
	}
	defer w.Abort()
	buf := buffers.Get().(*[]byte)
	defer buffers.Put(buf)
	for {
		if err := ctx.Err(); err != nil {
			return Info{}, err
		}
		n, err := r.Read(*buf)
		if _, werr := w.Write((*buf)[:n]); werr != nil {
			return Info{}, werr
		}
		if size >= 0 && w.n > size {
			return Info{}, fmt.Errorf("blob %s: more than the announced %d bytes: %w", want, size, ErrMismatch)
		}
		if err == io.EOF {
			return w.Commit(want, size)
		}
		if err != nil {
			return Info{}, fmt.Errorf("store blob %s: %w", want, err)
		}
	}
}

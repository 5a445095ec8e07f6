package content

import (
	"context"
	"crypto/sha256"
	"fmt"
	"hash"
	"io"
	"os"

	"github.com/opencontainers/go-digest"

	"larder/internal/key"
)

// Reader is an open blob, for reads at random. Its bytes are as the disk gives them; Stream and ReadAll verify. It is safe
// for concurrent use and is closed by the caller.
type Reader struct {
	f    *os.File
	size int64
}

// Open opens a blob for reads at random; ErrNotFound if it is not here.
func (s *Store) Open(dgst digest.Digest) (*Reader, error) {
	f, err := s.locate(dgst)
	if err != nil {
		return nil, err
	}
	st, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, err
	}
	touch(f.Name(), st)
	return &Reader{f: f, size: st.Size()}, nil
}

// ReadAt reads as io.ReaderAt says.
func (r *Reader) ReadAt(p []byte, off int64) (int, error) { return r.f.ReadAt(p, off) }

// Size is the blob's length in bytes.
func (r *Reader) Size() int64 { return r.size }

// Close ends the use of the reader.
func (r *Reader) Close() error { return r.f.Close() }

// Stream opens a blob for reading from its start. The bytes are hashed as they pass: where the disk gives others than were
// stored, the last Read fails with an error that wraps ErrNotFound instead of io.EOF, and the blob is deleted, so that the
// next one who asks gets it anew. The reader belongs to one goroutine.
func (s *Store) Stream(ctx context.Context, dgst digest.Digest) (io.ReadCloser, error) {
	r, err := s.Open(dgst)
	if err != nil {
		return nil, err
	}
	return &stream{ctx: ctx, store: s, r: r, want: dgst, h: sha256.New()}, nil
}

type stream struct {
	ctx   context.Context
	store *Store
	r     *Reader
	want  digest.Digest
	h     hash.Hash
}

func (s *stream) Read(p []byte) (int, error) {
	if err := s.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := s.r.f.Read(p)
	s.h.Write(p[:n])
	if err != nil && err != io.EOF {
		return n, err
	}
	if err == io.EOF {
		var sum key.Digest
		s.h.Sum(sum[:0])
		if sum.OCI() != s.want {
			s.store.Delete(s.want)
			return n, fmt.Errorf("%s was damaged on disk: %w", s.want, ErrNotFound)
		}
	}
	return n, err
}

func (s *stream) Close() error { return s.r.Close() }

// ReadAll gives a small blob's bytes, verified as Stream does. One of more than limit bytes is an error.
func (s *Store) ReadAll(ctx context.Context, dgst digest.Digest, limit int64) ([]byte, error) {
	r, err := s.Stream(ctx, dgst)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	b, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(b)) > limit {
		return nil, fmt.Errorf("%s: more than %d bytes", dgst, limit)
	}
	return b, nil
}

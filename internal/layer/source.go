package layer

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"

	"larder/internal/key"
)

// ChangedError tells that a file's bytes are not the ones that were hashed when the build looked at it first: it was
// edited meanwhile, or the disk is damaged. Nothing was kept of it.
type ChangedError struct {
	Name string // path of the file
}

func (e *ChangedError) Error() string {
	return fmt.Sprintf("%s changed while the build was reading it; build again when it is no longer written to", e.Name)
}

// Verified passes r's bytes on and hashes them. If they are not exactly size bytes with digest d, a Read fails with a
// *ChangedError that names the file, no later than where io.EOF would be. The reader belongs to one goroutine.
func Verified(r io.Reader, d key.Digest, size int64, name string) io.Reader {
	return &verified{r: r, want: d, left: size, name: name, h: sha256.New()}
}

type verified struct {
	r    io.Reader
	want key.Digest
	left int64
	name string
	h    hash.Hash
}

func (v *verified) Read(p []byte) (int, error) {
	n, err := v.r.Read(p)
	if int64(n) > v.left {
		return 0, &ChangedError{Name: v.name}
	}
	v.left -= int64(n)
	v.h.Write(p[:n])
	if err == io.EOF {
		var sum key.Digest
		v.h.Sum(sum[:0])
		if v.left != 0 || sum != v.want {
			return n, &ChangedError{Name: v.name}
		}
	}
	return n, err
}

// Literal is a Source of bytes in memory. It takes ownership of the map.
func Literal(contents map[key.Digest][]byte) Source { return literal(contents) }

type literal map[key.Digest][]byte

func (l literal) Open(_ context.Context, d key.Digest, _ int64) (io.ReadCloser, error) {
	b, ok := l[d]
	if !ok {
		return nil, fmt.Errorf("%s: %w", d, ErrNoContent)
	}
	return io.NopCloser(bytes.NewReader(b)), nil
}

// Union asks sources in order and takes the first that has the file. Nil ones are left out. An error that is not
// ErrNoContent is returned only where no source has the file.
func Union(sources ...Source) Source {
	u := make(union, 0, len(sources))
	for _, s := range sources {
		if s != nil {
			u = append(u, s)
		}
	}
	if len(u) == 1 {
		return u[0]
	}
	return u
}

type union []Source

func (u union) Open(ctx context.Context, d key.Digest, size int64) (io.ReadCloser, error) {
	err := fmt.Errorf("%s: %w", d, ErrNoContent)
	for _, s := range u {
		r, serr := s.Open(ctx, d, size)
		if serr == nil {
			return r, nil
		}
		if !errors.Is(serr, ErrNoContent) {
			err = serr
		}
	}
	return nil, err
}

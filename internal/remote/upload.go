package remote

import (
	"context"
	"io"
)

// Source opens an upload's bytes for a Put: verified, and with errors marked ErrFinal, as it is not the store that failed.
func (u Upload) Source(ctx context.Context) (io.ReadCloser, error) {
	rc, err := u.Open(ctx)
	if err != nil {
		return nil, Mark(err, ErrFinal)
	}
	return &source{Verified(rc, u.Desc)}, nil
}

type source struct{ io.ReadCloser }

func (s *source) Read(p []byte) (int, error) {
	n, err := s.ReadCloser.Read(p)
	if err != nil && err != io.EOF {
		err = Mark(err, ErrFinal)
	}
	return n, err
}

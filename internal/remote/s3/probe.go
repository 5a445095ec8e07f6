package s3

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/minio/minio-go/v7"
	"golang.org/x/sync/errgroup"

	"larder/internal/remote"
)

const (
	// probeName is an object that no document's name can be. It is made once and stays.
	probeName = ".larder-probe"
	// noETag is an ETag that the probe's object does not have.
	noETag = "00000000000000000000000000000000"
	// probePatience bounds the probe where nobody else does.
	probePatience = 30 * time.Second
)

// Conditional tells whether the server compares before it writes. It is asked at the first use; as long as it does not answer,
// the answer is no.
func (s *Store) Conditional() bool {
	ctx, cancel := context.WithTimeout(context.Background(), probePatience)
	defer cancel()
	ok, err := s.probe(ctx)
	return ok && err == nil
}

// probe finds out, once, whether the server honours If-None-Match and If-Match when it writes. Some ignore them: they would
// overwrite what somebody else has just written. So it is tried on an object whose content does not matter, by requests
// that must be refused:
//
//   - If-Match with an ETag that nothing has: success means ignored;
//   - If-None-Match: * once the object is there: success means ignored. The first such request of a bucket's life makes the
//     object, and is sent again.
//
// Several jobs may do so at once, for the object is never removed and its bytes are always the same: a refusal is a refusal
// whoever made the object. Should somebody remove it between two requests, the answer is no, which is safe.
func (s *Store) probe(ctx context.Context) (bool, error) {
	s.probing.Lock()
	defer s.probing.Unlock()
	if s.probed {
		return s.conditional, nil
	}
	var match, noneMatch bool
	group, gctx := errgroup.WithContext(ctx)
	group.Go(func() (err error) {
		match, err = s.refuses(gctx, func(o *minio.PutObjectOptions) { o.SetMatchETag(noETag) })
		return err
	})
	group.Go(func() (err error) {
		for try := 0; try < 2 && !noneMatch && err == nil; try++ {
			noneMatch, err = s.refuses(gctx, func(o *minio.PutObjectOptions) { o.SetMatchETagExcept("*") })
		}
		return err
	})
	if err := group.Wait(); err != nil {
		return false, s.fail(ctx, "put", s.probeKey(), fmt.Errorf("find out whether the server compares before it writes: %w", err))
	}
	s.probed, s.conditional = true, match && noneMatch
	return s.conditional, nil
}

func (s *Store) probeKey() string { return s.cfg.Prefix + s.cfg.Manifests + probeName }

// refuses writes the probe's object under a condition and tells whether the server refused because of it.
func (s *Store) refuses(ctx context.Context, condition func(*minio.PutObjectOptions)) (bool, error) {
	opts := minio.PutObjectOptions{ContentType: "text/plain"}
	condition(&opts)
	_, err := s.putBytes(ctx, s.probeKey(), []byte("larder asks here whether this server compares before it writes\n"), opts)
	if err == nil {
		return false, nil
	}
	switch reason := s.reason(err); {
	case errors.Is(reason, remote.ErrConflict), errors.Is(reason, remote.ErrNotFound): // the latter: If-Match without an object
		return true, nil
	case errors.Is(reason, remote.ErrUnsupported), badRequest(err):
		return false, nil
	}
	return false, err
}

// badRequest tells an answer of servers that know these headers, but not for writing.
func badRequest(err error) bool {
	var e minio.ErrorResponse
	return errors.As(err, &e) && e.StatusCode == http.StatusBadRequest && (e.Code == "NotImplemented" || e.Code == "InvalidArgument" || e.Code == "InvalidRequest")
}

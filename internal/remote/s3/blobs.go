package s3

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/minio/minio-go/v7"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"larder/internal/remote"
)

const (
	lookingAtOnce = 32      // requests that look for a document's blobs
	maxCopy       = 5 << 30 // bytes of an object that a server copies by one request
)

// checkBlobs looks for every blob that a document names, and makes those young again whose time may soon be over.
func (s *Store) checkBlobs(ctx context.Context, key string, b []byte) error {
	named, err := remote.Blobs(b)
	if err != nil {
		return s.fail(ctx, "put", key, err)
	}
	slices.SortFunc(named, func(a, b ocispecs.Descriptor) int { return strings.Compare(string(a.Digest), string(b.Digest)) })
	named = slices.CompactFunc(named, func(a, b ocispecs.Descriptor) bool { return a.Digest == b.Digest })
	missing := make([]bool, len(named))
	group, gctx := errgroup.WithContext(ctx)
	group.SetLimit(lookingAtOnce)
	for i, desc := range named {
		group.Go(func() error {
			there, err := s.renew(gctx, desc)
			missing[i] = !there
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	var gone remote.MissingError
	for i, desc := range named {
		if missing[i] {
			gone.Digests = append(gone.Digests, desc.Digest)
		}
	}
	if len(gone.Digests) > 0 {
		return s.fail(ctx, "put", key, &gone)
	}
	return nil
}

// renew is Has for a blob that shall stay: one of some age is copied onto itself, so that a lifecycle rule counts from now.
// Where that does not work, it is there all the same.
func (s *Store) renew(ctx context.Context, desc ocispecs.Descriptor) (bool, error) {
	key, err := s.blobKey(desc.Digest)
	if err != nil {
		return false, err
	}
	info, err := s.stat(ctx, key)
	if err != nil || info.Size != desc.Size {
		return false, ignoreMissing(err)
	}
	if s.cfg.Touch == 0 || s.now().Sub(info.LastModified) < s.cfg.Touch || info.Size > maxCopy {
		return true, nil
	}
	return !errors.Is(s.touch(ctx, key), remote.ErrNotFound), nil
}

// touch copies an object onto itself, which only counts as a change where its metadata are given anew.
func (s *Store) touch(ctx context.Context, key string) error {
	_, err := s.client.CopyObject(ctx, s.cfg.Bucket, key, s.cfg.Bucket, key,
		map[string]string{"X-Amz-Metadata-Directive": "REPLACE", "Content-Type": "application/octet-stream"},
		minio.CopySrcOptions{}, minio.PutObjectOptions{})
	return s.fail(ctx, "renew", key, err)
}

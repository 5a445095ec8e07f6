package s3

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/minio/minio-go/v7"
	"golang.org/x/sync/errgroup"

	"larder/internal/remote"
)

const (
	partSize   = 8 << 20 // bytes; a blob that fits into one part is sent by one PUT
	maxParts   = 10000   // of one object
	maxBuffers = 8       // parts in memory at once, of all uploads of a Store
	smallBytes = 1 << 20 // what is not larger does not count as a part in memory
	partTries  = 3       // a part that fails must not cost its whole blob
	partPause  = 100 * time.Millisecond
	abortAfter = 30 * time.Second
)

// Put brings a blob in. Unless it is New, it is asked for first; Origin is not believed, because a bucket's lifecycle rules
// expire blobs behind everybody's back.
func (s *Store) Put(ctx context.Context, up remote.Upload) (sent bool, err error) {
	key, err := s.blobKey(up.Desc.Digest)
	if err != nil {
		return false, err
	}
	if up.Desc.Size < 0 {
		return false, s.fail(ctx, "put", key, fmt.Errorf("size %d", up.Desc.Size))
	}
	if !up.New {
		if there, err := s.Has(ctx, up.Desc); there || err != nil {
			return false, err
		}
	}
	rc, err := up.Source(ctx)
	if err != nil {
		return false, s.fail(ctx, "put", key, err)
	}
	defer rc.Close()
	u := &upload{s: s, key: key, src: rc, left: up.Desc.Size}
	if up.Desc.Size <= int64(s.part) {
		err = u.whole(ctx)
	} else {
		err = u.inParts(ctx, up.Desc.Size)
	}
	return err == nil, s.fail(ctx, "put", key, err)
}

// upload is a blob that is being read. Its src is for one goroutine, and proves itself: the last bytes come only where all are
// right.
type upload struct {
	s    *Store
	key  string
	src  io.Reader
	left int64 // bytes that src must still give
}

// fill reads the next part into b, all of it.
func (u *upload) fill(b []byte) error {
	if len(b) == 0 { // an empty blob has to prove itself, too
		if _, err := u.src.Read(make([]byte, 1)); err != io.EOF {
			return err
		}
		return nil
	}
	n, err := io.ReadFull(u.src, b)
	u.left -= int64(n)
	return err
}

// whole sends a small blob by one request.
func (u *upload) whole(ctx context.Context) error {
	b, err := u.s.buffers.get(ctx, int(u.left))
	if err != nil {
		return err
	}
	defer u.s.buffers.put(b)
	if err := u.fill(b); err != nil {
		return err
	}
	_, err = u.s.putBytes(ctx, u.key, b, minio.PutObjectOptions{})
	return err
}

// inParts sends a large blob in parts, several at once. Nothing is to be seen of it before it is complete and has proved right.
func (u *upload) inParts(ctx context.Context, size int64) (err error) {
	each := max(int64(u.s.part), (size+maxParts-1)/maxParts)
	id, err := u.s.client.NewMultipartUpload(ctx, u.s.cfg.Bucket, u.key, minio.PutObjectOptions{})
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			u.abort(context.WithoutCancel(ctx), id) // also where the caller has gone: parts that are left behind are paid for
		}
	}()
	parts := make([]minio.CompletePart, (size+each-1)/each)
	group, gctx := errgroup.WithContext(ctx)
	group.SetLimit(u.s.cfg.Parallel + 1) // one reads
	group.Go(func() error {
		for i := range parts {
			if gctx.Err() != nil {
				return context.Cause(gctx)
			}
			b, err := u.s.buffers.get(gctx, int(min(each, u.left)))
			if err != nil {
				return err
			}
			if err := u.fill(b); err != nil {
				u.s.buffers.put(b)
				return err
			}
			group.Go(func() error {
				defer u.s.buffers.put(b)
				part, err := u.part(ctx, id, i+1, b) // not gctx: what is under way when another part fails would arrive after the abort
				parts[i] = minio.CompletePart{PartNumber: i + 1, ETag: part.ETag}
				return err
			})
		}
		return nil
	})
	if err := group.Wait(); err != nil {
		return err
	}
	_, err = u.s.client.CompleteMultipartUpload(ctx, u.s.cfg.Bucket, u.key, id, parts, minio.PutObjectOptions{})
	return err
}

// abort gives up an upload. Parts whose requests were cut off may still be on their way, which makes servers refuse at first.
func (u *upload) abort(ctx context.Context, id string) {
	ctx, cancel := context.WithTimeout(ctx, abortAfter)
	defer cancel()
	for try := 1; try <= partTries; try++ {
		err := u.s.client.AbortMultipartUpload(ctx, u.s.cfg.Bucket, u.key, id)
		if err == nil || !passing(u.s.reason(err)) {
			return
		}
		u.s.wait(ctx, try)
	}
}

// part sends one part, again where it fails for a passing reason.
func (u *upload) part(ctx context.Context, id string, number int, b []byte) (minio.ObjectPart, error) {
	for try := 1; ; try++ {
		var part minio.ObjectPart
		err := send(b, func(r io.Reader, sum string) (err error) {
			part, err = u.s.client.PutObjectPart(ctx, u.s.cfg.Bucket, u.key, id, number, r, int64(len(b)),
				minio.PutObjectPartOptions{Sha256Hex: sum, DisableContentSha256: true})
			return err
		})
		if err == nil || ctx.Err() != nil || try == partTries || !passing(u.s.reason(err)) {
			return part, err
		}
		u.s.wait(ctx, try)
	}
}

// wait passes the time before the next try, a little longer each time.
func (s *Store) wait(ctx context.Context, try int) {
	select {
	case <-time.After(time.Duration(try*try) * s.pause):
	case <-ctx.Done():
	}
}

// passing tells an error that may go away.
func passing(err error) bool {
	for _, lasting := range []error{remote.ErrDenied, remote.ErrNotFound, remote.ErrConflict, remote.ErrUnsupported} {
		if errors.Is(err, lasting) {
			return false
		}
	}
	return true
}

// putBytes stores an object by one request and gives its ETag.
func (s *Store) putBytes(ctx context.Context, key string, b []byte, opts minio.PutObjectOptions) (etag string, err error) {
	opts.DisableContentSha256 = true // not hashed again, chunk by chunk: the hash of the whole is sent
	err = send(b, func(r io.Reader, sum string) error {
		info, err := s.client.PutObject(ctx, s.cfg.Bucket, key, r, int64(len(b)), "", sum, opts)
		etag = info.ETag
		return err
	})
	return etag, err
}

// send lends b to one request, with its hash, which the server compares with what arrives.
func send(b []byte, request func(r io.Reader, sum string) error) error {
	sum := sha256.Sum256(b)
	r := &lent{rest: b}
	defer r.take()
	return request(r, hex.EncodeToString(sum[:]))
}

// buffers bounds the memory of uploads. A buffer is filled and sent by who holds it without waiting for another one.
type buffers struct {
	slots chan struct{}
	pool  sync.Pool
}

func newBuffers(n int) *buffers { return &buffers{slots: make(chan struct{}, n)} }

// get gives n bytes of any content, when there are few enough in use.
func (b *buffers) get(ctx context.Context, n int) ([]byte, error) {
	if n <= smallBytes {
		return make([]byte, n), nil
	}
	select {
	case b.slots <- struct{}{}:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	if n == partSize {
		if p, ok := b.pool.Get().(*[partSize]byte); ok {
			return p[:], nil
		}
	}
	return make([]byte, n), nil
}

func (b *buffers) put(p []byte) {
	if len(p) <= smallBytes {
		return
	}
	if len(p) == partSize {
		b.pool.Put((*[partSize]byte)(p))
	}
	<-b.slots
}

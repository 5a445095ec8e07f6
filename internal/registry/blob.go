package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

// maxResumes is of one download that breaks off, without progress in between.
const maxResumes = 5

// ErrNoRanges is wrapped by BlobRange where the registry sends whole blobs only.
var ErrNoRanges = errors.New("the registry does not give parts of blobs")

// Blob streams a blob of ref's repository. The reader compares size and digest before it gives io.EOF; what does not
// match is an error that wraps ErrDamaged. A connection that breaks or stalls is taken up again where it stopped. Close
// it; ctx ends it.
func (c *Client) Blob(ctx context.Context, ref Ref, desc ocispecs.Descriptor) (io.ReadCloser, error) {
	return c.blob(ctx, ref, desc, 0, desc.Size, true)
}

// BlobRange streams n bytes of a blob from byte off on, with the care of Blob; only the digest cannot be compared. An error
// wraps ErrNoRanges where the registry has none: the hosts that ignored a range are remembered and not asked again.
func (c *Client) BlobRange(ctx context.Context, ref Ref, desc ocispecs.Descriptor, off, n int64) (io.ReadCloser, error) {
	return c.blob(ctx, ref, desc, off, n, false)
}

func (c *Client) blob(ctx context.Context, ref Ref, desc ocispecs.Descriptor, first, n int64, whole bool) (io.ReadCloser, error) {
	if err := desc.Digest.Validate(); err != nil {
		return nil, fail(ctx, "pull", ref, &Error{Err: fmt.Errorf("digest %.100q of a blob: %w", desc.Digest, err), lasting: true})
	}
	if desc.Size < 0 || first < 0 || n < 0 || first > desc.Size || n > desc.Size-first {
		return nil, fail(ctx, "pull", ref, &Error{Err: fmt.Errorf("blob %s: %d bytes from %d of %d", desc.Digest, n, first, desc.Size), lasting: true})
	}
	ctx, cancel := context.WithCancelCause(ctx)
	r := &blobReader{c: c, ctx: ctx, cancel: cancel, ref: ref.WithDigest(desc.Digest), desc: desc, first: first, size: n}
	if whole {
		r.verify = desc.Digest.Verifier()
	} else if n == 0 {
		return r, nil
	}
	if err := r.open(); err != nil {
		err = fail(ctx, "pull", r.ref, err)
		cancel(nil)
		return nil, err
	}
	return r, nil
}

// blobReader is a download. It is for one goroutine.
type blobReader struct {
	c      *Client
	ctx    context.Context
	cancel context.CancelCauseFunc
	ref    Ref
	desc   ocispecs.Descriptor
	first  int64           // the byte of the blob that is given first
	size   int64           // how many are given
	verify digest.Verifier // nil for a part

	e       *endpoint
	body    io.ReadCloser
	stop    context.CancelFunc // ends the current connection
	off     int64              // how many have been given
	resumes int
	err     error
}

// open asks for the bytes that are still to come.
func (r *blobReader) open() error {
	q := call{method: http.MethodGet, path: "blobs/" + r.desc.Digest.String(), scopes: []string{pullScope(r.ref.Repo)}, header: http.Header{}}
	from, part := r.first+r.off, r.size < r.desc.Size
	switch {
	case part:
		q.ranges = true
		q.header.Set("Range", fmt.Sprintf("bytes=%d-%d", from, r.first+r.size-1))
	case from > 0:
		q.header.Set("Range", fmt.Sprintf("bytes=%d-", from))
	}
	ctx, stop := context.WithCancel(r.ctx)
	ignored := false
	e, resp, err := r.c.anywhere(ctx, r.ref, q, func(e *endpoint, resp *http.Response) bool {
		if part && resp.StatusCode == http.StatusOK {
			e.rangeless.Store(true)
			ignored = true
			return false
		}
		return resp.StatusCode == http.StatusOK || resp.StatusCode == http.StatusPartialContent && (from > 0 || part)
	})
	if err != nil {
		stop()
		if re := (*Error)(nil); ignored && errors.As(err, &re) && re.Status == http.StatusOK {
			return &Error{Host: re.Host, Err: ErrNoRanges, lasting: true}
		}
		return err
	}
	skip, rest := int64(0), r.size-r.off
	if resp.StatusCode == http.StatusOK && from > 0 { // it does not know ranges
		skip, rest = from, r.desc.Size
	}
	if resp.StatusCode == http.StatusPartialContent {
		var got, last int64
		if _, err := fmt.Sscanf(resp.Header.Get("Content-Range"), "bytes %d-%d", &got, &last); err != nil || got != from || last != from+rest-1 {
			resp.Body.Close()
			stop()
			return damaged(e, "bytes from somewhere else than %d to %d of blob %s", from, from+rest-1, r.desc.Digest)
		}
	}
	if n := resp.ContentLength; n >= 0 && n != rest {
		resp.Body.Close()
		stop()
		return damaged(e, "%d bytes for blob %s, of which %d are missing", n, r.desc.Digest, rest)
	}
	r.e, r.body, r.stop = e, resp.Body, stop
	if skip > 0 {
		if _, err := io.CopyN(io.Discard, r.body, skip); err != nil {
			r.shut()
			return netError(e, err)
		}
	}
	return nil
}

func (r *blobReader) shut() {
	if r.body != nil {
		r.stop()
		r.body.Close()
		r.body = nil
	}
}

// Read gives the next bytes.
func (r *blobReader) Read(p []byte) (int, error) {
	if r.err != nil || len(p) == 0 {
		return 0, r.err
	}
	for {
		n, err := r.read(p)
		if n > 0 {
			r.resumes = 0
			return n, nil
		}
		if r.off == r.size {
			return 0, r.finish()
		}
		if err == nil {
			continue
		}
		// It broke off.
		r.shut()
		r.resumes++
		if r.resumes > maxResumes || r.ctx.Err() != nil {
			r.err = fail(r.ctx, "pull", r.ref, &Error{Host: r.e.host, Err: fmt.Errorf("the download from %s broke off at byte %d of %d: %w",
				r.e.host, r.off, r.size, netError(r.e, err).Err)})
			return 0, r.err
		}
		r.c.cfg.Sleep(backoff(r.resumes), r.ctx.Done())
		if err := r.open(); err != nil {
			r.err = fail(r.ctx, "pull", r.ref, err)
			return 0, r.err
		}
	}
}

// read takes what the connection gives.
func (r *blobReader) read(p []byte) (int, error) {
	if rest := r.size - r.off; int64(len(p)) > rest {
		p = p[:rest]
	}
	if len(p) == 0 {
		return 0, io.EOF
	}
	n, err := r.body.Read(p)
	if r.verify != nil {
		r.verify.Write(p[:n])
	}
	r.off += int64(n)
	if err == io.EOF && r.off < r.size {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

// finish verifies the whole blob.
func (r *blobReader) finish() error {
	r.err = io.EOF
	var one [1]byte
	if r.body != nil {
		if n, _ := io.ReadFull(r.body, one[:]); n > 0 {
			r.err = fail(r.ctx, "pull", r.ref, damaged(r.e, "more bytes than the %d of blob %s", r.size, r.desc.Digest))
		}
	}
	if r.err == io.EOF && r.verify != nil && !r.verify.Verified() {
		r.err = fail(r.ctx, "pull", r.ref, damaged(r.e, "bytes that do not match the digest of blob %s", r.desc.Digest))
	}
	if r.err != io.EOF && r.e.mirror {
		r.e.down.Store(true) // who asks again shall get it elsewhere
	}
	return r.err
}

// Close ends the download.
func (r *blobReader) Close() error {
	if r.err == nil {
		r.err = errors.New("read after close")
	}
	r.shut()
	r.cancel(nil)
	return nil
}

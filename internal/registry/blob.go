package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

const (
	maxResumes = 5               // of one download that breaks off, without progress in between
	maxStall   = 1 * time.Minute // a connection that sends nothing for so long is given up
)

// Blob streams a blob of ref's repository. The reader compares size and digest before it gives io.EOF; what does not
// match is an error that wraps ErrDamaged. A connection that breaks or stalls is taken up again where it stopped. Close
// it; ctx ends it.
func (c *Client) Blob(ctx context.Context, ref Ref, desc ocispecs.Descriptor) (io.ReadCloser, error) {
	if err := desc.Digest.Validate(); err != nil {
		return nil, fail(ctx, "pull", ref, fmt.Errorf("digest %.100q of a blob: %w", desc.Digest, err))
	}
	if desc.Size < 0 {
		return nil, fail(ctx, "pull", ref, fmt.Errorf("blob %s: size %d", desc.Digest, desc.Size))
	}
	ctx, cancel := context.WithCancelCause(ctx)
	r := &blobReader{c: c, ctx: ctx, cancel: cancel, ref: ref.WithDigest(desc.Digest), desc: desc, verify: desc.Digest.Verifier()}
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
	verify digest.Verifier

	e       *endpoint
	body    io.ReadCloser
	stop    context.CancelFunc // ends the current connection
	stall   *time.Timer        // calls stop
	off     int64
	resumes int
	err     error
}

var errStall = errors.New("nothing came for a minute")

// open asks for the bytes from r.off on.
func (r *blobReader) open() error {
	q := call{method: http.MethodGet, path: "blobs/" + r.desc.Digest.String(), scopes: []string{pullScope(r.ref.Repo)}, header: http.Header{}}
	if r.off > 0 {
		q.header.Set("Range", fmt.Sprintf("bytes=%d-", r.off))
	}
	ctx, stop := context.WithCancel(r.ctx)
	e, resp, err := r.c.anywhere(ctx, r.ref, q, func(_ *endpoint, resp *http.Response) bool {
		return resp.StatusCode == http.StatusOK || resp.StatusCode == http.StatusPartialContent && r.off > 0
	})
	if err != nil {
		stop()
		return err
	}
	skip, rest := int64(0), r.desc.Size-r.off
	if resp.StatusCode == http.StatusOK && r.off > 0 { // it does not know ranges
		skip, rest = r.off, r.desc.Size
	}
	if resp.StatusCode == http.StatusPartialContent {
		var from int64
		if _, err := fmt.Sscanf(resp.Header.Get("Content-Range"), "bytes %d-", &from); err != nil || from != r.off {
			resp.Body.Close()
			stop()
			return damaged(e, "bytes from somewhere else than %d of blob %s", r.off, r.desc.Digest)
		}
	}
	if n := resp.ContentLength; n >= 0 && n != rest {
		resp.Body.Close()
		stop()
		return damaged(e, "%d bytes for blob %s, of which %d are missing", n, r.desc.Digest, rest)
	}
	r.e, r.body, r.stop = e, resp.Body, stop
	r.stall = time.AfterFunc(maxStall, stop)
	r.stall.Stop()
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
		if r.off == r.desc.Size {
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
				r.e.host, r.off, r.desc.Size, netError(r.e, err).Err)})
			return 0, r.err
		}
		r.c.cfg.Sleep(backoff(r.resumes), r.ctx.Done())
		if err := r.open(); err != nil {
			r.err = fail(r.ctx, "pull", r.ref, err)
			return 0, r.err
		}
	}
}

// read takes what the connection gives and watches for a stall.
func (r *blobReader) read(p []byte) (int, error) {
	if rest := r.desc.Size - r.off; int64(len(p)) > rest {
		p = p[:rest]
	}
	if len(p) == 0 {
		return 0, io.EOF
	}
	r.stall.Reset(maxStall)
	n, err := r.body.Read(p)
	stalled := !r.stall.Stop()
	r.verify.Write(p[:n])
	r.off += int64(n)
	if err == io.EOF && r.off < r.desc.Size {
		err = io.ErrUnexpectedEOF
	}
	if stalled && err != nil && r.ctx.Err() == nil {
		err = errStall
	}
	return n, err
}

// finish verifies the whole blob.
func (r *blobReader) finish() error {
	r.err = io.EOF
	var one [1]byte
	if r.body != nil {
		if n, _ := io.ReadFull(r.body, one[:]); n > 0 {
			r.err = fail(r.ctx, "pull", r.ref, damaged(r.e, "more bytes than the %d of blob %s", r.desc.Size, r.desc.Digest))
		}
	}
	if r.err == io.EOF && !r.verify.Verified() {
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

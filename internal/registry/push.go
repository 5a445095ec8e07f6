package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"

	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

// maxUploads is how often an upload is begun anew after its PUT failed.
const maxUploads = 4

// Upload is a blob on its way into a repository.
type Upload struct {
	Desc ocispecs.Descriptor
	// Open gives the bytes, from the beginning, each time it is called.
	Open func(ctx context.Context) (io.ReadCloser, error)
	// Origin lists repositories that hold the blob ("host/name"), as layer.Blob does.
	Origin []string
	// New says that the blob has just been made, so that asking for it first would be a wasted request.
	New bool
	// Check asks the registry even where Origin says that the blob is in the repository.
	Check bool
}

// PushBlob brings a blob into ref's repository by as few requests as possible: none where Origin names that repository,
// a mount from another one of the same registry, otherwise HEAD (unless it is New), POST and PUT. sent tells whether
// bytes were sent.
func (c *Client) PushBlob(ctx context.Context, ref Ref, up Upload) (sent bool, err error) {
	defer func() { err = fail(ctx, "push", ref.WithDigest(up.Desc.Digest), err) }()
	if err := up.Desc.Digest.Validate(); err != nil {
		return false, err
	}
	e, err := c.own(ref)
	if err != nil {
		return false, err
	}
	neighbour := ""
	for _, o := range up.Origin {
		if o == ref.Name() && !up.Check {
			return false, nil
		}
		if host, repo, ok := strings.Cut(o, "/"); ok && host == ref.Host && repo != ref.Repo && neighbour == "" {
			neighbour = repo
		}
	}
	if neighbour == "" && (!up.New || up.Check) {
		// Some registries deny a look at what does not exist yet; the push itself tells then.
		if ok, err := c.hasBlob(ctx, e, ref, up.Desc.Digest); ok || err != nil && !errors.Is(err, ErrDenied) {
			return false, err
		}
	}
	for try := 1; ; try++ {
		session, err := c.begin(ctx, e, ref, up, neighbour)
		if session == nil || err != nil { // the registry has it; or send has tried long enough
			return false, err
		}
		err = c.deliver(ctx, e, ref, up, session)
		if err == nil {
			return true, nil
		}
		var re *Error
		if ctx.Err() != nil || try == maxUploads || !errors.As(err, &re) || !repeatable(re) || re.After > maxWait ||
			errors.Is(err, ErrStalled) && try == maxSilent {
			return false, err
		}
		c.cfg.Sleep(max(backoff(try), re.After), ctx.Done())
	}
}

// repeatable tells a passing failure of a PUT: the connection, the server, or a session that it has forgotten.
func repeatable(e *Error) bool {
	if e.Status == 0 {
		return !errors.Is(e.Err, errSource)
	}
	return passing(e.Status) || e.Status == http.StatusNotFound || e.Code == "BLOB_UPLOAD_UNKNOWN" || e.Code == "BLOB_UPLOAD_INVALID"
}

// HasBlob asks whether a repository has a blob, by one HEAD.
func (c *Client) HasBlob(ctx context.Context, ref Ref, d digest.Digest) (bool, error) {
	e, err := c.own(ref)
	if err != nil {
		return false, err
	}
	ok, err := c.hasBlob(ctx, e, ref, d)
	return ok, fail(ctx, "push", ref.WithDigest(d), err)
}

func (c *Client) hasBlob(ctx context.Context, e *endpoint, ref Ref, d digest.Digest) (bool, error) {
	resp, err := c.send(ctx, e, ref.Repo, call{method: http.MethodHead, path: "blobs/" + d.String(), scopes: []string{pushScope(ref.Repo)}})
	if err != nil {
		return false, err
	}
	switch resp.StatusCode {
	case http.StatusOK:
		resp.Body.Close()
		return true, nil
	case http.StatusNotFound:
		resp.Body.Close()
		return false, nil
	}
	return false, statusError(e, resp)
}

// errSource marks a failure to read what should be sent.
var errSource = errors.New("read what is to be pushed")

// begin asks for an upload, as a mount where neighbour is set, and gives the answer that says where to. It is nil where the registry
// has the bytes.
func (c *Client) begin(ctx context.Context, e *endpoint, ref Ref, up Upload, neighbour string) (session *http.Response, err error) {
	q := call{method: http.MethodPost, path: "blobs/uploads/", scopes: []string{pushScope(ref.Repo)}}
	if neighbour != "" {
		q.query = url.Values{"mount": {up.Desc.Digest.String()}, "from": {neighbour}}
		q.scopes = append(q.scopes, pullScope(neighbour))
	}
	resp, err := c.send(ctx, e, ref.Repo, q)
	if err != nil && neighbour == "" {
		return nil, err
	}
	if neighbour != "" && (err != nil || resp.StatusCode/100 != 2) {
		// Not every registry that refuses a mount says so with 202; some refuse a token for two repositories.
		if err == nil {
			if re := statusError(e, resp); re.Status == http.StatusTooManyRequests || re.After > maxWait {
				return nil, re
			}
		}
		if ok, err := c.hasBlob(ctx, e, ref, up.Desc.Digest); ok || err != nil {
			return nil, err
		}
		return c.begin(ctx, e, ref, up, "")
	}
	if resp.StatusCode/100 != 2 {
		return nil, statusError(e, resp)
	}
	resp.Body.Close()
	if resp.StatusCode == http.StatusCreated {
		return nil, nil
	}
	return resp, nil
}

// deliver sends the bytes to where session says.
func (c *Client) deliver(ctx context.Context, e *endpoint, ref Ref, up Upload, session *http.Response) error {
	to, err := uploadURL(e, session, up.Desc.Digest)
	if err != nil {
		return err
	}
	var failed atomic.Pointer[error] // the transport reads in a goroutine of its own
	resp, err := c.send(ctx, e, ref.Repo, call{
		method: http.MethodPut, abs: to, header: http.Header{"Content-Type": {"application/octet-stream"}}, once: true,
		scopes: []string{pushScope(ref.Repo)}, size: up.Desc.Size,
		body: func() (io.ReadCloser, error) {
			rc, err := up.Open(ctx)
			if err != nil {
				failed.Store(&err)
				return nil, err
			}
			return &source{ReadCloser: rc, failed: &failed}, nil
		},
	})
	if err != nil {
		if cause := failed.Load(); cause != nil {
			err = &Error{Host: e.host, Err: fmt.Errorf("%w: %w", errSource, *cause)}
		}
		return err
	}
	if resp.StatusCode/100 != 2 {
		return statusError(e, resp)
	}
	return resp.Body.Close()
}

// source remembers that it was the reading that failed, not the sending. The transport closes it under its own reader when the
// connection breaks: what that reader gets then is no failure of the source.
type source struct {
	io.ReadCloser
	failed *atomic.Pointer[error]
	closed atomic.Bool
}

func (s *source) Read(p []byte) (int, error) {
	n, err := s.ReadCloser.Read(p)
	if err != nil && err != io.EOF && !s.closed.Load() {
		s.failed.Store(&err)
	}
	return n, err
}

func (s *source) Close() error {
	s.closed.Store(true)
	return s.ReadCloser.Close()
}

// uploadURL reads where a registry wants the bytes.
func uploadURL(e *endpoint, resp *http.Response, d digest.Digest) (*url.URL, error) {
	to, err := resp.Location()
	if err != nil || to.Scheme != "http" && to.Scheme != "https" || to.User != nil {
		return nil, damaged(e, "no place to upload to")
	}
	// A registry behind a proxy that ends TLS often gives its own, plain address.
	if asked := resp.Request.URL; to.Hostname() == asked.Hostname() && asked.Scheme == "https" {
		to.Scheme = "https"
		to.Host = asked.Host
	}
	v := to.Query()
	v.Set("digest", d.String())
	to.RawQuery = v.Encode()
	return to, nil
}

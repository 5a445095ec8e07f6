package registry

import (
	"io"
	"net/http"
	"sync/atomic"
	"time"
)

// counter counts requests and the bytes of bodies.
type counter struct {
	base  *http.Transport
	guard Guard // around base
	c     *Client
}

func (t *counter) RoundTrip(req *http.Request) (*http.Response, error) {
	t.c.requests.Add(1)
	if req.Body != nil && req.Body != http.NoBody {
		clone := *req // a RoundTripper must not change the request
		clone.Body = &countedBody{ReadCloser: req.Body, n: &t.c.up}
		req = &clone
	}
	resp, err := t.guard.RoundTrip(req)
	if err == nil {
		resp.Body = &countedBody{ReadCloser: resp.Body, n: &t.c.down}
	}
	return resp, err
}

// CloseIdleConnections lets http.Client reach the pool through the wrapper.
func (t *counter) CloseIdleConnections() { t.base.CloseIdleConnections() }

type countedBody struct {
	io.ReadCloser
	n *atomic.Int64
}

func (b *countedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.n.Add(int64(n))
	return n, err
}

// limited ends a response's body after max bytes: the answers of token servers, which the authorizer reads unbounded.
type limited struct {
	base http.RoundTripper
	max  int64
}

func (t *limited) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := t.base.RoundTrip(req)
	if err == nil {
		resp.Body = struct {
			io.Reader
			io.Closer
		}{io.LimitReader(resp.Body, t.max), resp.Body}
	}
	return resp, err
}

func sleep(d time.Duration, done <-chan struct{}) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-done:
	}
}

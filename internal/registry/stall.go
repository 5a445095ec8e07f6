package registry

import (
	"context"
	"errors"
	"io"
	"net/http"
	"time"
)

// ErrStalled is wrapped when a connection moved no byte for so long that it was given up.
var ErrStalled = errors.New("nothing moved for too long")

// Guard is a transport that ends a request which moves no bytes, in either direction. net/http's own limits begin after a body has
// been sent, and end before one is received.
type Guard struct {
	Base http.RoundTripper
	// Stall is for how long a body may stand still, and Answer how long a server may think, besides, before its answer begins.
	Stall, Answer time.Duration
}

// RoundTrip makes a request whose body, and whose answer's body, are watched. Such failures wrap ErrStalled.
func (g *Guard) RoundTrip(req *http.Request) (*http.Response, error) {
	ctx, cancel := context.WithCancelCause(req.Context())
	w := &watch{Guard: g, ctx: ctx, cancel: cancel}
	w.timer = time.AfterFunc(g.Stall+g.Answer, func() { cancel(ErrStalled) })
	req = req.WithContext(ctx)
	if req.Body != nil && req.Body != http.NoBody {
		req.Body = w.upload(req.Body, req.ContentLength)
		if again := req.GetBody; again != nil { // for a connection that turned out to be closed
			req.GetBody = func() (io.ReadCloser, error) {
				body, err := again()
				if err != nil {
					return nil, err
				}
				return w.upload(body, req.ContentLength), nil
			}
		}
	}
	resp, err := g.Base.RoundTrip(req)
	if err != nil {
		w.stop()
		return nil, w.why(err)
	}
	w.timer.Stop()
	resp.Body = &watchedAnswer{ReadCloser: resp.Body, watch: w}
	return resp, nil
}

// watch is one request that is guarded.
type watch struct {
	*Guard
	ctx    context.Context
	cancel context.CancelCauseFunc
	timer  *time.Timer
}

func (w *watch) stop() {
	w.timer.Stop()
	w.cancel(context.Canceled)
}

// why replaces the error of a request that was ended here.
func (w *watch) why(err error) error {
	if err != nil && err != io.EOF && errors.Is(context.Cause(w.ctx), ErrStalled) {
		return ErrStalled
	}
	return err
}

func (w *watch) upload(body io.ReadCloser, size int64) io.ReadCloser {
	return &watchedUpload{ReadCloser: body, watch: w, left: size}
}

// watchedUpload is a request's body. The time within Read is the source's and does not count.
type watchedUpload struct {
	io.ReadCloser
	*watch
	left int64
}

func (u *watchedUpload) Read(p []byte) (int, error) {
	u.timer.Stop()
	n, err := u.ReadCloser.Read(p)
	limit := u.Stall
	if u.left -= int64(n); u.left <= 0 { // what is left is the sending of these bytes, and the answer
		limit += u.Answer
	}
	if u.ctx.Err() == nil {
		u.timer.Reset(limit)
	}
	return n, err
}

// watchedAnswer is an answer's body. Only the time within Read counts: a caller may take its own.
type watchedAnswer struct {
	io.ReadCloser
	*watch
}

func (a *watchedAnswer) Read(p []byte) (int, error) {
	a.timer.Reset(a.Stall)
	n, err := a.ReadCloser.Read(p)
	a.timer.Stop()
	return n, a.why(err)
}

func (a *watchedAnswer) Close() error {
	a.stop()
	return a.ReadCloser.Close()
}

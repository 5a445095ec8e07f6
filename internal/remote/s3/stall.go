package s3

import (
	"context"
	"errors"
	"io"
	"net/http"
	"sync"
	"time"
)

const (
	maxStall  = 1 * time.Minute // how long a connection may move nothing before it is given up
	maxAnswer = 2 * time.Minute // how long a server may think before its answer begins
)

var errStall = errors.New("nothing moved for too long")

// guard ends a request that moves no bytes, in either direction.
type guard struct {
	ctx    context.Context
	cancel context.CancelCauseFunc
	timer  *time.Timer
	limit  time.Duration
}

// guarded gives the request to send in place of req, and its guard, which waits for the answer. stop must be called.
func guarded(req *http.Request, limit time.Duration) (*http.Request, *guard) {
	ctx, cancel := context.WithCancelCause(req.Context())
	g := &guard{ctx: ctx, cancel: cancel, limit: limit}
	g.timer = time.AfterFunc(limit+maxAnswer, func() { cancel(errStall) })
	req = req.WithContext(ctx)
	if req.Body != nil && req.Body != http.NoBody {
		req.Body = &guardedUpload{ReadCloser: req.Body, guard: g, left: req.ContentLength}
	}
	return req, g
}

func (g *guard) stop() {
	g.timer.Stop()
	g.cancel(context.Canceled)
}

// why replaces the error of a request that its guard ended.
func (g *guard) why(err error) error {
	if err != nil && err != io.EOF && errors.Is(context.Cause(g.ctx), errStall) {
		return errStall
	}
	return err
}

// guardedUpload is a request's body.
type guardedUpload struct {
	io.ReadCloser
	*guard
	left int64
}

func (u *guardedUpload) Read(p []byte) (int, error) {
	n, err := u.ReadCloser.Read(p)
	if u.left -= int64(n); u.left > 0 {
		u.timer.Reset(u.limit)
	} else { // what is left is the sending of these bytes, and the answer
		u.timer.Reset(u.limit + maxAnswer)
	}
	return n, err
}

// guardedAnswer is an answer's body. Only the time within Read counts: a caller may take its own.
type guardedAnswer struct {
	io.ReadCloser
	*guard
}

func (a *guardedAnswer) Read(p []byte) (int, error) {
	a.timer.Reset(a.limit)
	n, err := a.ReadCloser.Read(p)
	a.timer.Stop()
	return n, a.why(err)
}

func (a *guardedAnswer) Close() error {
	a.stop()
	return a.ReadCloser.Close()
}

// lent is a buffer that net/http reads from. It may go on reading after the request has failed; take ends that, so that the
// buffer can be used again.
type lent struct {
	mu   sync.Mutex
	rest []byte
}

func (l *lent) Read(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.rest) == 0 {
		return 0, io.EOF
	}
	n := copy(p, l.rest)
	l.rest = l.rest[n:]
	return n, nil
}

func (l *lent) take() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.rest = nil
}

package s3

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"
)

const (
	maxStall  = 1 * time.Minute // how long a connection may move nothing before it is given up
	maxAnswer = 2 * time.Minute // how long a server may think before its answer begins
)

var errStall = errors.New("nothing moved for a minute")

// guard ends a request that moves no bytes. The server's time to begin its answer is the transport's affair.
type guard struct {
	cancel context.CancelCauseFunc
	timer  *time.Timer
}

// guarded gives a context for one request, and the guard that ends it. stop must be called.
func guarded(ctx context.Context, limit time.Duration) (context.Context, *guard) {
	ctx, cancel := context.WithCancelCause(ctx)
	g := &guard{cancel: cancel}
	g.timer = time.AfterFunc(limit, func() { cancel(errStall) })
	g.timer.Stop()
	return ctx, g
}

func (g *guard) stop() {
	g.timer.Stop()
	g.cancel(context.Canceled)
}

// stalled replaces the error of a request that its guard ended.
func stalled(request context.Context, err error) error {
	if err != nil && errors.Is(context.Cause(request), errStall) {
		return errStall
	}
	return err
}

// body is a download that must give n bytes.
type body struct {
	s     *Store
	ctx   context.Context // the caller's
	req   context.Context
	guard *guard
	rc    io.ReadCloser
	key   string
	n     int64 // still to come
	err   error
}

func (b *body) Read(p []byte) (int, error) {
	if b.err != nil || len(p) == 0 {
		return 0, b.err
	}
	if int64(len(p)) > b.n {
		p = p[:b.n]
	}
	b.guard.timer.Reset(b.s.stall)
	n, err := b.rc.Read(p)
	b.guard.timer.Stop()
	b.n -= int64(n)
	if err == io.EOF && b.n > 0 {
		err = fmt.Errorf("%d bytes are missing at the end: %w", b.n, io.ErrUnexpectedEOF)
	}
	switch {
	case b.n == 0:
		b.err = io.EOF
	case err != nil:
		b.err = b.s.fail(b.ctx, "get", b.key, stalled(b.req, err))
	}
	if n > 0 {
		return n, nil
	}
	return 0, b.err
}

func (b *body) Close() error {
	b.guard.stop()
	if b.err == nil {
		b.err = errors.New("read after close")
	}
	return b.rc.Close()
}

// lent is a buffer that net/http reads from. It may go on reading after the request has failed; take ends that, so that the
// buffer can be used again.
type lent struct {
	mu    sync.Mutex
	rest  []byte
	guard *guard
	limit time.Duration
}

func (l *lent) Read(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.rest) == 0 {
		return 0, io.EOF
	}
	n := copy(p, l.rest)
	l.rest = l.rest[n:]
	if len(l.rest) == 0 { // what is left is the sending of these, and the answer
		l.guard.timer.Reset(l.limit + maxAnswer)
	} else {
		l.guard.timer.Reset(l.limit)
	}
	return n, nil
}

func (l *lent) take() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.rest = nil
}

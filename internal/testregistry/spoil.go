package testregistry

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"time"
)

// fault is the failure of one request.
type fault struct {
	kind   Kind
	at     float64 // the place in a body, 0 to 1
	status int     // what ServerError answers
	stall  time.Duration
	tags   *tags
	fired  func() // nil, or to be called when the client is about to meet it
}

// spoil serves one request badly. Answers are kept in memory on their way.
func (d *fault) spoil(w http.ResponseWriter, req *http.Request, next http.Handler) {
	fired := func() {
		if d.fired != nil {
			d.fired()
		}
	}
	switch d.kind {
	case Reset:
		fired()
		if req.ContentLength > 0 {
			_, _ = io.CopyN(io.Discard, req.Body, d.place(req.ContentLength))
		}
		breakOff(w)
		return
	case TooMany, TooManyWait:
		fired()
		wait := "0"
		if d.kind == TooManyWait {
			wait = "1"
		}
		w.Header().Set("Retry-After", wait)
		refuse(w, req, http.StatusTooManyRequests)
		return
	case ServerError:
		fired()
		refuse(w, req, d.status)
		return
	case Stale:
		fired()
		d.tags.serve(w, req)
		return
	case Slow:
		fired()
		if req.ContentLength != 0 {
			req.Body = &stalling{ReadCloser: req.Body, left: d.place(req.ContentLength), stall: func() { d.wait(req) }}
			next.ServeHTTP(w, req)
			return
		}
	}

	a := answerOf(next, req)
	half := int(d.place(int64(len(a.body))))
	switch d.kind {
	case LateError:
		fired()
		refuse(w, req, http.StatusInternalServerError)
		return
	case LostAnswer:
		fired()
		if half > 0 {
			a.write(w, half)
		}
		breakOff(w)
		return
	case Truncated:
		if len(a.body) > 0 {
			fired()
			a.write(w, half) // net/http closes the connection, because more was announced
			return
		}
	case FlippedByte:
		if a.flip(half) {
			fired()
		}
	case Slow:
		if half > 0 {
			a.write(w, half)
			a.body = a.body[half:]
			d.wait(req)
			_, _ = w.Write(a.body)
			return
		}
		d.wait(req)
	}
	a.write(w, len(a.body))
}

// place gives a place within n bytes, n itself excluded.
func (d *fault) place(n int64) int64 {
	if n <= 0 {
		return 0
	}
	return min(int64(d.at*float64(n)), n-1)
}

func (d *fault) wait(req *http.Request) {
	select {
	case <-time.After(d.stall):
	case <-req.Context().Done():
	}
}

// stalling is a request's body that stops once.
type stalling struct {
	io.ReadCloser
	left  int64
	stall func() // nil when it has been
}

func (s *stalling) Read(p []byte) (int, error) {
	if s.left <= 0 && s.stall != nil {
		s.stall()
		s.stall = nil
	}
	if s.stall != nil && int64(len(p)) > s.left {
		p = p[:s.left]
	}
	n, err := s.ReadCloser.Read(p)
	s.left -= int64(n)
	return n, err
}

// breakOff resets the connection, without the farewell that a closed one gets.
func breakOff(w http.ResponseWriter) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = conn.Close()
}

// refuse takes the whole request and answers with an error.
func refuse(w http.ResponseWriter, req *http.Request, status int) {
	_, _ = io.Copy(io.Discard, req.Body)
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	fmt.Fprintf(w, `{"errors":[{"code":"UNKNOWN","message":"the test wants status %d"}]}`+"\n", status)
}

// answer is a registry's answer on its way to the client.
type answer struct {
	status int
	header http.Header
	body   []byte
}

// answerOf lets a handler answer.
func answerOf(h http.Handler, req *http.Request) *answer {
	a := &answer{header: http.Header{}}
	h.ServeHTTP((*answerWriter)(a), req)
	if a.status == 0 {
		a.status = http.StatusOK
	}
	if req.Method == http.MethodHead {
		a.body = nil
	} else {
		a.header.Set("Content-Length", strconv.Itoa(len(a.body)))
	}
	return a
}

type answerWriter answer

func (a *answerWriter) Header() http.Header { return a.header }

func (a *answerWriter) WriteHeader(status int) {
	if a.status == 0 {
		a.status = status
	}
}

func (a *answerWriter) Write(p []byte) (int, error) {
	a.WriteHeader(http.StatusOK)
	a.body = append(a.body, p...)
	return len(p), nil
}

// write sends the header and the first n bytes of the body. The header announces all of it.
func (a *answer) write(w http.ResponseWriter, n int) {
	for k, v := range a.header {
		w.Header()[k] = v
	}
	w.WriteHeader(a.status)
	_, _ = w.Write(a.body[:n])
	if n < len(a.body) {
		_ = http.NewResponseController(w).Flush()
	}
}

// flip changes a bit of the body, or else of the digest in the header; false where there is neither.
func (a *answer) flip(at int) bool {
	if len(a.body) > 0 {
		a.body = bytes.Clone(a.body)
		a.body[at] ^= 1
		return true
	}
	d := []byte(a.header.Get("Docker-Content-Digest"))
	if len(d) == 0 {
		return false
	}
	last := &d[len(d)-1]
	if *last == '0' {
		*last = '1'
	} else {
		*last = '0'
	}
	a.header.Set("Docker-Content-Digest", string(d))
	return true
}

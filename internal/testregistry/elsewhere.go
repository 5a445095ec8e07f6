package testregistry

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
)

// Elsewhere is a second origin that keeps a registry's blobs, as a bucket with signed URLs would. It notes who brings it
// credentials, which are none of its business.
type Elsewhere struct {
	// Addr is its host:port.
	Addr string

	uploads bool
	server  *server

	mu       sync.Mutex
	inner    http.Handler
	requests []Request
	leaks    []string
}

// signed is in the query of a URL that Elsewhere was meant to get; it is as good as a password.
const signed = "X-Signature=testregistry"

// NewElsewhere listens on a free loopback port until Close. uploads says whether uploads are sent there too.
func NewElsewhere(uploads bool) (*Elsewhere, error) {
	e := &Elsewhere{uploads: uploads}
	var err error
	if e.server, err = listen("", http.HandlerFunc(e.serve)); err != nil {
		return nil, fmt.Errorf("second origin: %w", err)
	}
	e.Addr = e.server.addr
	return e, nil
}

// Close stops it.
func (e *Elsewhere) Close() error { return e.server.close() }

// Wrap is for Options.Wrap, inside a Guard's: questions about blobs are answered with 307 to the other origin, which gets
// its answers from next.
func (e *Elsewhere) Wrap(next http.Handler) http.Handler {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.inner = next
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		upload := strings.Contains(req.URL.Path, "/blobs/uploads/")
		question := req.Method == http.MethodGet || req.Method == http.MethodHead
		switch {
		case req.Header.Get(uncounted) != "":
			next.ServeHTTP(w, req)
		case question && !upload && strings.Contains(req.URL.Path, "/blobs/"):
			http.Redirect(w, req, e.url(req.URL), http.StatusTemporaryRedirect)
		case e.uploads && upload && req.Method == http.MethodPost:
			a := answerOf(next, req)
			if to, err := url.Parse(a.header.Get("Location")); err == nil && a.status == http.StatusAccepted {
				a.header.Set("Location", e.url(to))
			}
			a.write(w, len(a.body))
		default:
			next.ServeHTTP(w, req)
		}
	})
}

// url moves a URL to the other origin and signs it.
func (e *Elsewhere) url(u *url.URL) string {
	query := u.RawQuery
	if query != "" {
		query += "&"
	}
	return (&url.URL{Scheme: "http", Host: e.Addr, Path: u.Path, RawQuery: query + signed}).String()
}

func (e *Elsewhere) serve(w http.ResponseWriter, req *http.Request) {
	entry := Request{Method: req.Method, Path: req.URL.RequestURI(), Range: req.Header.Get("Range"), Status: http.StatusOK}
	e.mu.Lock()
	inner := e.inner
	for _, h := range []string{"Authorization", "Proxy-Authorization", "Cookie"} {
		if req.Header.Get(h) != "" {
			e.leaks = append(e.leaks, fmt.Sprintf("%s %s came with %s", req.Method, req.URL.Path, h))
		}
	}
	e.mu.Unlock()
	defer func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		e.requests = append(e.requests, entry)
	}()
	cw := &countingWriter{ResponseWriter: w, entry: &entry}
	if inner == nil || !strings.Contains(req.URL.RawQuery, signed) {
		cw.WriteHeader(http.StatusForbidden)
		return
	}
	inner.ServeHTTP(cw, req)
}

// Requests lists what came, in the order of the ends.
func (e *Elsewhere) Requests() []Request {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.requests)
}

// Leaks lists the requests that brought credentials.
func (e *Elsewhere) Leaks() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.leaks)
}

package testregistry

import (
	"io"
	"net/http"
	"slices"
	"sync"
)

// Counts is what went through a registry since it started or was last reset.
type Counts struct {
	Requests int
	Down     int64 // bytes of response bodies, HEAD's excluded
	Up       int64 // bytes of request bodies
}

// Request is one request, in the order of their ends.
type Request struct {
	Method string
	Path   string // with the query where there is one
	Range  string // the Range header
	Status int
	Down   int64
	Up     int64
}

// maxLog bounds the list of requests; the sums go on beyond it.
const maxLog = 20_000

// uncounted marks a registry's own pushes. No registry client sends it.
const uncounted = "Testregistry-Uncounted"

type counter struct {
	next http.Handler

	mu   sync.Mutex
	sums Counts
	log  []Request
}

// Counts gives the sums. A request counts when its answer is complete.
func (r *Registry) Counts() Counts {
	r.count.mu.Lock()
	defer r.count.mu.Unlock()
	return r.count.sums
}

// Requests gives the requests themselves, at most the first 20,000.
func (r *Registry) Requests() []Request {
	r.count.mu.Lock()
	defer r.count.mu.Unlock()
	return slices.Clone(r.count.log)
}

// ResetCounts starts counting from nothing.
func (r *Registry) ResetCounts() {
	r.count.mu.Lock()
	defer r.count.mu.Unlock()
	r.count.sums, r.count.log = Counts{}, nil
}

func (c *counter) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	if req.Header.Get(uncounted) != "" {
		c.next.ServeHTTP(w, req)
		return
	}
	entry := Request{Method: req.Method, Path: req.URL.RequestURI(), Range: req.Header.Get("Range"), Status: http.StatusOK}
	body := &countingBody{ReadCloser: req.Body}
	req.Body = body
	cw := &countingWriter{ResponseWriter: w, entry: &entry}
	// Deferred: a test's Wrap may end a request with http.ErrAbortHandler.
	defer func() {
		entry.Up = body.n
		c.mu.Lock()
		defer c.mu.Unlock()
		c.sums.Requests++
		c.sums.Down += entry.Down
		c.sums.Up += entry.Up
		if len(c.log) < maxLog {
			c.log = append(c.log, entry)
		}
	}()
	c.next.ServeHTTP(cw, req)
}

type countingBody struct {
	io.ReadCloser
	n int64
}

func (b *countingBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.n += int64(n)
	return n, err
}

type countingWriter struct {
	http.ResponseWriter
	entry *Request
}

func (w *countingWriter) WriteHeader(status int) {
	w.entry.Status = status
	w.ResponseWriter.WriteHeader(status)
}

func (w *countingWriter) Write(p []byte) (int, error) {
	n, err := w.ResponseWriter.Write(p)
	if w.entry.Method != http.MethodHead {
		w.entry.Down += int64(n)
	}
	return n, err
}

// ReadFrom keeps sendfile for blobs.
func (w *countingWriter) ReadFrom(src io.Reader) (int64, error) {
	n, err := io.Copy(w.ResponseWriter, src)
	if w.entry.Method != http.MethodHead {
		w.entry.Down += n
	}
	return n, err
}

// Unwrap serves http.ResponseController.
func (w *countingWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *countingWriter) Flush() {
	if f, ok := w.ResponseWriter.(http.Flusher); ok {
		f.Flush()
	}
}

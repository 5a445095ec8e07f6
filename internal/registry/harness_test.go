package registry

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"

	"larder/internal/testregistry"
)

// harness is a real registry whose answers a test can spoil.
type harness struct {
	*testregistry.Registry
	Host string

	mu    sync.Mutex
	fault faultFunc
	asked map[string]int // requests by method, counted when they come
}

// faultFunc answers in the registry's place; next is the registry.
type faultFunc = func(w http.ResponseWriter, r *http.Request, next http.Handler)

func newHarness(t *testing.T) *harness {
	h := &harness{asked: map[string]int{}}
	h.Registry = testregistry.StartWith(t, testregistry.Options{Wrap: func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			h.mu.Lock()
			f := h.fault
			h.asked[r.Method]++
			h.mu.Unlock()
			if f != nil {
				f(w, r, next)
				return
			}
			next.ServeHTTP(w, r)
		})
	}})
	h.Host = h.Addr
	return h
}

func (h *harness) Fault(f faultFunc) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.fault = f
}

// Count counts the requests since the last call by method.
func (h *harness) Count() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	var out []string
	for _, m := range []string{"HEAD", "GET", "POST", "PATCH", "PUT", "DELETE"} {
		if n := h.asked[m]; n > 0 {
			out = append(out, fmt.Sprintf("%s %d", m, n))
		}
	}
	clear(h.asked)
	return strings.Join(out, ", ")
}

// times gives a fault that answers the first n requests of a method with a status, and then steps aside.
func times(n, status int, method string) faultFunc {
	var mu sync.Mutex
	return func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		mu.Lock()
		hit := n > 0 && r.Method == method
		if hit {
			n--
		}
		mu.Unlock()
		if hit {
			io.Copy(io.Discard, r.Body)
			w.WriteHeader(status)
			return
		}
		next.ServeHTTP(w, r)
	}
}

// cut ends a response's body after n bytes of it, with the connection.
type cut struct {
	http.ResponseWriter
	n int
}

func (c *cut) Write(p []byte) (int, error) {
	if len(p) < c.n {
		c.n -= len(p)
		return c.ResponseWriter.Write(p)
	}
	c.ResponseWriter.Write(p[:c.n])
	c.ResponseWriter.(http.Flusher).Flush()
	panic(http.ErrAbortHandler)
}

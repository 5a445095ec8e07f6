// Package registrytest has registries for tests: distribution's own, in process, with faults on demand. Nothing but
// tests imports it.
package registrytest

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/distribution/distribution/v3/configuration"
	"github.com/distribution/distribution/v3/registry/handlers"
	_ "github.com/distribution/distribution/v3/registry/storage/driver/inmemory" // the storage of Start
	"github.com/sirupsen/logrus"
)

// Registry is a real registry on loopback.
type Registry struct {
	// Host is where it listens, "127.0.0.1:port".
	Host string
	// Server is the HTTP server around it.
	Server *httptest.Server

	app http.Handler

	mu       sync.Mutex
	requests []string
	fault    func(w http.ResponseWriter, r *http.Request, next http.Handler)
}

// Start runs an empty registry in plain HTTP until the test ends.
func Start(t testing.TB) *Registry { return start(t, false) }

// StartTLS is Start with TLS under a certificate that no machine knows.
func StartTLS(t testing.TB) *Registry { return start(t, true) }

func start(t testing.TB, withTLS bool) *Registry {
	t.Helper()
	logrus.SetOutput(io.Discard)
	cfg := &configuration.Configuration{Storage: configuration.Storage{
		"inmemory": configuration.Parameters{},
		"delete":   configuration.Parameters{"enabled": true},
	}}
	cfg.Log.Level = "panic"
	cfg.Log.AccessLog.Disabled = true
	cfg.Catalog.MaxEntries = 1000
	ctx, cancel := context.WithCancel(context.Background())
	r := &Registry{app: handlers.NewApp(ctx, cfg)}
	r.Server = httptest.NewUnstartedServer(r)
	if withTLS {
		r.Server.StartTLS()
	} else {
		r.Server.Start()
	}
	r.Host = r.Server.Listener.Addr().String()
	t.Cleanup(func() {
		r.Server.CloseClientConnections()
		r.Server.Close()
		cancel()
	})
	return r
}

// ServeHTTP notes the request and passes it on, through the fault where one is set.
func (r *Registry) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	r.mu.Lock()
	r.requests = append(r.requests, req.Method+" "+req.URL.Path)
	fault := r.fault
	r.mu.Unlock()
	if fault != nil {
		fault(w, req, r.app)
		return
	}
	r.app.ServeHTTP(w, req)
}

// Fault makes f answer in the registry's place; next is the registry. Nil takes it away.
func (r *Registry) Fault(f func(w http.ResponseWriter, req *http.Request, next http.Handler)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.fault = f
}

// Requests gives what was asked since the last call, as "METHOD path".
func (r *Registry) Requests() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := r.requests
	r.requests = nil
	return out
}

// Count counts the requests since the last call by method.
func (r *Registry) Count() string {
	n := map[string]int{}
	for _, s := range r.Requests() {
		m, _, _ := strings.Cut(s, " ")
		n[m]++
	}
	var out []string
	for _, m := range []string{"HEAD", "GET", "POST", "PATCH", "PUT", "DELETE"} {
		if n[m] > 0 {
			out = append(out, fmt.Sprintf("%s %d", m, n[m]))
		}
	}
	return strings.Join(out, ", ")
}

// Times gives a fault that answers the first n requests for which match says true with a status, and then steps aside.
func Times(n, status int, match func(*http.Request) bool) func(http.ResponseWriter, *http.Request, http.Handler) {
	var mu sync.Mutex
	return func(w http.ResponseWriter, req *http.Request, next http.Handler) {
		mu.Lock()
		hit := n > 0 && match(req)
		if hit {
			n--
		}
		mu.Unlock()
		if hit {
			io.Copy(io.Discard, req.Body)
			w.WriteHeader(status)
			return
		}
		next.ServeHTTP(w, req)
	}
}

// Cut lets a response's body end after n bytes of it, with the connection.
type Cut struct {
	http.ResponseWriter
	N int
}

// Write passes bytes on until N is used up.
func (c *Cut) Write(p []byte) (int, error) {
	if len(p) < c.N {
		c.N -= len(p)
		return c.ResponseWriter.Write(p)
	}
	c.ResponseWriter.Write(p[:c.N])
	c.ResponseWriter.(http.Flusher).Flush()
	panic(http.ErrAbortHandler)
}

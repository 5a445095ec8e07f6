package main

import (
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"
	"time"
)

func newTestPackageProxy(t *testing.T) *packageProxy {
	t.Helper()
	p, err := newPackageProxy()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return p
}

// TestPackageProxyCounts: what comes back is counted, be it encrypted or not, and what is sent is not.
func TestPackageProxyCounts(t *testing.T) {
	const size = 300_000
	answer := http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		_, _ = io.Copy(io.Discard, req.Body)
		w.Header().Set("Colour", "blue")
		_, _ = w.Write(make([]byte, size))
	})
	for name, start := range map[string]func(http.Handler) *httptest.Server{"plain": httptest.NewServer, "encrypted": httptest.NewTLSServer} {
		t.Run(name, func(t *testing.T) {
			server := start(answer)
			t.Cleanup(server.Close)
			p := newTestPackageProxy(t)
			u, err := url.Parse(p.url())
			if err != nil {
				t.Fatal(err)
			}
			client := server.Client()
			client.Transport.(*http.Transport).Proxy = http.ProxyURL(u)
			res, err := client.Post(server.URL, "", io.LimitReader(zeros{}, 1<<20))
			if err != nil {
				t.Fatal(err)
			}
			b, err := io.ReadAll(res.Body)
			res.Body.Close()
			if err != nil || len(b) != size || res.Header.Get("Colour") != "blue" {
				t.Errorf("%d bytes and headers %v came, %v", len(b), res.Header, err)
			}
			if got := p.received(); got < size || got > size+20_000 {
				t.Errorf("%d bytes counted of %d", got, size)
			}
		})
	}
}

// TestPackageProxyEnds: Close ends tunnels that are open, and refuses more.
func TestPackageProxyEnds(t *testing.T) {
	held := make(chan struct{})
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		w.WriteHeader(http.StatusOK)
		_ = http.NewResponseController(w).Flush()
		close(held)
		<-req.Context().Done()
	}))
	t.Cleanup(server.Close)
	p, err := newPackageProxy()
	if err != nil {
		t.Fatal(err)
	}
	u, err := url.Parse(p.url())
	if err != nil {
		t.Fatal(err)
	}
	client := server.Client()
	client.Timeout = 10 * time.Second
	client.Transport.(*http.Transport).Proxy = http.ProxyURL(u)
	res, err := client.Get(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	<-held
	if err := p.Close(); err != nil {
		t.Error(err)
	}
	if _, err := io.ReadAll(res.Body); err == nil {
		t.Error("the answer ends well after Close")
	}
	if again, err := client.Get(server.URL); err == nil {
		again.Body.Close()
		t.Error("another request after Close is answered")
	}
}

// zeros is endless.
type zeros struct{}

func (zeros) Read(b []byte) (int, error) {
	clear(b)
	return len(b), nil
}

package main

import (
	"errors"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// packageProxy is the way from RUN steps to package registries, and counts what comes back: a forward proxy on loopback, which
// needs no other one itself.
type packageProxy struct {
	server   *http.Server
	addr     string // host:port
	served   chan error
	down     atomic.Int64
	mu       sync.Mutex
	tunnels  map[net.Conn]bool // nil after Close
	carrying sync.WaitGroup
}

func newPackageProxy() (*packageProxy, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	p := &packageProxy{addr: l.Addr().String(), served: make(chan error, 1), tunnels: map[net.Conn]bool{}}
	p.server = &http.Server{Handler: p, ReadHeaderTimeout: time.Minute}
	go func() { p.served <- p.server.Serve(l) }()
	return p, nil
}

// Close ends all connections and waits for them.
func (p *packageProxy) Close() error {
	err := p.server.Close()
	if serr := <-p.served; !errors.Is(serr, http.ErrServerClosed) {
		err = errors.Join(err, serr)
	}
	p.mu.Lock()
	for c := range p.tunnels {
		c.Close()
	}
	p.tunnels = nil
	p.mu.Unlock()
	p.carrying.Wait()
	return err
}

// url is for HTTP_PROXY and HTTPS_PROXY.
func (p *packageProxy) url() string { return "http://" + p.addr }

// received is how many bytes have come back so far: those of tunnels, encrypted, and those of other answers' bodies. It is 0 on nil.
func (p *packageProxy) received() int64 {
	if p == nil {
		return 0
	}
	return p.down.Load()
}

func (p *packageProxy) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	if req.Method == http.MethodConnect {
		p.tunnel(w, req)
		return
	}
	out := req.Clone(req.Context())
	out.RequestURI = ""
	out.Header.Del("Proxy-Connection")
	res, err := http.DefaultTransport.RoundTrip(out)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	defer res.Body.Close()
	for name, values := range res.Header {
		w.Header()[name] = values
	}
	w.WriteHeader(res.StatusCode)
	n, _ := io.Copy(w, res.Body) // who breaks off notices
	p.down.Add(n)
}

// tunnel carries what it cannot read, in both directions.
func (p *packageProxy) tunnel(w http.ResponseWriter, req *http.Request) {
	far, err := new(net.Dialer).DialContext(req.Context(), "tcp", req.Host)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	if !p.keep(far) {
		return
	}
	defer p.drop(far)
	near, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	if !p.keep(near) {
		return
	}
	defer p.drop(near)
	if _, err := io.WriteString(near, "HTTP/1.1 200 Connection established\r\n\r\n"); err != nil {
		return
	}
	var both sync.WaitGroup
	both.Go(func() { carry(far.(*net.TCPConn), buffered) })
	both.Go(func() { carry(near.(*net.TCPConn), &counted{far, &p.down}) })
	both.Wait()
}

// keep notes a tunnel's end for Close; false after Close.
func (p *packageProxy) keep(c net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.tunnels == nil {
		c.Close()
		return false
	}
	p.tunnels[c] = true
	p.carrying.Add(1)
	return true
}

func (p *packageProxy) drop(c net.Conn) {
	c.Close()
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.tunnels, c)
	p.carrying.Done()
}

// counted counts while it is read.
type counted struct {
	io.Reader
	n *atomic.Int64
}

func (c *counted) Read(b []byte) (int, error) {
	n, err := c.Reader.Read(b)
	c.n.Add(int64(n))
	return n, err
}

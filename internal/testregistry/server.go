package testregistry

import (
	"errors"
	"net"
	"net/http"
	"time"
)

// server answers HTTP on a loopback port until close.
type server struct {
	addr   string // host:port
	http   *http.Server
	served chan error // holds one
}

// listen begins to answer; addr "" is a free port.
func listen(addr string, h http.Handler) (*server, error) {
	if addr == "" {
		addr = "127.0.0.1:0"
	}
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, err
	}
	s := &server{
		addr:   l.Addr().String(),
		http:   &http.Server{Handler: h, ReadHeaderTimeout: time.Minute},
		served: make(chan error, 1),
	}
	go func() { s.served <- s.http.Serve(l) }()
	return s, nil
}

// close ends all connections and waits until nobody listens any more.
func (s *server) close() error {
	err := s.http.Close()
	if serr := <-s.served; !errors.Is(serr, http.ErrServerClosed) {
		err = errors.Join(err, serr)
	}
	return err
}

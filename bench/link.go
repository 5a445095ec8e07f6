package main

import (
	"errors"
	"io"
	"net"
	"sync"
	"time"
)

// link is the address under which builders find the registry in every scenario, be it near or behind a proxy that
// puts it further away: what a builder keeps of references and origins is then the same, and leads past no proxy.
type link struct {
	addr     string
	listener net.Listener
	done     sync.WaitGroup

	mu    sync.Mutex
	to    string
	conns map[net.Conn]struct{} // nil after Close
}

// newLink listens on a free loopback port and passes connections on to an address until Close.
func newLink(to string) (*link, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	k := &link{addr: l.Addr().String(), listener: l, to: to, conns: map[net.Conn]struct{}{}}
	k.done.Go(k.accept)
	return k, nil
}

// lead sends connections that come from now on to another address.
func (k *link) lead(to string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.to = to
}

// Close ends all connections and waits for them.
func (k *link) Close() error {
	err := k.listener.Close()
	k.mu.Lock()
	for c := range k.conns {
		c.Close()
	}
	k.conns = nil
	k.mu.Unlock()
	k.done.Wait()
	return err
}

func (k *link) accept() {
	for {
		c, err := k.listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			time.Sleep(10 * time.Millisecond) // no file descriptors, or the client was gone already
			continue
		}
		k.done.Go(func() { k.serve(c) })
	}
}

// serve carries one connection in both directions.
func (k *link) serve(near net.Conn) {
	defer k.forget(near)
	to, open := k.remember(near)
	if !open {
		return
	}
	far, err := net.Dial("tcp", to)
	if err != nil {
		return
	}
	defer k.forget(far)
	if _, open := k.remember(far); !open {
		return
	}
	var both sync.WaitGroup
	both.Go(func() { carry(far.(*net.TCPConn), near) })
	both.Go(func() { carry(near.(*net.TCPConn), far) })
	both.Wait()
}

// remember notes a connection for Close and tells where it leads, unless the link is closed.
func (k *link) remember(c net.Conn) (to string, open bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.conns == nil {
		return "", false
	}
	k.conns[c] = struct{}{}
	return k.to, true
}

func (k *link) forget(c net.Conn) {
	c.Close()
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.conns, c)
}

// carry copies one direction of a connection, spliced where from is one too, and its end. What breaks is noticed by the other direction.
func carry(to *net.TCPConn, from io.Reader) {
	_, _ = io.Copy(to, from)
	_ = to.CloseWrite()
}

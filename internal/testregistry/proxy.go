package testregistry

import (
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// ProxyOptions say how far away a Proxy makes a server.
type ProxyOptions struct {
	// RoundTrip is the time that a byte and its answer take together on the way, and that a connection takes to open.
	RoundTrip time.Duration
	// Bandwidth is what all connections together may carry in each direction, in bytes per second; 0 is no limit.
	Bandwidth int64
}

// Proxy is a TCP port behind which another one seems to be far away. Bytes are delayed in a pipeline: latency alone does
// not limit bandwidth.
type Proxy struct {
	// Addr is host:port, in the place of the server's.
	Addr string

	target   string
	opt      ProxyOptions
	listener net.Listener
	up, down line
	opened   atomic.Int64

	mu     sync.Mutex
	conns  map[net.Conn]bool // nil after Close
	serves sync.WaitGroup
}

// Traffic is what went through a Proxy.
type Traffic struct {
	Connections int64
	Up, Down    int64 // bytes to the server and from it, headers included
}

// NewProxy listens on a free loopback port and connects what comes to target ("host:port"), until Close.
func NewProxy(target string, opt ProxyOptions) (*Proxy, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("proxy for %s: %w", target, err)
	}
	p := &Proxy{Addr: l.Addr().String(), target: target, opt: opt, listener: l, conns: map[net.Conn]bool{}}
	p.up.bandwidth, p.down.bandwidth = opt.Bandwidth, opt.Bandwidth
	p.serves.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return // Close
			}
			p.serves.Go(func() { p.serve(conn.(*net.TCPConn)) })
		}
	})
	return p, nil
}

// Traffic gives the counts so far. Bytes count when they are delivered.
func (p *Proxy) Traffic() Traffic {
	return Traffic{Connections: p.opened.Load(), Up: p.up.bytes.Load(), Down: p.down.bytes.Load()}
}

// Close breaks all connections and waits until nothing is left of them.
func (p *Proxy) Close() error {
	err := p.listener.Close()
	p.mu.Lock()
	for c := range p.conns {
		_ = c.Close()
	}
	p.conns = nil
	p.mu.Unlock()
	p.serves.Wait()
	return err
}

// keep notes an open connection, so that Close reaches it; false after Close.
func (p *Proxy) keep(c net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.conns == nil {
		_ = c.Close()
		return false
	}
	p.conns[c] = true
	return true
}

func (p *Proxy) drop(c net.Conn) {
	_ = c.Close()
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.conns, c)
}

func (p *Proxy) serve(client *net.TCPConn) {
	accepted := time.Now()
	p.opened.Add(1)
	if !p.keep(client) {
		return
	}
	defer p.drop(client)
	conn, err := net.Dial("tcp", p.target)
	if err != nil {
		_ = client.SetLinger(0)
		return
	}
	server := conn.(*net.TCPConn)
	if !p.keep(server) {
		return
	}
	defer p.drop(server)
	var both sync.WaitGroup
	// The client believes that it is connected, which it would only know after a round trip.
	both.Go(func() { p.up.carry(server, client, p.opt.RoundTrip/2, accepted.Add(p.opt.RoundTrip)) })
	both.Go(func() { p.down.carry(client, server, p.opt.RoundTrip/2, accepted) })
	both.Wait()
}

// line is one direction of the way.
type line struct {
	bandwidth int64
	bytes     atomic.Int64

	mu   sync.Mutex
	free time.Time // when it has sent what it was given so far
}

// parcel is what one read gave, or how a connection ended.
type parcel struct {
	due  time.Time
	data []byte
	err  error
}

// parcels is how many may be on their way in one direction of a connection. At 64 KiB each that is 1.3 GB/s at a round trip
// of 100 ms.
const parcels = 1024

// carry moves what comes from one connection to the other, delay later, until from ends or breaks; to then ends the same
// way. Nothing leaves before start.
func (l *line) carry(to, from *net.TCPConn, delay time.Duration, start time.Time) {
	way := make(chan parcel, parcels)
	done := make(chan struct{})
	go func() {
		defer close(done)
		l.deliver(to, from, way)
	}()
	buf := make([]byte, 64<<10)
	for {
		n, err := from.Read(buf)
		sent := time.Now()
		if sent.Before(start) {
			sent = start
		}
		if n > 0 {
			sent = l.send(n, sent)
			way <- parcel{due: sent.Add(delay), data: append([]byte(nil), buf[:n]...)}
		}
		if err != nil {
			way <- parcel{due: sent.Add(delay), err: err}
			close(way)
			break
		}
		if l.bandwidth > 0 {
			time.Sleep(time.Until(sent)) // so that the sender notices
		}
	}
	<-done
}

// send gives the moment when the line has sent n bytes more.
func (l *line) send(n int, from time.Time) time.Time {
	if l.bandwidth <= 0 {
		return from
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.free.Before(from) {
		l.free = from
	}
	l.free = l.free.Add(time.Duration(int64(n) * int64(time.Second) / l.bandwidth))
	return l.free
}

// deliver takes all parcels. When the receiver breaks, the sender does.
func (l *line) deliver(to, from *net.TCPConn, way <-chan parcel) {
	var broken bool
	for p := range way {
		if broken {
			continue
		}
		time.Sleep(time.Until(p.due))
		switch {
		case errors.Is(p.err, io.EOF):
			_ = to.CloseWrite()
		case p.err != nil:
			broken = true
			_ = to.SetLinger(0)
			_ = to.Close()
		default:
			n, err := to.Write(p.data)
			l.bytes.Add(int64(n))
			if err != nil {
				broken = true
				_ = from.SetLinger(0)
				_ = from.Close()
			}
		}
	}
}

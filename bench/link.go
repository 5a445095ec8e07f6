package main

import (
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// link is the address under which builders find the registry in every scenario, so that nothing that a builder keeps
// of a reference differs between them. It adds latency where a scenario asks for it: half of a round trip each way, and
// a whole one to set a connection up. Bytes on the way do not wait for each other, so bandwidth stays that of loopback.
type link struct {
	addr  string
	to    string
	l     net.Listener
	delay atomic.Int64 // a round trip, a time.Duration
	done  sync.WaitGroup

	mu     sync.Mutex
	conns  map[net.Conn]struct{}
	closed bool
}

// newLink listens on a free loopback port and passes everything on to an address until Close.
func newLink(to string) (*link, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	k := &link{addr: l.Addr().String(), to: to, l: l, conns: map[net.Conn]struct{}{}}
	k.done.Go(k.accept)
	return k, nil
}

// setDelay sets what a round trip takes, for connections that come from now on.
func (k *link) setDelay(d time.Duration) { k.delay.Store(int64(d)) }

// Close ends all connections and waits for them.
func (k *link) Close() error {
	err := k.l.Close()
	k.mu.Lock()
	k.closed = true
	for c := range k.conns {
		c.Close()
	}
	k.mu.Unlock()
	k.done.Wait()
	return err
}

func (k *link) accept() {
	for {
		c, err := k.l.Accept()
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
	if !k.remember(near) {
		return
	}
	half := time.Duration(k.delay.Load()) / 2
	connected := time.Now().Add(2 * half) // when a client that far away would know of its connection
	far, err := net.Dial("tcp", k.to)
	if err != nil {
		return
	}
	defer k.forget(far)
	if !k.remember(far) {
		return
	}
	var both sync.WaitGroup
	both.Go(func() { carry(far, near, half, connected) })
	both.Go(func() { carry(near, far, half, time.Time{}) })
	both.Wait()
}

// remember notes a connection for Close, or tells that the link is closed.
func (k *link) remember(c net.Conn) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.closed {
		return false
	}
	k.conns[c] = struct{}{}
	return true
}

func (k *link) forget(c net.Conn) {
	k.mu.Lock()
	delete(k.conns, c)
	k.mu.Unlock()
	c.Close()
}

// carry copies one direction of a connection, each piece and the end of the stream as late as they would arrive.
// Nothing is sent before the sender knows of its connection.
func carry(to, from net.Conn, delay time.Duration, connected time.Time) {
	defer func() {
		if c, ok := to.(*net.TCPConn); ok {
			_ = c.CloseWrite() // the other end may be gone, which its own direction notices
		}
	}()
	if delay == 0 {
		_, _ = io.Copy(to, from) // likewise, and spliced
		return
	}
	type piece struct {
		bytes []byte
		due   time.Time
	}
	// 64 MiB on the way: at 25 ms that is more than loopback moves in the time.
	way := make(chan piece, 1024)
	var sender sync.WaitGroup
	sender.Go(func() {
		defer close(way)
		buf := make([]byte, 64<<10)
		for {
			n, err := from.Read(buf)
			if n > 0 {
				sent := time.Now()
				if sent.Before(connected) {
					sent = connected
				}
				way <- piece{append([]byte(nil), buf[:n]...), sent.Add(delay)}
			}
			if err != nil {
				return
			}
		}
	})
	for p := range way {
		time.Sleep(time.Until(p.due))
		if _, err := to.Write(p.bytes); err != nil {
			from.Close() // whoever still sends learns it as from a reset
			for range way {
				continue // what is on the way is lost
			}
			break
		}
	}
	sender.Wait()
}

package main

import (
	"bytes"
	"io"
	"math/rand/v2"
	"net"
	"testing"
)

// answerer sends a name first, then everything back that it is sent, and ends when the client does.
func answerer(t *testing.T, name string) (addr string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				if _, err := io.WriteString(c, name); err == nil {
					_, _ = io.Copy(c, c) // the client compares what comes back
				}
			}()
		}
	}()
	t.Cleanup(func() { l.Close(); <-done })
	return l.Addr().String()
}

func newTestLink(t *testing.T, to string) *link {
	t.Helper()
	k, err := newLink(to)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := k.Close(); err != nil {
			t.Error(err)
		}
	})
	return k
}

func dial(t *testing.T, k *link) *net.TCPConn {
	t.Helper()
	c, err := net.Dial("tcp", k.addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c.(*net.TCPConn)
}

func readName(t *testing.T, c net.Conn) string {
	t.Helper()
	b := make([]byte, 1)
	if _, err := io.ReadFull(c, b); err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestLinkLeadsNewConnectionsElsewhere(t *testing.T) {
	k := newTestLink(t, answerer(t, "a"))
	first := dial(t, k)
	if got := readName(t, first); got != "a" {
		t.Errorf("the link leads to %q", got)
	}
	k.lead(answerer(t, "b"))
	if got := readName(t, dial(t, k)); got != "b" {
		t.Errorf("the link leads to %q", got)
	}
	// The old connection stays, in both directions and to its end.
	want := make([]byte, 4<<20)
	_, _ = rand.NewChaCha8([32]byte{7}).Read(want) // never fails
	sent := make(chan error, 1)
	go func() {
		if _, err := first.Write(want); err != nil {
			sent <- err
			return
		}
		sent <- first.CloseWrite()
	}()
	got, err := io.ReadAll(first)
	if err != nil {
		t.Fatal(err)
	}
	if err := <-sent; err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%d bytes came back of %d, or others", len(got), len(want))
	}
}

func TestLinkCloseEndsConnections(t *testing.T) {
	k, err := newLink(answerer(t, "a"))
	if err != nil {
		t.Fatal(err)
	}
	c := dial(t, k)
	readName(t, c)
	if err := k.Close(); err != nil {
		t.Error(err)
	}
	if n, err := c.Read(make([]byte, 1)); err == nil {
		t.Errorf("%d bytes after Close", n)
	}
}

// TestLinkToNowhere is a registry that has gone: the client's connection ends.
func TestLinkToNowhere(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	k := newTestLink(t, l.Addr().String())
	if n, err := dial(t, k).Read(make([]byte, 1)); err == nil {
		t.Errorf("%d bytes from nowhere", n)
	}
}

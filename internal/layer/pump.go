package layer

import (
	"hash"
	"io"
	"sync"
)

// pump reads ahead in goroutines of its own, one that reads and one that hashes if a sum is wanted, so that
// decompressing, hashing and writing run beside each other.
type pump struct {
	sum hash.Hash // of what was read; complete when Read has given io.EOF

	full  chan pumped
	empty chan []byte
	stop  chan struct{}
	end   sync.WaitGroup
	once  sync.Once
	buf   []byte // in use, and what is left of it
	rest  []byte
	err   error
}

type pumped struct {
	buf []byte
	n   int
	err error
}

const pumpBuffers = 4

// newPump takes over r; end is called when it is no longer read.
func newPump(r io.Reader, end func(), sum hash.Hash) *pump {
	p := &pump{
		sum: sum, stop: make(chan struct{}),
		full: make(chan pumped, pumpBuffers), empty: make(chan []byte, pumpBuffers),
	}
	for range pumpBuffers {
		p.empty <- make([]byte, chunk)
	}
	raw := p.full
	if sum != nil {
		raw = make(chan pumped, pumpBuffers)
		p.end.Go(func() {
			defer close(p.full)
			for c := range raw {
				sum.Write(c.buf[:c.n])
				p.full <- c
			}
		})
	}
	p.end.Go(func() {
		defer end()
		defer close(raw)
		for {
			select {
			case <-p.stop:
				return
			case buf := <-p.empty:
				c := pumped{buf: buf}
				c.n, c.err = fill(r, buf)
				raw <- c // never blocks: there are no more buffers than places
				if c.err != nil {
					return
				}
			}
		}
	})
	return p
}

// fill is io.ReadFull, but keeps the reader's own error: a truncated stream is not the end of one.
func fill(r io.Reader, buf []byte) (n int, err error) {
	for n < len(buf) && err == nil {
		var m int
		m, err = r.Read(buf[n:])
		n += m
	}
	return n, err
}

func (p *pump) Read(b []byte) (int, error) {
	for len(p.rest) == 0 {
		if p.err != nil {
			return 0, p.err
		}
		if p.buf != nil {
			p.empty <- p.buf
			p.buf = nil
		}
		c, ok := <-p.full
		if !ok {
			return 0, io.ErrClosedPipe
		}
		p.buf, p.rest, p.err = c.buf, c.buf[:c.n], c.err
	}
	n := copy(b, p.rest)
	p.rest = p.rest[n:]
	return n, nil
}

// Close stops the goroutines and waits for them.
func (p *pump) Close() error {
	p.once.Do(func() { close(p.stop) })
	p.end.Wait()
	return nil
}

package pack

import "sync"

// bufferSizes are the sizes of frames' buffers in bytes, few, so that one that is given back soon fits again: the frame that small pieces
// share, cut pieces, whole files.
var bufferSizes = [...]int64{sharedFrame + shareBelow, 1280 << 10, 2 << 20, maxPiece}

// bufferMore is what zstd adds, at most, to bytes that do not compress.
const bufferMore = 1 << 10

// bufferClass is the index of the smallest size that n bytes fit into.
func bufferClass(n int64) int {
	for i, size := range bufferSizes {
		if n <= size {
			return i
		}
	}
	panic("a frame for more than a piece")
}

// pool keeps the buffers of a Writer's frames for the next ones, instead of leaving them to the garbage collector, which lets as much
// garbage pile up as there is memory in use. It holds `buffered` bytes at most, since Writer.memory bounds what is in use.
type pool struct {
	mu    sync.Mutex
	idle  [len(bufferSizes)][][]byte
	total int64 // bytes, in use and idle
}

// take gives an empty buffer for n bytes, packed or not.
func (p *pool) take(n int64) []byte {
	c := bufferClass(n)
	p.mu.Lock()
	defer p.mu.Unlock()
	if list := p.idle[c]; len(list) > 0 {
		b := list[len(list)-1]
		p.idle[c] = list[:len(list)-1]
		return b
	}
	p.total += bufferSizes[c]
	for i, list := range p.idle {
		for p.total > buffered && len(list) > 0 {
			p.total -= bufferSizes[i]
			list[len(list)-1] = nil
			list = list[:len(list)-1]
		}
		p.idle[i] = list
	}
	return make([]byte, 0, bufferSizes[c]+bufferMore)
}

// give takes back a buffer that take gave.
func (p *pool) give(b []byte) {
	c := bufferClass(int64(cap(b)) - bufferMore)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.idle[c] = append(p.idle[c], b[:0])
}

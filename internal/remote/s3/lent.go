package s3

import (
	"io"
	"sync"
)

// lent is a buffer that net/http reads from. It may go on reading after the request has failed; take ends that, so that the
// buffer can be used again.
type lent struct {
	mu   sync.Mutex
	rest []byte
}

func (l *lent) Read(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.rest) == 0 {
		return 0, io.EOF
	}
	n := copy(p, l.rest)
	l.rest = l.rest[n:]
	return n, nil
}

func (l *lent) take() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.rest = nil
}

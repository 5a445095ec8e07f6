package pack

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"larder/internal/key"
)

// store is what a test's packs are in: a remote, with a count of its requests.
type store struct {
	mu       sync.Mutex
	packs    map[key.Digest][]byte
	order    []key.Digest // as they were taken over
	requests atomic.Int64
	moved    atomic.Int64 // bytes asked for
	delay    time.Duration
}

func newStore() *store { return &store{packs: map[key.Digest][]byte{}} }

// done takes over a pack as Options.Done does.
func (s *store) done(p Pack) error {
	b, err := os.ReadFile(p.Path)
	if err != nil {
		return err
	}
	if int64(len(b)) != p.Size || key.Bytes(b) != p.Digest {
		return fmt.Errorf("pack %s of %d bytes: %d bytes are there, %s", p.Digest, p.Size, len(b), key.Bytes(b))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.packs[p.Digest] = b
	s.order = append(s.order, p.Digest)
	return os.Remove(p.Path)
}

// open is an Opener.
func (s *store) open(ctx context.Context, pack key.Digest, off, n int64) (io.ReadCloser, error) {
	s.requests.Add(1)
	s.moved.Add(n)
	select {
	case <-time.After(s.delay):
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	b, ok := s.packs[pack]
	if !ok {
		return nil, fmt.Errorf("no pack %s", pack)
	}
	off = min(off, int64(len(b)))
	return io.NopCloser(bytes.NewReader(b[off:min(off+n, int64(len(b)))])), nil
}

// size is the bytes of all packs.
func (s *store) size() (n int64) {
	for _, b := range s.packs {
		n += int64(len(b))
	}
	return n
}

// stored is a file as Add told about it.
type stored struct {
	digest key.Digest
	refs   []Ref
}

// save packs files from one goroutine and fails the test where Add's answers are wrong.
func save(t testing.TB, s *store, have map[key.Digest]Piece, files ...[]byte) ([]stored, map[key.Digest]Piece) {
	t.Helper()
	w := NewWriter(Options{Dir: t.TempDir(), Done: s.done, Have: func(d key.Digest) (Piece, bool) { p, ok := have[d]; return p, ok }})
	defer w.Abort()
	var list []stored
	for _, b := range files {
		list = append(list, add(t, w, b))
	}
	where, err := w.Close(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return list, where
}

// add adds one file and checks the answer.
func add(t testing.TB, w *Writer, b []byte) stored {
	t.Helper()
	d, size, refs, err := w.Add(t.Context(), bytes.NewReader(b))
	if err != nil {
		t.Error(err)
		return stored{}
	}
	if d != key.Bytes(b) || size != int64(len(b)) {
		t.Errorf("%s of %d bytes, want %s of %d", d, size, key.Bytes(b), len(b))
	}
	if len(b) == 0 && len(refs) != 0 || 0 < len(b) && len(b) <= CutAbove && (len(refs) != 1 || refs[0] != Ref{d, size}) || len(b) > CutAbove && len(refs) < 2 {
		t.Errorf("%d bytes are pieces %v", len(b), refs)
	}
	at := int64(0)
	for _, r := range refs {
		if r.Size <= 0 || r.Size > size-at || key.Bytes(b[at:at+r.Size]) != r.Digest {
			t.Errorf("%d bytes: piece %v is not what stands at %d", len(b), r, at)
			return stored{}
		}
		at += r.Size
	}
	if at != size {
		t.Errorf("the pieces of %d bytes have %d", size, at)
	}
	return stored{d, refs}
}

// pieces looks up the pieces of files, in order.
func pieces(t testing.TB, where map[key.Digest]Piece, files []stored) (list []Piece) {
	t.Helper()
	for _, f := range files {
		for _, r := range f.refs {
			p, ok := where[r.Digest]
			if !ok || p.Digest != r.Digest || p.Size != r.Size {
				t.Fatalf("piece %v is at %+v (%v)", r, p, ok)
			}
			list = append(list, p)
		}
	}
	return list
}

// fetch gives the pieces' bytes, in order. Where Fetch fails, what sink got before is checked all the same.
func fetch(t testing.TB, open Opener, list []Piece, parallel int) ([][]byte, error) {
	t.Helper()
	out := make([][]byte, len(list))
	var mu sync.Mutex
	err := Fetch(t.Context(), open, list, parallel, func(i int, data []byte) error {
		mu.Lock()
		defer mu.Unlock()
		if out[i] != nil {
			t.Errorf("piece %d came twice", i)
		}
		if key.Bytes(data) != list[i].Digest {
			t.Errorf("piece %d came with wrong bytes", i)
		}
		out[i] = bytes.Clone(data)
		return nil
	})
	for i := range out {
		if err == nil && out[i] == nil {
			t.Errorf("piece %d did not come", i)
		}
	}
	return out, err
}

// noise is n bytes that do not compress.
func noise(seed uint64, n int) []byte {
	b := make([]byte, n)
	var start [32]byte
	binary.LittleEndian.PutUint64(start[:], seed)
	rand.NewChaCha8(start).Read(b)
	return b
}

// text is n bytes that compress about as well as source code.
func text(seed uint64, n int) []byte {
	r := rand.New(rand.NewPCG(seed, 2))
	words := make([]string, 600)
	for i := range words {
		words[i] = fmt.Sprintf("%x ", r.Uint64()>>(r.IntN(12)*4))
	}
	b := make([]byte, 0, n+20)
	for len(b) < n {
		b = append(b, words[min(r.IntN(600), r.IntN(600))]...)
	}
	return b[:n]
}

package pack

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"time"

	"pgregory.net/rapid"

	"larder/internal/key"
	"larder/internal/remote"
)

// TestPlan: every piece is read once, in ranges that are neither too long nor too many.
func TestPlan(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var list []Piece
		var frames int
		for p := range rapid.IntRange(1, 3).Draw(t, "packs") {
			off := rapid.Int64Range(0, 1000).Draw(t, "start")
			for range rapid.IntRange(0, 60).Draw(t, "frames") {
				f := Frame{Offset: off, Length: rapid.Int64Range(1, 2<<20).Draw(t, "length"), Raw: 4 << 20}
				frames++
				for range rapid.IntRange(1, 3).Draw(t, "pieces") {
					piece := Piece{Digest: key.Bytes(fmt.Append(nil, len(list))), Size: 5, Pack: key.Bytes([]byte{byte(p)}), Frame: f, Offset: int64(len(list))}
					list = append(list, piece)
				}
				off += f.Length + rapid.SampledFrom([]int64{0, 0, 0, 1, maxGap, maxGap + 1, 50 << 20}).Draw(t, "gap")
			}
		}
		list = rapid.Permutation(list).Draw(t, "order")
		if len(list) > 0 {
			list = append(list, list[0])
		}
		parallel := rapid.IntRange(1, 16).Draw(t, "parallel")
		spans, err := plan(list, parallel)
		if err != nil {
			t.Fatal(err)
		}
		seen := make([]int, len(list))
		var total int64
		for i, s := range spans {
			total += s.n
			at := s.off
			for j, f := range s.frames {
				frames--
				if f.Offset < at || j > 0 && f.Offset-at > maxGap || j == 0 && f.Offset != at {
					t.Fatalf("frame %+v behind %d", f.Frame, at)
				}
				at = f.Offset + f.Length
				for _, p := range f.pieces {
					for _, i := range p.at {
						seen[i]++
						if list[i] != p.Piece || p.Frame != f.Frame || p.Pack != s.pack {
							t.Fatalf("%+v stands for %+v", p, list[i])
						}
					}
				}
			}
			if at != s.off+s.n || s.n > maxSpan && len(s.frames) > 1 {
				t.Fatalf("a range of %d bytes that ends at %d", s.n, at)
			}
			// Two short ranges that touch would have been one.
			if i > 0 && spans[i-1].pack == s.pack && spans[i-1].n < minSpan && s.off-spans[i-1].off-spans[i-1].n <= maxGap {
				t.Fatalf("ranges of %d and %d bytes beside each other", spans[i-1].n, s.n)
			}
		}
		for i, n := range seen {
			if n != 1 {
				t.Fatalf("piece %d is read %d times", i, n)
			}
		}
		if frames != 0 {
			t.Fatalf("%d frames are missing", frames)
		}
	})
}

// TestRequests counts what a mount costs: whole, a single file of it, and files that stand twice in the list.
func TestRequests(t *testing.T) {
	s := newStore()
	files, _ := mount(6 << 20)
	for i := range uint64(5) {
		files = append(files, noise(i, 3_000_000))
	}
	list, where := save(t, s, nil, files...)
	all := pieces(t, where, list)
	for _, c := range []struct {
		name     string
		list     []Piece
		parallel int
		most     int64 // requests
		moved    int64 // bytes, at most
	}{
		{"everything by one", all, 1, 4, s.size()},
		{"everything by eight", all, 8, 8, s.size()},
		{"everything twice", append(all, all...), 8, 8, s.size()},
		{"one", all[:1], 8, 1, all[0].Frame.Length},
		{"one twice", []Piece{all[0], all[0]}, 8, 1, all[0].Frame.Length},
		{"first and last", []Piece{all[0], all[len(all)-1]}, 8, 2, all[0].Frame.Length + all[len(all)-1].Frame.Length},
		{"nothing", nil, 8, 0, 0},
	} {
		s.requests.Store(0)
		s.moved.Store(0)
		if _, err := fetch(t, s.open, c.list, c.parallel); err != nil {
			t.Error(c.name, err)
		}
		if n, b := s.requests.Load(), s.moved.Load(); n > c.most || b > c.moved {
			t.Errorf("%s: %d requests of %d bytes, at most %d of %d", c.name, n, b, c.most, c.moved)
		}
	}
}

// TestParallel: so many ranges are open at once, and not more.
func TestParallel(t *testing.T) {
	s := newStore()
	list, where := save(t, s, nil, noise(1, 12<<20))
	var now, most atomic.Int64
	open := func(ctx context.Context, pack key.Digest, off, n int64) (io.ReadCloser, error) {
		most.Store(max(most.Load(), now.Add(1)))
		for end := time.Now().Add(5 * time.Second); most.Load() < 4 && time.Now().Before(end); {
			time.Sleep(time.Millisecond)
		}
		rc, err := s.open(ctx, pack, off, n)
		return &closing{rc, func() { now.Add(-1) }}, err
	}
	if _, err := fetch(t, open, pieces(t, where, list), 4); err != nil {
		t.Fatal(err)
	}
	if most.Load() != 4 || now.Load() != 0 {
		t.Errorf("%d ranges at once, %d left open", most.Load(), now.Load())
	}
}

type closing struct {
	io.Reader
	close func()
}

func (c *closing) Close() error { c.close(); return nil }

// TestFetchFails: the errors of others come through, and end the rest.
func TestFetchFails(t *testing.T) {
	s := newStore()
	list, where := save(t, s, nil, noise(1, 12<<20))
	all := pieces(t, where, list)
	mine := errors.New("mine")
	fails := func(err error) Opener {
		var n atomic.Int64
		return func(ctx context.Context, _ key.Digest, _, _ int64) (io.ReadCloser, error) {
			if n.Add(1) == 3 {
				return nil, err
			}
			<-ctx.Done() // the others hang until the first error
			return nil, context.Cause(ctx)
		}
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(mine)
	for name, err := range map[string]error{
		"open": Fetch(t.Context(), fails(mine), all, 4, func(int, []byte) error { return nil }),
		"sink": Fetch(t.Context(), s.open, all, 4, func(int, []byte) error { return mine }),
		"read": Fetch(t.Context(), func(context.Context, key.Digest, int64, int64) (io.ReadCloser, error) {
			return io.NopCloser(iotest.ErrReader(mine)), nil
		}, all, 4, func(int, []byte) error { return nil }),
		"called": Fetch(ctx, s.open, all, 4, func(int, []byte) error { t.Error("called off, and still fetching"); return nil }),
	} {
		if !errors.Is(err, mine) || errors.Is(err, remote.ErrDamaged) {
			t.Errorf("%s: %v", name, err)
		}
		if name == "open" && !strings.Contains(err.Error(), all[0].Pack.String()) {
			t.Errorf("%s: %v names no pack", name, err)
		}
	}
	if err := Fetch(t.Context(), fails(remote.ErrNotFound), all, 4, nil); !errors.Is(err, remote.ErrNotFound) {
		t.Error(err)
	}
}

// TestLongAnswer: a store that sends more than was asked for does no harm.
func TestLongAnswer(t *testing.T) {
	s := newStore()
	list, where := save(t, s, nil, []byte("file"))
	open := func(_ context.Context, pack key.Digest, off, _ int64) (io.ReadCloser, error) {
		return io.NopCloser(io.MultiReader(bytes.NewReader(s.packs[pack][off:]), zeros{})), nil
	}
	if got, err := fetch(t, open, pieces(t, where, list), 1); err != nil || string(got[0]) != "file" {
		t.Errorf("%q, %v", got, err)
	}
}

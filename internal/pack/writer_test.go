package pack

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"time"

	"larder/internal/key"
)

// left lists what is in a Writer's directory.
func left(t *testing.T, dir string) []string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// TestNothing: a Writer that is given nothing, or empty files, writes nothing.
func TestNothing(t *testing.T) {
	s := newStore()
	if _, where := save(t, s, nil); len(where) != 0 || len(s.packs) != 0 {
		t.Errorf("%v in %d packs", where, len(s.packs))
	}
	if _, where := save(t, s, nil, nil, nil); len(where) != 0 || len(s.packs) != 0 {
		t.Errorf("%v in %d packs", where, len(s.packs))
	}
}

// TestFullPacks: a pack is handed over as soon as it is full, whatever is added afterwards.
func TestFullPacks(t *testing.T) {
	s := newStore()
	first := make(chan Pack, 10)
	w := NewWriter(Options{Dir: t.TempDir(), Done: func(p Pack) error { first <- p; return s.done(p) }})
	defer w.Abort()
	var list []stored
	w.full = 5 << 20
	for i := range uint64(4) {
		list = append(list, add(t, w, noise(i, 2<<20)))
	}
	select {
	case p := <-first:
		if p.Size < w.full || p.Size > w.full+maxPiece {
			t.Errorf("a full pack has %d bytes", p.Size)
		}
	case <-time.After(20 * time.Second):
		t.Error("no pack before the end")
	}
	where, err := w.Close(t.Context())
	if err != nil || len(s.packs) != 2 {
		t.Fatalf("%d packs, %v", len(s.packs), err)
	}
	if _, err := fetch(t, s.open, pieces(t, where, list), 3); err != nil {
		t.Error(err)
	}
}

// TestHave: what Have says about another piece, or what cannot be true, is not believed.
func TestHave(t *testing.T) {
	file := []byte("contents")
	good := Piece{Digest: key.Bytes(file), Size: int64(len(file)), Pack: key.Bytes(nil), Frame: Frame{0, 50, 60}, Offset: 7}
	short, other, nowhere := good, good, good
	short.Size--
	other.Digest[0]++
	nowhere.Pack = key.Digest{}
	for _, p := range []Piece{good, short, other, nowhere} {
		s := newStore()
		_, where := save(t, s, map[key.Digest]Piece{key.Bytes(file): p}, file, file)
		if believed := where[key.Bytes(file)] == p; believed != (p == good) || believed == (len(s.packs) == 1) || len(where) != 1 {
			t.Errorf("%+v: %v, %d packs", p, where, len(s.packs))
		}
	}
}

// TestWriterFails: an error of the Writer ends it, and leaves nothing behind.
func TestWriterFails(t *testing.T) {
	mine := errors.New("mine")
	dir := t.TempDir()
	for _, c := range []struct {
		name string
		opt  Options
		want error
	}{
		{"Done", Options{Dir: dir, Done: func(p Pack) error { return errors.Join(mine, os.Remove(p.Path)) }}, mine},
		{"Dir", Options{Dir: filepath.Join(dir, "none")}, os.ErrNotExist},
	} {
		w := NewWriter(c.opt)
		add(t, w, noise(1, 1<<20))
		if _, err := w.Close(t.Context()); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", c.name, err)
		}
		if _, _, _, err := w.Add(t.Context(), bytes.NewReader([]byte("x"))); !errors.Is(err, c.want) {
			t.Errorf("%s: then %v", c.name, err)
		}
		w.Abort()
	}
	if names := left(t, dir); len(names) != 0 {
		t.Errorf("%v are left", names)
	}
}

// TestFileFails: a file that cannot be read is that file's matter, whether it was read in one go or in parts.
func TestFileFails(t *testing.T) {
	s := newStore()
	mine := errors.New("mine")
	w := NewWriter(Options{Dir: t.TempDir(), Done: s.done})
	defer w.Abort()
	for _, n := range []int{0, 100, smallFile, 1 << 20, CutAbove + 2_000_000} {
		_, _, _, err := w.Add(t.Context(), io.MultiReader(bytes.NewReader(noise(1, n)), iotest.ErrReader(mine)))
		if !errors.Is(err, mine) {
			t.Errorf("%d bytes: %v", n, err)
		}
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(mine)
	if _, _, _, err := w.Add(ctx, zeros{}); !errors.Is(err, mine) {
		t.Error(err)
	}
	whole := add(t, w, noise(1, CutAbove+2_000_000)) // the parts that were packed before are those of this one
	where, err := w.Close(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := fetch(t, s.open, pieces(t, where, []stored{whole}), 2); err != nil {
		t.Error(err)
	}
	if s.size() > CutAbove+2_000_000+1000 {
		t.Errorf("%d bytes in packs", s.size())
	}
}

// TestEnd: after Close and Abort a Writer says that it has ended; Close ends with its ctx.
func TestEnd(t *testing.T) {
	dir := t.TempDir()
	s := newStore()
	closed, aborted, called := NewWriter(Options{Dir: dir, Done: s.done}), NewWriter(Options{Dir: dir, Done: s.done}), NewWriter(Options{Dir: dir, Done: s.done})
	for _, w := range []*Writer{closed, aborted, called} {
		add(t, w, noise(1, 1<<20))
		add(t, w, noise(2, 1<<10))
	}
	if _, err := closed.Close(t.Context()); err != nil || len(s.packs) != 1 {
		t.Error(err)
	}
	closed.Abort()
	aborted.Abort()
	aborted.Abort()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := called.Close(ctx); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	for _, w := range []*Writer{closed, aborted, called} {
		if _, _, _, err := w.Add(t.Context(), bytes.NewReader([]byte("y"))); err == nil {
			t.Error("added after the end")
		}
		if _, err := w.Close(t.Context()); err == nil {
			t.Error("closed twice")
		}
	}
	if names := left(t, dir); len(names) != 0 {
		t.Errorf("%v are left", names)
	}
}

// TestWaits: where packs are not taken over, no more is read than fits into memory and the packs that wait; who waits can be called
// off, and so can the Writer.
func TestWaits(t *testing.T) {
	dir := t.TempDir()
	stuck := make(chan struct{})
	w := NewWriter(Options{Dir: dir, Done: func(p Pack) error { <-stuck; return os.Remove(p.Path) }})
	w.full = 8 << 20
	var read atomic.Int64
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	var failed atomic.Int64
	block := noise(99, 3<<20)
	for g := range 8 {
		ctx := ctx
		if g < 4 {
			ctx = t.Context()
		}
		wg.Go(func() {
			for i := 0; ; i++ {
				head := []byte{byte(g), byte(i), byte(i >> 8)}
				_, n, _, err := w.Add(ctx, io.MultiReader(bytes.NewReader(head), bytes.NewReader(block)))
				if err != nil {
					failed.Add(1)
					return
				}
				read.Add(n)
			}
		})
	}
	for end := time.Now().Add(30 * time.Second); read.Load() < 3*w.full && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
	for last := int64(-1); last != read.Load(); {
		last = read.Load()
		time.Sleep(200 * time.Millisecond)
	}
	if n := read.Load(); n < 3*w.full || n > 3*w.full+(40<<20) {
		t.Errorf("%d MiB were read before the Writer waited", n>>20)
	}
	cancel()
	for end := time.Now().Add(20 * time.Second); failed.Load() < 4 && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
	if n := failed.Load(); n != 4 {
		t.Errorf("%d of those who were called off, and only they, should have given up", n)
	}
	time.AfterFunc(50*time.Millisecond, func() { close(stuck) })
	w.Abort()
	wg.Wait()
	if names := left(t, dir); len(names) != 0 {
		t.Errorf("%v are left", names)
	}
}

package pack

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"

	"larder/internal/key"
	"larder/internal/remote"
)

// blob opens ranges of one pack's bytes, whatever the pack is called.
func blob(b []byte) Opener {
	return func(_ context.Context, _ key.Digest, off, n int64) (io.ReadCloser, error) {
		off = min(off, int64(len(b)))
		return io.NopCloser(bytes.NewReader(b[off:min(off+n, int64(len(b)))])), nil
	}
}

// damaged fails where err is neither nil nor one that says which pack is damaged.
func damaged(t testing.TB, err error, pack key.Digest) {
	t.Helper()
	if err != nil && (!errors.Is(err, remote.ErrDamaged) || !strings.Contains(err.Error(), pack.String())) {
		t.Errorf("%v: not damage of %s", err, pack)
	}
}

// TestFlippedAndCutShort changes each byte of a pack, and ends it at each: Fetch gives the right bytes or says that it is damaged.
func TestFlippedAndCutShort(t *testing.T) {
	s := newStore()
	files := [][]byte{text(1, 1000), noise(1, 300), bytes.Repeat([]byte("ab"), 3000), []byte("x")}
	list, where := save(t, s, nil, files...)
	want := pieces(t, where, list)
	name := s.order[0]
	whole := s.packs[name]
	if len(s.order) != 1 || len(whole) > 2000 {
		t.Fatalf("%d packs, %d bytes", len(s.order), len(whole))
	}
	silent := 0
	r := rand.New(rand.NewPCG(4, 4))
	for at := range whole {
		b := bytes.Clone(whole)
		b[at] ^= byte(1 + r.IntN(255))
		_, err := fetch(t, blob(b), want, 1)
		damaged(t, err, name)
		if err == nil {
			silent++
		}
	}
	if silent > len(whole)/50 { // some bits of zstd's headers say nothing
		t.Errorf("%d of %d changes did no harm", silent, len(whole))
	}
	for n := 0; n < len(whole); n++ {
		_, err := fetch(t, blob(whole[:n]), want, 1)
		if damaged(t, err, name); err == nil {
			t.Errorf("%d of %d bytes were enough", n, len(whole))
		}
	}
}

// TestAbsurdNumbers: pieces that no Writer gives are refused before anything is asked for.
func TestAbsurdNumbers(t *testing.T) {
	good := Piece{Digest: key.Bytes([]byte("d")), Size: 10, Pack: key.Bytes([]byte("p")), Frame: Frame{Offset: 100, Length: 50, Raw: 60}, Offset: 50}
	if err := good.check(); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(p *Piece){
		"no digest":             func(p *Piece) { p.Digest = key.Digest{} },
		"no pack":               func(p *Piece) { p.Pack = key.Digest{} },
		"no size":               func(p *Piece) { p.Size = 0 },
		"negative size":         func(p *Piece) { p.Size = -1 },
		"size out of frame":     func(p *Piece) { p.Size = 11 },
		"huge size":             func(p *Piece) { p.Size = math.MaxInt64 },
		"negative place":        func(p *Piece) { p.Offset = -1 },
		"place out of frame":    func(p *Piece) { p.Offset = 51 },
		"huge place":            func(p *Piece) { p.Offset = math.MaxInt64 },
		"no frame":              func(p *Piece) { p.Frame = Frame{} },
		"frame of nothing":      func(p *Piece) { p.Frame.Length = 0 },
		"negative frame":        func(p *Piece) { p.Frame.Length = -50 },
		"huge frame":            func(p *Piece) { p.Frame.Length = math.MaxInt64 },
		"frame before pack":     func(p *Piece) { p.Frame.Offset = -1 },
		"frame behind any pack": func(p *Piece) { p.Frame.Offset = math.MaxInt64 },
		"negative raw":          func(p *Piece) { p.Frame.Raw = -1 },
		"huge raw":              func(p *Piece) { p.Frame.Raw = maxRaw + 1 },
		"frames overlap":        func(p *Piece) { p.Digest[0]++; p.Frame.Offset++ },
		"frames differ":         func(p *Piece) { p.Digest[0]++; p.Frame.Raw++ },
		"same digest, other":    func(p *Piece) { p.Size-- },
	} {
		bad := good
		change(&bad)
		asked := func(context.Context, key.Digest, int64, int64) (io.ReadCloser, error) {
			t.Errorf("%s: asked for", name)
			return nil, io.EOF
		}
		_, err := fetch(t, asked, []Piece{good, bad}, 2)
		if damaged(t, err, bad.Pack); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// TestWrongNumbers: numbers that could be right but are not.
func TestWrongNumbers(t *testing.T) {
	s := newStore()
	list, where := save(t, s, nil, text(1, 3000), text(2, 3000))
	all := pieces(t, where, list)
	for name, change := range map[string]func(p *Piece){
		"another place":  func(p *Piece) { p.Offset++ },
		"shorter":        func(p *Piece) { p.Size-- },
		"raw too small":  func(p *Piece) { p.Frame.Raw = p.Offset + p.Size; p.Frame.Raw--; p.Size--; p.Offset = 0 },
		"raw too large":  func(p *Piece) { p.Frame.Raw++ },
		"frame too long": func(p *Piece) { p.Frame.Length++ },
		"frame cut":      func(p *Piece) { p.Frame.Length-- },
		"frame moved":    func(p *Piece) { p.Frame.Offset++; p.Frame.Length-- },
		"digest":         func(p *Piece) { p.Digest[5]++ },
	} {
		bad := all[0]
		change(&bad)
		_, err := fetch(t, s.open, []Piece{bad}, 1)
		if damaged(t, err, bad.Pack); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// TestBomb: a frame that would be far more than it says stops where its piece says that it ends.
func TestBomb(t *testing.T) {
	var b bytes.Buffer
	enc, err := zstd.NewWriter(&b, zstd.WithEncoderCRC(false))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.CopyN(enc, zeros{}, 64<<20); err != nil {
		t.Fatal(err)
	}
	if err := enc.Close(); err != nil {
		t.Fatal(err)
	}
	p := Piece{Digest: key.Bytes(make([]byte, 100)), Size: 100, Pack: key.Bytes(b.Bytes()), Frame: Frame{Length: int64(b.Len()), Raw: 1 << 20}}
	_, err = fetch(t, blob(b.Bytes()), []Piece{p}, 1)
	if damaged(t, err, p.Pack); err == nil {
		t.Error("no error")
	}
}

// FuzzFetch: whatever pieces say and packs hold, what comes is right or an error.
func FuzzFetch(f *testing.F) {
	s := newStore()
	list, where := save(f, s, nil, text(1, 300), noise(1, 100))
	a, b := where[list[0].digest], where[list[1].digest]
	pack := s.packs[s.order[0]]
	f.Add(pack, b.Size, b.Frame.Offset, b.Frame.Length, b.Frame.Raw, b.Offset)
	f.Add(pack, int64(-1), int64(math.MaxInt64), int64(math.MinInt64), int64(1)<<40, int64(math.MaxInt64))
	f.Add([]byte("\x28\xb5\x2f\xfd\xe0\xff\xff\xff\xff\xff\xff\xff\xff"), int64(1), int64(0), int64(13), int64(maxRaw), int64(0))
	f.Fuzz(func(t *testing.T, pack []byte, size, frameOff, length, raw, off int64) {
		p := Piece{Digest: b.Digest, Size: size, Pack: b.Pack, Frame: Frame{frameOff, length, raw}, Offset: off}
		_, err := fetch(t, blob(pack), []Piece{a, p, a}, 2)
		damaged(t, err, a.Pack)
	})
}

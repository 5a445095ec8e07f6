package pack

import (
	"bytes"
	"io"
	"maps"
	"slices"
	"testing"
	"testing/iotest"

	"larder/internal/key"
)

// TestCutsStay: where files are cut is part of the format. A library that cuts elsewhere would make every user upload everything again.
func TestCutsStay(t *testing.T) {
	for _, c := range []struct {
		data []byte
		want []int64
	}{
		{noise(7, 12<<20), []int64{1305758, 962872, 1144749, 1489226, 785889, 1609986, 710724, 1188340, 1094011, 1654560, 636797}},
		{make([]byte, 9<<20), []int64{4 << 20, 4 << 20, 1 << 20}},
	} {
		s := newStore()
		list, _ := save(t, s, nil, c.data)
		var got []int64
		for _, r := range list[0].refs {
			got = append(got, r.Size)
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("cut into %v, not %v", got, c.want)
		}
	}
}

// TestReads: how many bytes a reader gives at a time changes nothing.
func TestReads(t *testing.T) {
	b := noise(8, CutAbove+3_000_000)
	s := newStore()
	want, _ := save(t, s, nil, b)
	w := NewWriter(Options{Dir: t.TempDir(), Done: s.done})
	defer w.Abort()
	for _, r := range []io.Reader{iotest.HalfReader(bytes.NewReader(b)), iotest.DataErrReader(bytes.NewReader(b)), &crumbs{b: b}} {
		d, n, refs, err := w.Add(t.Context(), r)
		if err != nil || d != want[0].digest || n != int64(len(b)) || !slices.Equal(refs, want[0].refs) {
			t.Errorf("%s of %d bytes in %v, %v", d, n, refs, err)
		}
	}
}

// crumbs gives a few bytes at a time, a different number each time.
type crumbs struct {
	b []byte
	n int
}

func (c *crumbs) Read(p []byte) (int, error) {
	if len(c.b) == 0 {
		return 0, io.EOF
	}
	c.n = (c.n*31 + 7) % 70_001
	n := copy(p[:min(len(p), c.n+1)], c.b)
	c.b = c.b[n:]
	return n, nil
}

// TestInsertion: bytes that get into the middle of a large file send a few pieces again, not all.
func TestInsertion(t *testing.T) {
	old := noise(9, 12<<20)
	middle := len(old) / 2
	s := newStore()
	_, have := save(t, s, nil, old)
	for _, c := range []struct {
		name string
		now  []byte
	}{
		{"inserted", slices.Concat(old[:middle], []byte("some more"), old[middle:])},
		{"removed", slices.Concat(old[:middle], old[middle+5000:])},
		{"overwritten", slices.Concat(old[:middle], make([]byte, 100), old[middle+100:])},
		{"appended", slices.Concat(old, []byte("some more"))},
		{"put in front", slices.Concat([]byte("some more"), old)},
	} {
		before := s.size()
		list, where := save(t, s, maps.Clone(have), c.now)
		again := 0
		for _, r := range list[0].refs {
			if _, ok := have[r.Digest]; !ok {
				again++
			}
		}
		if more := s.size() - before; again == 0 || again > 3 || more > 4<<20 || len(list[0].refs) < 8 {
			t.Errorf("%s: %d of %d pieces are sent again, %d bytes", c.name, again, len(list[0].refs), more)
		}
		if len(where) != len(list[0].refs) {
			t.Errorf("%s: %d of %d pieces are somewhere", c.name, len(where), len(list[0].refs))
		}
	}
}

// TestSparse: a large file of nothing is hardly anything in a pack.
func TestSparse(t *testing.T) {
	s := newStore()
	w := NewWriter(Options{Dir: t.TempDir(), Done: s.done})
	d, n, refs, err := w.Add(t.Context(), io.LimitReader(zeros{}, 60<<20))
	if err != nil || n != 60<<20 || len(refs) != 15 {
		t.Fatalf("%s of %d bytes in %d pieces, %v", d, n, len(refs), err)
	}
	where, err := w.Close(t.Context())
	if err != nil || len(where) != 1 || s.size() > 2000 {
		t.Errorf("%d pieces in %d bytes, %v", len(where), s.size(), err)
	}
	got, err := fetch(t, s.open, []Piece{where[refs[0].Digest]}, 1)
	if err != nil || key.Bytes(got[0]) != key.Bytes(make([]byte, 4<<20)) {
		t.Errorf("%d bytes, %v", len(got[0]), err)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

package pack

import (
	"bytes"
	"sync"
	"testing"

	"pgregory.net/rapid"

	"larder/internal/key"
)

// genFile draws a file: of any size that is treated in a way of its own, of bytes that compress or do not.
func genFile(t *rapid.T) []byte {
	n := rapid.OneOf(
		rapid.IntRange(0, 3000), rapid.IntRange(0, 3000), rapid.IntRange(0, 3000),
		rapid.IntRange(smallFile-2, smallFile+2),
		rapid.IntRange(shareBelow-2, shareBelow+2),
		rapid.IntRange(50_000, 700_000),
		rapid.OneOf(rapid.IntRange(1, 200_000), rapid.IntRange(1, 200_000), rapid.IntRange(CutAbove-1, CutAbove+2), rapid.IntRange(CutAbove, CutAbove+2*normalPiece)),
	).Draw(t, "size")
	seed := rapid.Uint64Range(0, 5).Draw(t, "seed") // few, so that some are equal, or begin alike
	switch rapid.IntRange(0, 2).Draw(t, "kind") {
	case 0:
		return make([]byte, n)
	case 1:
		return noise(seed, n)
	default:
		return bytes.Repeat(text(seed, 5000), n/5000+1)[:n]
	}
}

// TestRoundTrip packs random files from several goroutines, twice: what was stored the first time is not packed again. Everything can be
// fetched, and nothing lies anywhere twice.
func TestRoundTrip(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		s := newStore()
		have := map[key.Digest]Piece{}
		for range 2 {
			files := rapid.SliceOfN(rapid.Custom(genFile), 0, 5).Draw(rt, "files")
			before := len(s.packs)
			w := NewWriter(Options{Dir: t.TempDir(), Done: s.done, Have: func(d key.Digest) (Piece, bool) { p, ok := have[d]; return p, ok }})
			w.full = rapid.SampledFrom([]int64{1, 100_000, fullPack}).Draw(rt, "pack")
			list := make([]stored, len(files))
			var wg sync.WaitGroup
			workers := rapid.IntRange(1, 4).Draw(rt, "goroutines")
			for g := range workers {
				wg.Go(func() {
					for i := g; i < len(files); i += workers {
						list[i] = add(t, w, files[i])
					}
				})
			}
			wg.Wait()
			where, err := w.Close(t.Context())
			if err != nil {
				rt.Fatal(err)
			}

			distinct := map[key.Digest]int64{}
			for _, f := range list {
				for _, r := range f.refs {
					distinct[r.Digest] = r.Size
				}
			}
			if len(where) != len(distinct) {
				rt.Fatalf("%d places of %d pieces", len(where), len(distinct))
			}
			var made, raw int64
			frames := map[key.Digest]map[Frame]bool{}
			for d, size := range distinct {
				p := where[d]
				if old, ok := have[d]; ok {
					if p != old {
						rt.Fatalf("%s is at %+v, and was at %+v", d, p, old)
					}
					continue
				}
				made += size
				if frames[p.Pack] == nil {
					frames[p.Pack] = map[Frame]bool{}
				}
				if !frames[p.Pack][p.Frame] {
					frames[p.Pack][p.Frame] = true
					raw += p.Frame.Raw
				}
				have[d] = p
			}
			if made != raw {
				rt.Fatalf("%d bytes are new, and frames have %d", made, raw)
			}
			if made == 0 && len(s.packs) != before {
				rt.Fatal("a pack of nothing")
			}

			want := pieces(t, where, list)
			got, err := fetch(t, s.open, want, rapid.IntRange(0, 9).Draw(rt, "parallel"))
			if err != nil {
				rt.Fatal(err)
			}
			for i, f := range files {
				if n := len(list[i].refs); !bytes.Equal(bytes.Join(got[:n], nil), f) {
					rt.Fatalf("file %d of %d bytes came back as another", i, len(f))
				} else {
					got = got[n:]
				}
			}
			if t.Failed() {
				rt.FailNow()
			}
		}
	})
}

// TestSameAtOnce: what many goroutines add at the same moment is packed once.
func TestSameAtOnce(t *testing.T) {
	s := newStore()
	files := [][]byte{noise(1, 3_000_000), noise(2, 100), noise(3, 200_000), noise(4, CutAbove+1), noise(5, 400_000), noise(6, 70_000)}
	w := NewWriter(Options{Dir: t.TempDir(), Done: s.done})
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for _, f := range files {
				add(t, w, f)
			}
		})
	}
	wg.Wait()
	if _, err := w.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	most := int64(1000)
	for _, f := range files {
		most += int64(len(f))
	}
	if n := s.size(); n > most {
		t.Errorf("packs have %d bytes, the files %d", n, most)
	}
}

// TestSamePacks: the same files in the same order are the same packs, so that two jobs that made the same upload it once.
func TestSamePacks(t *testing.T) {
	files, _ := mount(3 << 20)
	a, b := newStore(), newStore()
	save(t, a, nil, files...)
	save(t, b, nil, files...)
	if len(a.order) != 1 || len(b.order) != 1 || a.order[0] != b.order[0] {
		t.Errorf("packs %v and %v", a.order, b.order)
	}
}

// TestFrames: small files share a frame in their order, large ones have one by themselves.
func TestFrames(t *testing.T) {
	s := newStore()
	var files [][]byte
	for i := range 20 {
		files = append(files, text(uint64(i), 60_000))
	}
	files = append(files, text(100, shareBelow), text(101, shareBelow-1))
	list, where := save(t, s, nil, files...)
	at := pieces(t, where, list)
	perFrame := map[Frame]int{}
	for _, p := range at {
		perFrame[p.Frame]++
	}
	// 9 of 60,000 bytes fill 512 KiB; the last two and 256 KiB - 1 are what is left in the end.
	if n := perFrame[at[0].Frame]; n != 9 || perFrame[at[9].Frame] != 9 || perFrame[at[18].Frame] != 3 || perFrame[at[20].Frame] != 1 {
		t.Errorf("frames have %v", perFrame)
	}
	if at[21].Frame != at[18].Frame || at[21].Offset != 120_000 {
		t.Errorf("the last piece is at %+v", at[21])
	}
}

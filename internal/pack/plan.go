package pack

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"

	"larder/internal/key"
	"larder/internal/remote"
)

// Bounds of what Pieces say. A Writer stays far below.
const (
	maxRaw    = 8 << 20         // bytes of an unpacked frame
	maxLength = maxRaw + 64<<10 // bytes of a packed one
	maxPack   = int64(1) << 40  // bytes
)

// What the ranges of a Fetch look like, in bytes. A gap costs less than the request that it saves; a range of minSpan takes longer than
// its round trip on most links; and ranges end at maxSpan, so that all of them go on at the same time.
const (
	maxGap  = 128 << 10
	minSpan = 1 << 20
	maxSpan = 8 << 20
)

// check tells whether p can be what a Writer gave.
func (p Piece) check() error {
	f := p.Frame
	switch {
	case p.Digest.IsZero() || p.Pack.IsZero():
		return fmt.Errorf("pack %s: a piece without a name: %w", p.Pack, remote.ErrDamaged)
	case f.Raw <= 0 || f.Raw > maxRaw || f.Length <= 0 || f.Length > maxLength || f.Offset < 0 || f.Offset > maxPack-f.Length:
		return fmt.Errorf("pack %s: a frame of %d bytes at %d, %d when unpacked: %w", p.Pack, f.Length, f.Offset, f.Raw, remote.ErrDamaged)
	case p.Size <= 0 || p.Size > f.Raw || p.Offset < 0 || p.Offset > f.Raw-p.Size:
		return fmt.Errorf("pack %s: a piece of %d bytes at %d of a frame of %d: %w", p.Pack, p.Size, p.Offset, f.Raw, remote.ErrDamaged)
	}
	return nil
}

// span is a range of a pack: one request.
type span struct {
	pack   key.Digest
	off, n int64
	frames []load
}

// load is a frame and what is wanted of it.
type load struct {
	Frame
	pieces []want
}

// want is a piece and the places in the list of pieces that it stands at.
type want struct {
	Piece
	at []int
}

// plan makes the fewest ranges that keep `parallel` of them busy to the end. Of a digest that is named several times, one piece is read.
// Frames that reach into each other are an error: no Writer made them, and each could cost as much as a whole one.
func plan(pieces []Piece, parallel int) ([]span, error) {
	wants, err := distinct(pieces)
	if err != nil {
		return nil, err
	}
	var spans []span
	for _, w := range wants {
		if s := last(spans); s != nil && s.pack == w.Pack {
			if f := last(s.frames); f.Frame == w.Frame {
				f.pieces = append(f.pieces, w)
				continue
			}
			if s.off+s.n > w.Frame.Offset {
				return nil, fmt.Errorf("pack %s: the frame at %d reaches into the one before it: %w", w.Pack, w.Frame.Offset, remote.ErrDamaged)
			}
		}
		spans = append(spans, span{w.Pack, w.Frame.Offset, w.Frame.Length, []load{{w.Frame, []want{w}}}})
	}
	return joined(spans, parallel), nil
}

// joined makes ranges of several frames of spans, which have one each and are sorted.
func joined(spans []span, parallel int) []span {
	var total int64
	for _, s := range spans {
		total += s.n
	}
	width := int64(parallel)
	rounds := (total + width*maxSpan - 1) / (width * maxSpan)
	enough := max(total/max(rounds*width, 1), minSpan)
	out := spans[:0]
	for _, s := range spans {
		if l := last(out); l != nil && l.pack == s.pack && l.n < enough && s.off-l.off-l.n <= maxGap && s.off+s.n-l.off <= maxSpan {
			l.n = s.off + s.n - l.off
			l.frames = append(l.frames, s.frames...)
			continue
		}
		out = append(out, s)
	}
	return out
}

// distinct gives every digest once, by place.
func distinct(pieces []Piece) ([]want, error) {
	wants := make([]want, 0, len(pieces))
	seen := make(map[key.Digest]int, len(pieces))
	for i, p := range pieces {
		if err := p.check(); err != nil {
			return nil, err
		}
		j, ok := seen[p.Digest]
		if !ok {
			j = len(wants)
			seen[p.Digest] = j
			wants = append(wants, want{Piece: p})
		}
		if wants[j].Size != p.Size {
			return nil, fmt.Errorf("pack %s: piece %s has %d bytes here and %d elsewhere: %w", p.Pack, p.Digest, p.Size, wants[j].Size, remote.ErrDamaged)
		}
		wants[j].at = append(wants[j].at, i)
	}
	slices.SortFunc(wants, func(a, b want) int {
		return cmp.Or(bytes.Compare(a.Pack[:], b.Pack[:]), cmp.Compare(a.Frame.Offset, b.Frame.Offset),
			cmp.Compare(a.Frame.Length, b.Frame.Length), cmp.Compare(a.Frame.Raw, b.Frame.Raw), cmp.Compare(a.Offset, b.Offset))
	})
	return wants, nil
}

func last[T any](list []T) *T {
	if len(list) == 0 {
		return nil
	}
	return &list[len(list)-1]
}

package generation

import (
	"bytes"
	"cmp"
	"fmt"
	"math"
	"slices"

	"larder/internal/key"
	"larder/internal/pack"
	"larder/internal/tree"
)

// content is what a segment says the pieces of.
type content struct {
	digest key.Digest
	size   int64 // bytes
}

// contentsOf lists the contents of a tree's files in the order of Walk, each once, empty ones left out. One digest with two sizes is
// an error.
func contentsOf(root *tree.Node) ([]content, error) {
	var out []content
	sizes := map[key.Digest]int64{}
	err := pair(root, nil, func(path []byte, n, _ *tree.Node) error {
		if n.Kind != tree.File || n.Size == 0 {
			return nil
		}
		size, seen := sizes[n.Content]
		if !seen {
			sizes[n.Content] = n.Size
			out = append(out, content{n.Content, n.Size})
		} else if size != n.Size {
			return fmt.Errorf("%.80q has %d bytes of a content that has %d", path, n.Size, size)
		}
		return nil
	})
	return out, err
}

// checkPieces says what is wrong with the pieces of a content.
func checkPieces(c content, pieces []pack.Piece) error {
	left := c.size
	for _, p := range pieces {
		f := p.Frame
		switch {
		case f.Offset < 0 || f.Length <= 0 || f.Offset > math.MaxInt64-f.Length || f.Raw <= 0:
			return fmt.Errorf("a frame of %d bytes at %d, %d unpacked", f.Length, f.Offset, f.Raw)
		case p.Size <= 0 || p.Offset < 0 || p.Offset > f.Raw-p.Size:
			return fmt.Errorf("a piece of %d bytes at %d in a frame of %d", p.Size, p.Offset, f.Raw)
		case p.Size > left:
			return fmt.Errorf("pieces of more than %d bytes for %s", c.size, c.digest)
		}
		left -= p.Size
	}
	if left != 0 {
		return fmt.Errorf("pieces of %d of %d bytes for %s", c.size-left, c.size, c.digest)
	}
	return nil
}

// frame is a pack's frame, the pack by its number.
type frame struct {
	pack int
	pack.Frame
}

func compareFrames(a, b frame) int {
	return cmp.Or(cmp.Compare(a.pack, b.pack), cmp.Compare(a.Offset, b.Offset), cmp.Compare(a.Length, b.Length), cmp.Compare(a.Raw, b.Raw))
}

// addPieces writes where the pieces of contents are.
func (s *columns) addPieces(list []content, pieces map[key.Digest][]pack.Piece) error {
	used := map[key.Digest]bool{}
	for _, c := range list {
		if err := checkPieces(c, pieces[c.digest]); err != nil {
			return err
		}
		for _, p := range pieces[c.digest] {
			used[p.Pack] = true
		}
	}
	packs := map[key.Digest]int{}
	for i, d := range sortedDigests(used) {
		packs[d] = i
		s[colPacks].addDigest(d)
	}
	numbers := s.addFrames(list, pieces, packs)
	last, ends := 0, make([]int64, len(numbers))
	for _, c := range list {
		whole := isWhole(c, pieces[c.digest])
		if whole {
			s[colCounts].addUint(0)
		} else {
			s[colCounts].addUint(uint64(len(pieces[c.digest])))
		}
		for _, p := range pieces[c.digest] {
			at := numbers[frame{packs[p.Pack], p.Frame}]
			s[colAt].addInt(int64(at - last))
			s[colOffsets].addInt(p.Offset - ends[at])
			last, ends[at] = at, p.Offset+p.Size
			if !whole {
				s[colSizes].addUint(uint64(p.Size))
				s[colDigests].addDigest(p.Digest)
			}
		}
	}
	return nil
}

func isWhole(c content, pieces []pack.Piece) bool {
	return len(pieces) == 1 && pieces[0].Digest == c.digest
}

// addFrames writes the frames that pieces are in, and numbers them.
func (s *columns) addFrames(list []content, pieces map[key.Digest][]pack.Piece, packs map[key.Digest]int) map[frame]int {
	numbers := map[frame]int{}
	var frames []frame
	for _, c := range list {
		for _, p := range pieces[c.digest] {
			f := frame{packs[p.Pack], p.Frame}
			if _, seen := numbers[f]; !seen {
				numbers[f] = 0
				frames = append(frames, f)
			}
		}
	}
	slices.SortFunc(frames, compareFrames)
	perPack := make([]uint64, len(packs))
	end := int64(0)
	for i, f := range frames {
		numbers[f] = i
		if perPack[f.pack] == 0 {
			end = 0
		}
		perPack[f.pack]++
		s[colGaps].addInt(f.Offset - end)
		s[colLengths].addUint(uint64(f.Length))
		s[colRaws].addUint(uint64(f.Raw))
		end = f.Offset + f.Length
	}
	for _, n := range perPack {
		s[colFrames].addUint(n)
	}
	return numbers
}

// packs reads the column of that name.
func (s *columns) packs() ([]key.Digest, error) {
	var out []key.Digest
	for s[colPacks].more() {
		d := s[colPacks].digest()
		if n := len(out); n > 0 && bytes.Compare(out[n-1][:], d[:]) >= 0 {
			return nil, damaged("packs out of order")
		}
		out = append(out, d)
	}
	return out, s.end(colPacks)
}

// located is a frame and the pack that it is in.
type located struct {
	pack  key.Digest
	frame pack.Frame
	end   int64 // of the last piece in it
}

func (s *columns) frames() ([]located, error) {
	packs, err := s.packs()
	if err != nil {
		return nil, err
	}
	var out []located
	for _, d := range packs {
		end := int64(0)
		for range s[colFrames].count(len(s[colRaws].buf)) {
			f := pack.Frame{Offset: end + s[colGaps].int(), Length: s[colLengths].length(), Raw: s[colRaws].length()}
			end = f.Offset + f.Length
			out = append(out, located{pack: d, frame: f})
		}
	}
	return out, s.end(colFrames, colGaps, colLengths, colRaws)
}

// pieces reads the pieces of the contents that the segment's tree has, and of those moved.
func (s *columns) pieces(list []content) (map[key.Digest][]pack.Piece, error) {
	frames, err := s.frames()
	if err != nil {
		return nil, err
	}
	moved := &s[colMoved]
	for moved.more() {
		list = append(list, content{moved.digest(), moved.length()})
	}
	out := make(map[key.Digest][]pack.Piece, len(list))
	last := 0
	for _, c := range list {
		count := s[colCounts].count(len(s[colAt].buf))
		whole := count == 0
		if whole {
			count = 1
		}
		pieces := make([]pack.Piece, 0, count)
		for range count {
			at := int64(last) + s[colAt].int()
			if at < 0 || at >= int64(len(frames)) {
				return nil, damaged("a piece in a frame that is not there")
			}
			last = int(at)
			f := &frames[at]
			p := pack.Piece{Digest: c.digest, Size: c.size, Pack: f.pack, Frame: f.frame, Offset: f.end + s[colOffsets].int()}
			if !whole {
				p.Size, p.Digest = s[colSizes].length(), s[colDigests].digest()
			}
			f.end = p.Offset + p.Size
			pieces = append(pieces, p)
		}
		if err := checkPieces(c, pieces); err != nil {
			return nil, damaged("%v", err)
		}
		out[c.digest] = pieces
	}
	return out, s.end(colMoved, colCounts, colAt, colOffsets, colSizes, colDigests)
}

// SegmentPacks lists the packs that a segment names, sorted: those that have to live as long as it does.
func SegmentPacks(segment []byte) ([]key.Digest, error) {
	s, err := openColumns(segment)
	if err != nil {
		return nil, err
	}
	return s.packs()
}

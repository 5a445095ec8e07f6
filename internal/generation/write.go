package generation

import (
	"bytes"
	"fmt"
	"slices"

	"larder/internal/key"
	"larder/internal/pack"
	"larder/internal/tree"
)

// What the column ledger begins with.
const (
	ledgerNone  = 0
	ledgerSame  = 1
	ledgerLayer = 2
)

// Full gives a segment that says all of g: the first of a row. Equal generations give equal bytes. A file whose pieces are not all there is
// an error, and so is one that no machine could restore, for its path's length.
func Full(g *Generation) ([]byte, error) {
	v, err := viewOf(g)
	if err != nil {
		return nil, fmt.Errorf("write cache mount: %w", err)
	}
	return segment(nothing(), v, nil, g.Pieces)
}

// Delta gives the segment that makes `to` of `from`. It says where the contents are of all files that it adds or changes, so that it may
// stand behind other segments than those that make `from`. Errors are as for Full.
func Delta(from, to *Generation) ([]byte, error) {
	a, err := viewOf(from)
	if err != nil {
		return nil, fmt.Errorf("write cache mount: what it was: %w", err)
	}
	b, err := viewOf(to)
	if err != nil {
		return nil, fmt.Errorf("write cache mount: %w", err)
	}
	return segment(a, b, from.Pieces, to.Pieces)
}

func segment(a, b *view, had, has map[key.Digest][]pack.Piece) ([]byte, error) {
	s := &columns{}
	s[colStates].buf = slices.Concat(a.state[:], b.state[:])
	if err := s.addTree(a, b, had, has); err != nil {
		return nil, fmt.Errorf("write cache mount: %w", err)
	}
	s.addIdle(b.idle)
	if err := s.addLedger(a.ledger, b.ledger); err != nil {
		return nil, fmt.Errorf("write cache mount: ledger: %w", err)
	}
	blob, err := s.blob()
	if err != nil {
		return nil, fmt.Errorf("write cache mount: %w", err)
	}
	return blob, nil
}

// addTree writes what differs of the files, and where their contents are.
func (s *columns) addTree(a, b *view, had, has map[key.Digest][]pack.Piece) error {
	touched, err := touches(a.tree, b.tree)
	if err != nil {
		return err
	}
	ordinal, mtime := 0, int64(0)
	for _, t := range touched {
		s[colTouched].addUint(uint64(t.ordinal - ordinal))
		s[colTimes].addInt(t.mtime - mtime)
		ordinal, mtime = t.ordinal, t.mtime
	}
	middle, err := retimed(a.tree, touched)
	if err != nil {
		return err
	}
	layer, err := tree.Diff(middle, b.tree)
	if err != nil {
		return err
	}
	if s[colTree].buf, err = encoded(layer); err != nil {
		return err
	}
	list, err := contentsOf(layer)
	if err != nil {
		return err
	}
	inLayer := make(map[key.Digest]bool, len(list))
	for _, c := range list {
		inLayer[c.digest] = true
	}
	all, err := contentsOf(b.tree)
	if err != nil {
		return err
	}
	for _, c := range all {
		if !inLayer[c.digest] && !slices.Equal(had[c.digest], has[c.digest]) {
			list = append(list, c)
			s[colMoved].addDigest(c.digest)
			s[colMoved].addUint(uint64(c.size))
		}
	}
	return s.addPieces(list, has)
}

func encoded(root *tree.Node) ([]byte, error) {
	var buf bytes.Buffer
	err := tree.Encode(&buf, root)
	return buf.Bytes(), err
}

func (s *columns) addIdle(counts []int) {
	for len(counts) > 0 {
		run := 1
		for run < len(counts) && counts[run] == counts[0] {
			run++
		}
		s[colIdles].addUint(uint64(counts[0]))
		s[colRuns].addUint(uint64(run))
		counts = counts[run:]
	}
}

func (s *columns) addLedger(a, b *tree.Node) error {
	col := &s[colLedger]
	if b == nil {
		col.buf = []byte{ledgerNone}
		return nil
	}
	if a == b {
		col.buf = []byte{ledgerSame}
		return nil
	}
	layer, err := tree.Diff(orEmpty(a), b)
	if err != nil {
		return err
	}
	blob, err := encoded(layer)
	if err != nil {
		return err
	}
	col.buf = append([]byte{ledgerLayer}, blob...)
	return nil
}

func orEmpty(n *tree.Node) *tree.Node {
	if n == nil {
		return tree.Empty()
	}
	return n
}

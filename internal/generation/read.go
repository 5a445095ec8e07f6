package generation

import (
	"bytes"
	"fmt"
	"maps"

	"larder/internal/key"
	"larder/internal/pack"
	"larder/internal/tree"
)

// Bounds on a row: its segments, and how often files are looked at, in all views of them.
const (
	maxSegments = 1 << 12
	maxWork     = 1 << 28
)

// Read gives what a row of segments makes, in order. All of it is in memory. A segment that was not made of what stands before it (two
// builds began with the same row and wrote theirs one behind the other) is united with it: what either has stays, what the later one changed
// or touched is as it says, and a file that both know counts as idle as the lesser of them says. Damage is an error that wraps
// tree.ErrDamaged.
func Read(segments [][]byte) (*Generation, error) { return read(segments, false) }

// ReadOne is Read for a mount that is not united: a segment that was not made of what stands before it is damage.
func ReadOne(segments [][]byte) (*Generation, error) { return read(segments, true) }

func read(segments [][]byte, one bool) (*Generation, error) {
	if len(segments) > maxSegments {
		return nil, fmt.Errorf("read cache mount: %w", damaged("%d segments", len(segments)))
	}
	r := &reader{one: one, now: nothing(), pieces: map[key.Digest][]pack.Piece{}}
	r.views = map[state]*view{r.now.state: r.now}
	for i, blob := range segments {
		if err := r.segment(blob); err != nil {
			return nil, fmt.Errorf("read cache mount: segment %d of %d: %w", i+1, len(segments), err)
		}
	}
	g, err := r.generation()
	if err != nil {
		return nil, fmt.Errorf("read cache mount: %w", err)
	}
	return g, nil
}

type reader struct {
	one    bool // no segments of several writers
	now    *view
	views  map[state]*view // all that segments may have been made of
	pieces map[key.Digest][]pack.Piece
	nodes  int // read so far
	work   int // files looked at so far
}

// change is what a segment says, its pieces aside.
type change struct {
	from, to state
	layer    *tree.Node
	*columns
}

func (r *reader) segment(blob []byte) error {
	s, err := openColumns(blob)
	if err != nil {
		return err
	}
	c := &change{columns: s}
	copy(c.from[:], s[colStates].bytes(len(c.from)))
	copy(c.to[:], s[colStates].bytes(len(c.to)))
	if err := s.end(colStates); err != nil {
		return err
	}
	if c.layer, err = r.decode(s[colTree].buf); err != nil {
		return err
	}
	contents, err := contentsOf(c.layer)
	if err != nil {
		return damaged("%v", err)
	}
	pieces, err := s.pieces(contents)
	if err != nil {
		return err
	}
	maps.Copy(r.pieces, pieces)
	base, known := r.views[c.from]
	switch {
	case c.from == r.now.state:
		r.now, err = r.follow(r.now, c)
	case r.one || !known && len(r.views) == 1:
		return damaged("it does not go on from what stands before it")
	case known:
		r.now, err = r.unite(base, c)
	default:
		r.now, err = r.add(c)
	}
	if err != nil {
		return err
	}
	r.views[r.now.state] = r.now
	return nil
}

func (r *reader) decode(blob []byte) (*tree.Node, error) {
	n, err := tree.Decode(bytes.NewReader(blob), int64(len(blob)))
	if err != nil {
		return nil, err
	}
	count, err := check(n, true)
	if err != nil {
		return nil, damaged("%v", err)
	}
	if r.nodes += count; r.nodes > maxNodes {
		return nil, damaged("more than %d files", maxNodes)
	}
	return n, nil
}

// spend counts work and says when it becomes too much for what any honest row can be.
func (r *reader) spend(views ...*view) error {
	for _, v := range views {
		r.work += len(v.idle) + 1
	}
	if r.work > maxWork {
		return damaged("too many segments for so many files")
	}
	return nil
}

// follow makes the view that who wrote a segment had in the end.
func (r *reader) follow(base *view, c *change) (*view, error) {
	touched, err := c.touches(len(base.idle))
	if err != nil {
		return nil, err
	}
	middle, err := retimed(base.tree, touched)
	if err != nil {
		return nil, err
	}
	v := &view{state: c.to}
	if v.tree, err = tree.Apply(middle, c.layer); err != nil {
		return nil, err
	}
	if v.idle, err = c.idle(v.tree); err != nil {
		return nil, err
	}
	if v.ledger, err = r.ledger(&c.columns[colLedger], base.ledger); err != nil {
		return nil, err
	}
	return v, r.spend(base, v)
}

// touches reads which of count files were touched.
func (s *columns) touches(count int) ([]touch, error) {
	var out []touch
	last := touch{}
	for s[colTouched].more() {
		gap := s[colTouched].count(count)
		if gap == 0 && len(out) > 0 {
			return nil, damaged("a file touched twice")
		}
		last = touch{last.ordinal + gap, last.mtime + s[colTimes].int()}
		if last.ordinal >= count {
			return nil, damaged("a file touched that is not there")
		}
		out = append(out, last)
	}
	return out, s.end(colTouched, colTimes)
}

// idle reads the counts of a tree's files.
func (s *columns) idle(root *tree.Node) ([]int, error) {
	files := 0
	err := pair(root, nil, func([]byte, *tree.Node, *tree.Node) error {
		files++
		return nil
	})
	if err != nil {
		return nil, err
	}
	out := make([]int, 0, files)
	for s[colRuns].more() {
		count := s[colIdles].count(maxIdle)
		for range s[colRuns].count(files - len(out)) {
			out = append(out, count)
		}
	}
	if len(out) != files {
		return nil, damaged("counts of %d of %d files", len(out), files)
	}
	return out, s.end(colIdles, colRuns)
}

func (r *reader) ledger(col *column, before *tree.Node) (*tree.Node, error) {
	kind := col.bytes(1)
	if len(kind) == 0 || kind[0] > ledgerLayer || kind[0] != ledgerLayer && col.more() {
		return nil, damaged("ledger")
	}
	switch kind[0] {
	case ledgerNone:
		return nil, nil
	case ledgerSame:
		return before, nil
	}
	layer, err := r.decode(col.buf)
	if err != nil {
		return nil, err
	}
	return tree.Apply(orEmpty(before), layer)
}

// generation gives what was read in the end.
func (r *reader) generation() (*Generation, error) {
	g := &Generation{Tree: r.now.tree, Pieces: map[key.Digest][]pack.Piece{}, Idle: map[string]int{}, Ledger: r.now.ledger}
	at := 0
	err := pair(g.Tree, nil, func(path []byte, _, _ *tree.Node) error {
		if count := r.now.idle[at]; count > 0 {
			g.Idle[string(path)] = count
		}
		at++
		return nil
	})
	if err != nil {
		return nil, err
	}
	list, err := contentsOf(g.Tree)
	if err != nil {
		return nil, damaged("%v", err)
	}
	for _, c := range list {
		if err := checkPieces(c, r.pieces[c.digest]); err != nil {
			return nil, damaged("%v", err)
		}
		g.Pieces[c.digest] = r.pieces[c.digest]
	}
	return g, nil
}

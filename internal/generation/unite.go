package generation

import (
	"larder/internal/tree"
)

// unite lays what another writer made of base over what there is now. What he removed, or others did, stays as long as one of them has it:
// he may have used a file that they trimmed, and a cache where it is gone while another file that names it is there is a broken one.
func (r *reader) unite(base *view, c *change) (*view, error) {
	his, err := r.follow(base, c)
	if err != nil {
		return nil, err
	}
	r.views[his.state] = his
	changed, err := r.over(base, his, c.layer)
	if err != nil {
		return nil, err
	}
	v := &view{ledger: r.now.ledger}
	if v.tree, err = tree.Apply(his.tree, changed); err != nil {
		return nil, err
	}
	if v.idle, err = r.now.carried(v.tree); err != nil {
		return nil, err
	}
	theirs, err := his.carried(v.tree)
	if err != nil {
		return nil, err
	}
	for i, count := range theirs {
		if count != unknown && (v.idle[i] == unknown || count < v.idle[i]) {
			v.idle[i] = count
		}
	}
	if his.ledger != nil && his.ledger != base.ledger {
		layer, err := tree.Diff(orEmpty(base.ledger), his.ledger)
		if err != nil {
			return nil, err
		}
		if v.ledger, err = tree.Apply(orEmpty(r.now.ledger), layer); err != nil {
			return nil, err
		}
	}
	if err := r.spend(r.now, his, v, v); err != nil {
		return nil, err
	}
	return v, v.name()
}

// add lays a segment over what there is now of which nobody knows any more what it was made of: the row was written anew meanwhile.
// What it touched and counted cannot be told.
func (r *reader) add(c *change) (*view, error) {
	v := &view{ledger: r.now.ledger}
	var err error
	if v.tree, err = addition(r.now.tree, c.layer); err != nil {
		return nil, err
	}
	if v.idle, err = r.now.carried(v.tree); err != nil {
		return nil, err
	}
	for i, count := range v.idle {
		v.idle[i] = max(count, 0)
	}
	if err := r.spend(r.now, v); err != nil {
		return nil, err
	}
	return v, v.name()
}

// over gives what there is now with all that a segment adds, changes and touches.
func (r *reader) over(base, his *view, layer *tree.Node) (*tree.Node, error) {
	var touched []touch
	ordinal := 0
	was := map[string]*tree.Node{}
	err := pair(base.tree, his.tree, func(path []byte, x, y *tree.Node) error {
		if x != nil && y != nil && x.MTime != y.MTime && touchable(x, y) {
			was[string(path)] = y
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	err = pair(r.now.tree, nil, func(path []byte, x, _ *tree.Node) error {
		if y := was[string(path)]; y != nil && touchable(x, y) {
			touched = append(touched, touch{ordinal, y.MTime})
		}
		ordinal++
		return nil
	})
	if err != nil {
		return nil, err
	}
	middle, err := retimed(r.now.tree, touched)
	if err != nil {
		return nil, err
	}
	return addition(middle, layer)
}

// addition lays a layer over a tree without taking anything away.
func addition(n, layer *tree.Node) (*tree.Node, error) {
	added, err := tree.Apply(nil, layer)
	if err != nil {
		return nil, err
	}
	return tree.Apply(n, added)
}

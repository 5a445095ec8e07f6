package generation

import (
	"larder/internal/tree"
)

// walk is tree.Walk without making a string of each path. It is fn's only while it runs.
func walk(root *tree.Node, fn func(path []byte, n *tree.Node) error) error {
	return walkAt(make([]byte, 0, maxPath), root, fn)
}

func walkAt(path []byte, n *tree.Node, fn func(path []byte, n *tree.Node) error) error {
	if err := fn(path, n); err != nil {
		return err
	}
	list, err := n.Entries()
	if err != nil {
		return err
	}
	if len(path) > 0 {
		path = append(path, '/')
	}
	for _, e := range list {
		if err := walkAt(append(path, e.Name...), e.Node, fn); err != nil {
			return err
		}
	}
	return nil
}

// pair walks two trees side by side, either of which may be nil. It calls fn for everything that is no directory in one of them,
// in the order in which Walk finds it: with nil for the tree that does not have it there. The path is fn's only while it runs.
func pair(a, b *tree.Node, fn func(path []byte, a, b *tree.Node) error) error {
	return pairAt(make([]byte, 0, maxPath), a, b, fn)
}

func pairAt(path []byte, a, b *tree.Node, fn func(path []byte, a, b *tree.Node) error) error {
	if a == nil && b == nil {
		return nil
	}
	switch leafA, leafB := isLeaf(a), isLeaf(b); {
	case leafA && leafB:
		return fn(path, a, b)
	case leafA:
		if err := fn(path, a, nil); err != nil {
			return err
		}
		return pairAt(path, nil, b, fn)
	case leafB:
		if err := fn(path, nil, b); err != nil {
			return err
		}
		return pairAt(path, a, nil, fn)
	}
	ofA, err := entries(a)
	if err != nil {
		return err
	}
	ofB, err := entries(b)
	if err != nil {
		return err
	}
	if len(path) > 0 {
		path = append(path, '/')
	}
	for len(ofA) > 0 || len(ofB) > 0 {
		var name string
		var inA, inB *tree.Node
		if len(ofB) == 0 || len(ofA) > 0 && ofA[0].Name <= ofB[0].Name {
			name, inA = ofA[0].Name, ofA[0].Node
		}
		if len(ofA) == 0 || len(ofB) > 0 && ofB[0].Name <= ofA[0].Name {
			name, inB = ofB[0].Name, ofB[0].Node
		}
		if inA != nil {
			ofA = ofA[1:]
		}
		if inB != nil {
			ofB = ofB[1:]
		}
		if err := pairAt(append(path, name...), inA, inB, fn); err != nil {
			return err
		}
	}
	return nil
}

func isLeaf(n *tree.Node) bool { return n != nil && n.Kind != tree.Dir }

func entries(n *tree.Node) ([]tree.Entry, error) {
	if n == nil {
		return nil, nil
	}
	return n.Entries()
}

// touch is a file, by its ordinal, that has another mtime and is otherwise the same.
type touch struct {
	ordinal int
	mtime   int64
}

// touches finds what in b is the same as in a but for its mtime. Files with several names are left out: all of them would have to
// be named at once.
func touches(a, b *tree.Node) ([]touch, error) {
	var out []touch
	ordinal := 0
	err := pair(a, b, func(_ []byte, x, y *tree.Node) error {
		if x == nil {
			return nil
		}
		if y != nil && x.MTime != y.MTime && touchable(x, y) {
			out = append(out, touch{ordinal, y.MTime})
		}
		ordinal++
		return nil
	})
	return out, err
}

func touchable(x, y *tree.Node) bool { return x.Group == 0 && y.Group == 0 && x.Self() == y.Self() }

// retimed gives root with the mtimes of list, which is in order.
func retimed(root *tree.Node, list []touch) (*tree.Node, error) {
	if len(list) == 0 {
		return root, nil
	}
	r := &retimer{list: list}
	return r.node(root)
}

type retimer struct {
	next int     // the ordinal of the file that comes next
	list []touch // what is still to come
}

func (r *retimer) node(n *tree.Node) (*tree.Node, error) {
	if isLeaf(n) {
		if len(r.list) > 0 && r.list[0].ordinal == r.next {
			meta := n.Meta
			meta.MTime = r.list[0].mtime
			n = n.WithMeta(meta)
			r.list = r.list[1:]
		}
		r.next++
		return n, nil
	}
	was, err := n.Entries()
	if err != nil {
		return nil, err
	}
	var now []tree.Entry // nil while nothing differs
	for i, e := range was {
		if len(r.list) == 0 {
			break
		}
		c, err := r.node(e.Node)
		if err != nil {
			return nil, err
		}
		if c != e.Node && now == nil {
			now = append(make([]tree.Entry, 0, len(was)), was...)
		}
		if now != nil {
			now[i].Node = c
		}
	}
	if now == nil {
		return n, nil
	}
	return tree.NewDir(n.Meta, false, now)
}

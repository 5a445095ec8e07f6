package generation

import (
	"encoding/binary"
	"fmt"

	"larder/internal/key"
	"larder/internal/tree"
)

// Bounds on what a generation holds. The kernel takes no longer paths and names.
const (
	maxPath  = 4095
	maxName  = 255
	maxNodes = 4 << 20
)

// state names a generation by all that a segment made of it takes for granted: names, kinds, contents, mtimes, ledger. Counts are not
// part of it, as they go on where nothing is saved because only they differ.
type state [16]byte

// view is a generation as somebody who wrote a segment saw it.
type view struct {
	state  state
	tree   *tree.Node
	idle   []int // of what is no directory, in the order of Walk
	ledger *tree.Node
}

// nothing is the view of who begins with an empty mount.
func nothing() *view { return &view{tree: tree.Empty()} }

// viewOf reads a generation, and says where it is not one that can be written down.
func viewOf(g *Generation) (*view, error) {
	v := &view{tree: g.Tree, ledger: g.Ledger}
	if _, err := check(g.Tree, false); err != nil {
		return nil, err
	}
	if g.Ledger != nil {
		if _, err := check(g.Ledger, false); err != nil {
			return nil, fmt.Errorf("ledger: %w", err)
		}
	}
	err := pair(g.Tree, nil, func(path []byte, _, _ *tree.Node) error {
		v.idle = append(v.idle, max(0, min(g.Idle[string(path)], maxIdle)))
		return nil
	})
	if err != nil {
		return nil, err
	}
	return v, v.name()
}

// name sets the view's state.
func (v *view) name() error {
	h := key.New("larder.mount.state.v1")
	if err := addTree(h, v.tree); err != nil {
		return err
	}
	h.Bool(v.ledger != nil)
	if v.ledger != nil {
		if err := addTree(h, v.ledger); err != nil {
			return err
		}
	}
	sum := h.Sum()
	copy(v.state[:], sum[:])
	return nil
}

// addTree adds a tree and its mtimes, which its identity leaves out.
func addTree(h *key.Hasher, root *tree.Node) error {
	id, err := root.Identity()
	if err != nil {
		return err
	}
	var times []byte
	err = walk(root, func(_ []byte, n *tree.Node) error {
		times = binary.LittleEndian.AppendUint64(times, uint64(n.MTime))
		return nil
	})
	h.Digest(id).Raw(times)
	return err
}

// check goes through a whole tree, which also fetches it, and says where it is out of bounds, or something that a mount's tree, or a
// layer tree that Diff made, is not. It counts what is in it.
func check(root *tree.Node, layer bool) (count int, err error) {
	if root.Kind != tree.Dir {
		return 0, fmt.Errorf("the root is a %s", root.Kind)
	}
	err = walk(root, func(path []byte, n *tree.Node) error {
		if count++; count > maxNodes {
			return fmt.Errorf("more than %d files", maxNodes)
		}
		if len(path) > maxPath {
			return fmt.Errorf("a path of %d bytes, %.80q", len(path), path)
		}
		if n.Opaque || n.Implied || n.Kind == tree.Whiteout && !layer {
			return fmt.Errorf("%.80q is a layer's %s", path, n.Kind)
		}
		list, err := n.Entries()
		if err != nil {
			return err
		}
		for _, e := range list {
			if len(e.Name) > maxName {
				return fmt.Errorf("a name of %d bytes, %.80q", len(e.Name), e.Name)
			}
		}
		return nil
	})
	return count, err
}

// unknown is what carried gives for a file that was not there.
const unknown = -1

// carried gives v's counts of the files of another tree, in its order.
func (v *view) carried(to *tree.Node) ([]int, error) {
	out := make([]int, 0, len(v.idle))
	at := 0
	err := pair(v.tree, to, func(_ []byte, was, is *tree.Node) error {
		if is != nil {
			count := unknown
			if was != nil {
				count = v.idle[at]
			}
			out = append(out, count)
		}
		if was != nil {
			at++
		}
		return nil
	})
	return out, err
}

package observation

import (
	"slices"
	"strings"

	"larder/internal/tree"
)

// served gives a tree as steps see it: without sockets. nil, and what is a socket itself, is nothing.
func served(n *tree.Node) (*tree.Node, error) {
	switch {
	case n == nil || n.Kind == tree.Socket:
		return nil, nil
	case !n.HasSockets():
		return n, nil
	}
	entries, err := n.Entries()
	if err != nil {
		return nil, err
	}
	out := make([]tree.Entry, 0, len(entries))
	for _, e := range entries {
		c, err := served(e.Node)
		if err != nil {
			return nil, err
		}
		if c != nil {
			out = append(out, tree.Entry{Name: e.Name, Node: c})
		}
	}
	d, err := tree.NewDir(n.Meta, n.Opaque, out)
	if err != nil {
		return nil, err
	}
	d.Implied = n.Implied
	return d, nil
}

// finger points into a directory, behind the name that was asked for last: names mostly come in order.
type finger struct {
	node *tree.Node // nil for nothing; what is no directory has no names
	next int
}

// child finds a name; nil without an error means that it is not there.
func (f *finger) child(name string) (*tree.Node, error) {
	if f.node == nil {
		return nil, nil
	}
	entries, err := f.node.Entries()
	if err != nil {
		return nil, err
	}
	i := f.next
	if i > 0 && entries[i-1].Name >= name {
		i = 0
	}
	for near := min(i+8, len(entries)); i < near && entries[i].Name < name; i++ {
	}
	if i < len(entries) && entries[i].Name < name {
		further, _ := slices.BinarySearchFunc(entries[i:], name, func(e tree.Entry, name string) int {
			return strings.Compare(e.Name, name)
		})
		i += further
	}
	if f.next = i; i == len(entries) || entries[i].Name != name {
		return nil, nil
	}
	f.next++
	return entries[i].Node, nil
}

// walker finds paths in a tree, starting from where the path before led: paths in any order are found, sorted ones fast.
type walker struct {
	path string // the last one
	way  []stop // the directories on its way and itself; the first is the root
}

type stop struct {
	finger
	end int // path[:end] leads here
}

func newWalker(root *tree.Node) *walker {
	return &walker{way: []stop{{finger: finger{node: root}}}}
}

// find gives what is at a path, nil for nothing: also where the way leads through what is no directory.
func (w *walker) find(path string) (*tree.Node, error) {
	if strings.HasPrefix(path, "/") { // no path in a tree
		return nil, nil
	}
	w.back(path)
	for {
		at := &w.way[len(w.way)-1]
		if at.end == len(path) {
			w.path = path
			return at.node, nil
		}
		from := at.end
		if from > 0 {
			from++ // the slash
		}
		end := len(path)
		if i := strings.IndexByte(path[from:], '/'); i >= 0 {
			end = from + i
		}
		n, err := at.child(path[from:end])
		if err != nil {
			w.way = w.way[:1]
			return nil, err
		}
		w.way = append(w.way, stop{finger{node: n}, end})
	}
}

// back leaves those stops that are not on the way to path.
func (w *walker) back(path string) {
	common := commonPrefix(w.path, path)
	for i := len(w.way) - 1; i > 0; i-- {
		if end := w.way[i].end; end <= common && (end == len(path) || path[end] == '/') {
			return
		}
		w.way = w.way[:i]
	}
}

// commonPrefix is how many bytes two strings begin with alike.
func commonPrefix(a, b string) int {
	n := min(len(a), len(b))
	for i := range n {
		if a[i] != b[i] {
			return i
		}
	}
	return n
}

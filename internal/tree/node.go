package tree

import (
	"errors"
	"fmt"
	"slices"
	"sort"
	"strings"
	"sync/atomic"

	"larder/internal/key"
)

// Kind is what a Node stands for.
type Kind uint8

// The kinds. The numbers enter digests and stored trees: they never change. Whiteout stands in layer trees only.
const (
	File     Kind = 1
	Dir      Kind = 2
	Symlink  Kind = 3
	Char     Kind = 4
	Block    Kind = 5
	Fifo     Kind = 6
	Socket   Kind = 7
	Whiteout Kind = 8
)

// Xattr is one extended attribute. Overlay's own ("trusted.overlay.*") never stand in a tree.
type Xattr struct {
	Name  string
	Value []byte
}

// Meta is what every file system object has.
type Meta struct {
	Mode   uint32  // permission, setuid, setgid and sticky bits (07777)
	UID    uint32  // numeric owner
	GID    uint32  // numeric group
	MTime  int64   // nanoseconds since 1970; enters no identity
	Xattrs []Xattr // sorted by name, nil when there are none; shared, never written to
}

// Node is one object of a tree, immutable once it is part of one; any number of trees may share it.
type Node struct {
	Kind Kind
	Meta

	Size    int64      // bytes, of a File
	Content key.Digest // sha256 of a File's bytes
	Link    string     // target of a Symlink, as it is
	Rdev    uint64     // number of a Char or Block device, as unix.Mkdev makes it

	// Group is shared by the nodes that are hard links of each other, 0 for one with one name, and for directories. Numbers come from
	// NewGroup and mean nothing outside the process. A group of which a tree holds one member counts as none.
	Group uint64

	// Opaque is set on a Dir of a layer tree that hides what lower layers have under it.
	Opaque bool

	// Implied is set on a Dir of a layer tree that the layer's tar does not list: it only leads to what the tar does list.
	// Where lower layers have the directory, it is theirs that counts.
	Implied bool

	dir *dirData
}

// Entry is a name in a directory.
type Entry struct {
	Name string
	Node *Node
}

// dirData is a directory's listing. It knows nothing of the directory's own metadata, so that nodes which differ
// in that alone share it.
type dirData struct {
	entries []Entry // sorted by name, bytewise; not valid while lazy is set
	marks   marks
	digest  atomic.Pointer[key.Digest] // of the listing
	lazy    atomic.Pointer[lazyDir]    // where to read entries from; nil when they are here
}

// marks tells what a node is or has somewhere below it, so that work that concerns only such nodes skips the rest.
type marks uint8

const (
	markGroup  marks = 1 << iota // something with a Group
	markLayer                    // a Whiteout, or an Opaque directory
	markSocket                   // a Socket
	marksKnown = markGroup | markLayer | markSocket
)

func (n *Node) marks() marks {
	var m marks
	if n.Group != 0 {
		m |= markGroup
	}
	if n.Kind == Whiteout || n.Opaque {
		m |= markLayer
	}
	if n.Kind == Socket {
		m |= markSocket
	}
	if n.dir != nil {
		m |= n.dir.marks
	}
	return m
}

var groups atomic.Uint64

// NewGroup gives a number for a set of hard links that no other set of this process has.
func NewGroup() uint64 { return groups.Add(1) }

// ErrName is wrapped by NewDir's errors.
var ErrName = errors.New("not a file name")

// NewDir makes a directory and takes ownership of entries, which it sorts. A name that is empty, ".", "..", twice
// there, or has a slash or NUL in it is an error that wraps ErrName.
func NewDir(meta Meta, opaque bool, entries []Entry) (*Node, error) {
	if !slices.IsSortedFunc(entries, compareEntries) {
		slices.SortFunc(entries, compareEntries)
	}
	d := &dirData{entries: entries}
	for i, e := range entries {
		if e.Name == "" || e.Name == "." || e.Name == ".." || strings.ContainsAny(e.Name, "/\x00") {
			return nil, fmt.Errorf("%q: %w", e.Name, ErrName)
		}
		if i > 0 && entries[i-1].Name == e.Name {
			return nil, fmt.Errorf("%q twice in a directory: %w", e.Name, ErrName)
		}
		d.marks |= e.Node.marks()
	}
	return &Node{Kind: Dir, Meta: meta, Opaque: opaque, dir: d}, nil
}

func compareEntries(a, b Entry) int { return strings.Compare(a.Name, b.Name) }

// Empty gives an empty directory owned by root with mode 755: the root of a state that has no layers.
func Empty() *Node {
	return &Node{Kind: Dir, Meta: Meta{Mode: 0o755}, dir: &dirData{}}
}

// Entries lists a directory, sorted by name bytewise. The slice is the tree's own: read it, never write to it. A node
// that is no directory has none. The error is that of fetching a directory that is not in memory yet.
func (n *Node) Entries() ([]Entry, error) {
	if n.dir == nil {
		return nil, nil
	}
	if l := n.dir.lazy.Load(); l != nil {
		if err := l.load(n.dir); err != nil {
			return nil, err
		}
	}
	return n.dir.entries, nil
}

// Lookup finds a name in a directory; nil without an error means that it is not there.
func (n *Node) Lookup(name string) (*Node, error) {
	entries, err := n.Entries()
	if err != nil {
		return nil, err
	}
	i := sort.Search(len(entries), func(i int) bool { return entries[i].Name >= name })
	if i < len(entries) && entries[i].Name == name {
		return entries[i].Node, nil
	}
	return nil, nil
}

// WithMeta gives a copy of n with other metadata. A directory's copy shares the entries.
func (n *Node) WithMeta(meta Meta) *Node {
	c := *n
	c.Meta = meta
	return &c
}

// WithOpaque gives a copy of a directory that differs in its Opaque mark.
func (n *Node) WithOpaque(opaque bool) *Node {
	c := *n
	c.Opaque = opaque
	return &c
}

// HasGroups reports whether n, or a file below it, carries a Group.
func (n *Node) HasGroups() bool { return n.marks()&markGroup != 0 }

// IsLayer reports whether n or anything below it is a Whiteout or Opaque: such a tree is a layer's, not a merged one.
func (n *Node) IsLayer() bool { return n.marks()&markLayer != 0 }

// HasSockets reports whether n, or anything below it, is a Socket.
func (n *Node) HasSockets() bool { return n.marks()&markSocket != 0 }

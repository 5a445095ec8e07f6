package observation

import (
	"crypto/sha256"
	"encoding/binary"

	"larder/internal/key"
	"larder/internal/tree"
)

// valueDomain names what a value hashes, and how. Whoever changes that changes the number.
const valueDomain = "larder.look.v1"

// Values are what the looks see in a tree, in their order; mtimes are part of none. root may be a layer's tree, whose whiteouts and
// opaque marks are seen. Looks in the order of their paths cost least. Directories that root has not loaded are fetched as
// needed: an error is that of fetching.
func Values(looks []Look, root *tree.Node) ([]key.Digest, error) {
	root, err := served(root)
	if err != nil {
		return nil, err
	}
	out := make([]key.Digest, len(looks))
	v := &viewer{root: root}
	w := newWalker(root)
	var buf []byte
	for i, l := range looks {
		n, err := w.find(l.Path)
		if err != nil {
			return nil, err
		}
		if buf, err = v.appendValue(buf[:0], l, n); err != nil {
			return nil, err
		}
		out[i] = sha256.Sum256(buf)
	}
	return out, nil
}

// viewer writes what is seen of one tree. What only the whole tree tells is found when it is first asked for.
type viewer struct {
	root  *tree.Node
	links *links
}

// What a value's parts begin with where it is no kind of object that they tell.
const (
	absent = 0
	other  = 1 // nothing that has what was asked for
	there  = 2
)

// appendValue writes all kinds of one look, in the order of their numbers. Each says how long it is, or has one length, so no two
// different things are written alike.
func (v *viewer) appendValue(buf []byte, l Look, n *tree.Node) ([]byte, error) {
	buf = append(buf, valueDomain...)
	var err error
	if l.Kind&Whole != 0 {
		return v.appendWhole(append(buf, byte(Whole)), l.Path, n)
	}
	buf = append(buf, byte(l.Kind))
	if l.Kind&Entry != 0 {
		if buf, err = v.appendEntry(buf, n); err != nil {
			return nil, err
		}
	}
	if l.Kind&List != 0 {
		if buf, err = appendList(buf, n); err != nil {
			return nil, err
		}
	}
	if l.Kind&Content != 0 {
		buf = appendContent(buf, n)
	}
	return buf, nil
}

func (v *viewer) appendEntry(buf []byte, n *tree.Node) ([]byte, error) {
	if n == nil {
		return append(buf, absent), nil
	}
	buf = append(buf, byte(n.Kind)) // no kind has the number of absent
	if n.Kind == tree.Whiteout {
		return buf, nil
	}
	buf = binary.AppendUvarint(buf, uint64(n.UID))
	buf = binary.AppendUvarint(buf, uint64(n.GID))
	buf = appendXattrs(buf, n)
	if n.Kind != tree.Symlink { // Linux has one mode for them; archives write what they like
		buf = binary.AppendUvarint(buf, uint64(n.Mode))
	}
	switch n.Kind {
	case tree.Dir:
		return append(buf, bit(n.Opaque), bit(n.Implied)), nil
	case tree.File:
		buf = appendContent(buf, n)
	case tree.Symlink:
		buf = appendString(buf, n.Link)
	case tree.Char, tree.Block:
		buf = binary.AppendUvarint(buf, n.Rdev)
	}
	if n.Group != 0 {
		l, err := v.linkSets()
		if err != nil {
			return nil, err
		}
		if set, ok := l.byGroup[n.Group]; ok {
			buf = append(buf, 1)
			return append(buf, l.names[set][:]...), nil
		}
	}
	return append(buf, 0), nil
}

func appendList(buf []byte, n *tree.Node) ([]byte, error) {
	switch {
	case n == nil:
		return append(buf, absent), nil
	case n.Kind != tree.Dir:
		return append(buf, other), nil
	}
	entries, err := n.Entries()
	if err != nil {
		return nil, err
	}
	buf = append(buf, there)
	buf = binary.AppendUvarint(buf, uint64(len(entries)))
	for _, e := range entries {
		buf = append(appendString(buf, e.Name), byte(e.Node.Kind))
	}
	return buf, nil
}

func appendContent(buf []byte, n *tree.Node) []byte {
	switch {
	case n == nil:
		return append(buf, absent)
	case n.Kind != tree.File:
		return append(buf, other)
	}
	buf = binary.AppendUvarint(append(buf, there), uint64(n.Size))
	return append(buf, n.Content[:]...)
}

func appendXattrs(buf []byte, n *tree.Node) []byte {
	buf = binary.AppendUvarint(buf, uint64(len(n.Xattrs)))
	for _, x := range n.Xattrs {
		buf = appendString(buf, x.Name)
		buf = binary.AppendUvarint(buf, uint64(len(x.Value)))
		buf = append(buf, x.Value...)
	}
	return buf
}

// appendWhole writes n's identity, which knows of the hard links within n only, and the sets that have names elsewhere as well.
func (v *viewer) appendWhole(buf []byte, path string, n *tree.Node) ([]byte, error) {
	if n == nil {
		return append(buf, absent), nil
	}
	id, err := n.Identity()
	if err != nil {
		return nil, err
	}
	buf = append(append(buf, there), id[:]...)
	if !n.HasGroups() {
		return append(buf, 0), nil
	}
	l, err := v.linkSets()
	if err != nil {
		return nil, err
	}
	sets := l.leaving(path, n)
	buf = binary.AppendUvarint(buf, uint64(len(sets)))
	for _, set := range sets {
		buf = append(buf, l.names[set][:]...)
	}
	return buf, nil
}

func (v *viewer) linkSets() (*links, error) {
	if v.links == nil {
		l, err := findLinks(v.root)
		if err != nil {
			return nil, err
		}
		v.links = l
	}
	return v.links, nil
}

func bit(b bool) byte {
	if b {
		return 1
	}
	return 0
}

func appendString(buf []byte, s string) []byte {
	buf = binary.AppendUvarint(buf, uint64(len(s)))
	return append(buf, s...)
}

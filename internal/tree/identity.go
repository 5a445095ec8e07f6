package tree

import (
	"crypto/sha256"
	"encoding/binary"
	"slices"

	"larder/internal/key"
)

// Domains of what this file hashes. Whoever changes what goes in changes the number.
const (
	nodeDomain  = "larder.tree.node.v1"
	listDomain  = "larder.tree.list.v1"
	linksDomain = "larder.tree.links.v1"
)

// Identity names the tree under n by everything but mtimes: names, kinds, modes, owners, xattrs, sizes, contents, link
// targets, device numbers, whiteouts and opaque marks, and which files are hard links of each other. Equal trees have
// equal identities however they came about. The error is that of fetching a directory.
func (n *Node) Identity() (key.Digest, error) {
	plain, err := n.plainDigest()
	if err != nil || !n.HasGroups() {
		return plain, err
	}
	links, err := n.Links()
	if err != nil || len(links) == 0 {
		return plain, err
	}
	h := key.New(linksDomain).Digest(plain).Uint(uint64(len(links)))
	for _, paths := range links {
		h.Strs(paths)
	}
	return h.Sum(), nil
}

// Self names n alone, without what a directory holds, mtime or Group.
func (n *Node) Self() key.Digest {
	c := *n
	c.dir = nil
	buf := appendNode([]byte(nodeDomain), &c, key.Digest{})
	return sha256.Sum256(buf)
}

// Links lists the sets of paths that are hard links of each other, each set sorted, the sets ordered by their first
// path. A file whose other names are not below n is in none.
func (n *Node) Links() ([][]string, error) {
	byGroup := map[uint64][]string{}
	err := Walk(n, func(path string, c *Node) error {
		if !c.HasGroups() {
			return skip(c)
		}
		if c.Group != 0 {
			byGroup[c.Group] = append(byGroup[c.Group], path)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	var out [][]string
	for _, paths := range byGroup {
		if len(paths) > 1 {
			slices.Sort(paths)
			out = append(out, paths)
		}
	}
	slices.SortFunc(out, slices.Compare[[]string])
	return out, nil
}

// skip is what a Walk's function returns to leave n's children out.
func skip(n *Node) error {
	if n.Kind == Dir {
		return SkipDir
	}
	return nil
}

func (n *Node) plainDigest() (key.Digest, error) {
	list, err := n.listDigest()
	if err != nil {
		return key.Digest{}, err
	}
	return sha256.Sum256(appendNode([]byte(nodeDomain), n, list)), nil
}

// listDigest names what a directory holds; zero for anything else. It is remembered.
func (n *Node) listDigest() (key.Digest, error) {
	if n.dir == nil {
		return key.Digest{}, nil
	}
	if d := n.dir.digest.Load(); d != nil {
		return *d, nil
	}
	entries, err := n.Entries()
	if err != nil {
		return key.Digest{}, err
	}
	for _, e := range entries { // first, so that one buffer at a time is in use
		if _, err := e.Node.listDigest(); err != nil {
			return key.Digest{}, err
		}
	}
	d, err := hashList(entries)
	if err != nil {
		return d, err
	}
	n.dir.digest.Store(&d)
	return d, nil
}

func hashList(entries []Entry) (key.Digest, error) {
	buf := make([]byte, 0, 64+len(entries)*96)
	buf = append(buf, listDomain...)
	buf = binary.AppendUvarint(buf, uint64(len(entries)))
	for _, e := range entries {
		list, err := e.Node.listDigest()
		if err != nil {
			return key.Digest{}, err
		}
		buf = appendString(buf, e.Name)
		buf = appendNode(buf, e.Node, list)
	}
	return sha256.Sum256(buf), nil
}

// appendNode writes what identifies a node. Every field that varies in length has it in front, and the kind decides
// which fields follow, so no two nodes write the same bytes.
func appendNode(buf []byte, n *Node, list key.Digest) []byte {
	buf = append(buf, byte(n.Kind))
	if n.Kind == Whiteout {
		return buf // a name that is gone has no owner or mode
	}
	mode := n.Mode
	if n.Kind == Symlink {
		mode = 0o777 // Linux has no other; archives write what they like
	}
	if n.Implied {
		mode |= flagImplied
	}
	buf = binary.AppendUvarint(buf, uint64(mode))
	buf = binary.AppendUvarint(buf, uint64(n.UID))
	buf = binary.AppendUvarint(buf, uint64(n.GID))
	buf = binary.AppendUvarint(buf, uint64(len(n.Xattrs)))
	for _, x := range n.Xattrs {
		buf = appendString(buf, x.Name)
		buf = appendString(buf, string(x.Value))
	}
	switch n.Kind {
	case File:
		buf = binary.AppendUvarint(buf, uint64(n.Size))
		buf = append(buf, n.Content[:]...)
	case Dir:
		opaque := byte(0)
		if n.Opaque {
			opaque = 1
		}
		buf = append(buf, opaque)
		buf = append(buf, list[:]...)
	case Symlink:
		buf = appendString(buf, n.Link)
	case Char, Block:
		buf = binary.AppendUvarint(buf, n.Rdev)
	}
	return buf
}

func appendString(buf []byte, s string) []byte {
	buf = binary.AppendUvarint(buf, uint64(len(s)))
	return append(buf, s...)
}

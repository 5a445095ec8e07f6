package main

import (
	"archive/tar"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"path"
	"strings"
)

const (
	paxXattr       = "SCHILY.xattr."
	whiteoutPrefix = ".wh."
	opaqueMarker   = ".wh..wh..opq"
)

// A node is one name in a merged tree. Names that are hard links of each other share their inode.
type node struct {
	*inode
	children map[string]*node // directories only
	layer    int              // number of the last layer that has an entry for the node
}

// An inode is everything about a file but its names.
type inode struct {
	kind         string // dir, file, link, char, block, fifo
	mode         int64  // permissions with setuid, setgid and sticky
	uid, gid     int
	size         int64
	sum          string // sha256 of a file's content
	target       string // of a symbolic link
	major, minor int64
	xattrs       map[string]string
}

var kinds = map[byte]string{
	tar.TypeDir: "dir", tar.TypeReg: "file", tar.TypeSymlink: "link",
	tar.TypeChar: "char", tar.TypeBlock: "block", tar.TypeFifo: "fifo", tar.TypeGNUSparse: "file",
}

func newRoot() *node {
	return &node{inode: &inode{kind: "dir", mode: 0o755}, children: map[string]*node{}, layer: -1}
}

// applyLayer changes root as the layer says. A parent that no layer has an entry for is a plain directory, as runtimes make
// it. An entry whose parent is not a directory is an error: what becomes of it depends on who unpacks it.
func applyLayer(root *node, number int, tr *tar.Reader) error {
	for {
		h, err := tr.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if err := applyEntry(root, number, h, tr); err != nil {
			return fmt.Errorf("entry %q: %w", h.Name, err)
		}
	}
}

func applyEntry(root *node, number int, h *tar.Header, content io.Reader) error {
	name := path.Clean("/" + h.Name)[1:]
	if name == "" {
		in, err := readInode(h, content)
		if err == nil {
			root.inode = in
		}
		return err
	}
	parent, base, err := lookupParent(root, name)
	if err != nil {
		return err
	}
	switch {
	case base == opaqueMarker:
		removeLower(parent, number)
		return nil
	case strings.HasPrefix(base, whiteoutPrefix):
		victim, ok := parent.children[base[len(whiteoutPrefix):]]
		if ok && victim.layer == number {
			return fmt.Errorf("hides an entry of its own layer")
		}
		delete(parent.children, base[len(whiteoutPrefix):])
		return nil
	case h.Typeflag == tar.TypeLink:
		old, err := lookup(root, path.Clean("/" + h.Linkname)[1:])
		if err != nil {
			return fmt.Errorf("hard link: %w", err)
		}
		if old.kind == "dir" {
			return fmt.Errorf("hard link to the directory %q", h.Linkname)
		}
		parent.children[base] = &node{inode: old.inode, layer: number}
		return nil
	}
	in, err := readInode(h, content)
	if err != nil {
		return err
	}
	n, ok := parent.children[base]
	if !ok || in.kind != "dir" || n.kind != "dir" {
		n = &node{children: map[string]*node{}}
		parent.children[base] = n
	}
	n.inode, n.layer = in, number
	return nil
}

// removeLower removes what lower layers put below dir and keeps the entries of layer number.
func removeLower(dir *node, number int) {
	for name, c := range dir.children {
		if c.layer == number {
			removeLower(c, number)
		} else {
			delete(dir.children, name)
		}
	}
}

func readInode(h *tar.Header, content io.Reader) (*inode, error) {
	kind, ok := kinds[h.Typeflag]
	if !ok {
		return nil, fmt.Errorf("entry of type %q", h.Typeflag)
	}
	in := &inode{kind: kind, mode: h.Mode & 0o7777, uid: h.Uid, gid: h.Gid}
	for k, v := range h.PAXRecords {
		if name, ok := strings.CutPrefix(k, paxXattr); ok {
			if in.xattrs == nil {
				in.xattrs = map[string]string{}
			}
			in.xattrs[name] = v
		}
	}
	switch kind {
	case "file":
		sum := sha256.New()
		n, err := io.Copy(sum, content)
		if err != nil {
			return nil, err
		}
		in.size, in.sum = n, hex.EncodeToString(sum.Sum(nil))
	case "link":
		in.target = h.Linkname
	case "char", "block":
		in.major, in.minor = h.Devmajor, h.Devminor
	}
	return in, nil
}

func lookupParent(root *node, name string) (*node, string, error) {
	dir, base := path.Split(name)
	parent := root
	for _, part := range strings.Split(strings.TrimSuffix(dir, "/"), "/") {
		if part == "" {
			continue
		}
		child, ok := parent.children[part]
		if !ok {
			child = newRoot()
			parent.children[part] = child
		}
		if child.kind != "dir" {
			return nil, "", fmt.Errorf("its parent %q is not a directory but a %s", part, child.kind)
		}
		parent = child
	}
	return parent, base, nil
}

func lookup(root *node, name string) (*node, error) {
	n := root
	for _, part := range strings.Split(name, "/") {
		child, ok := n.children[part]
		if !ok {
			return nil, fmt.Errorf("%q has no %q", name, part)
		}
		n = child
	}
	return n, nil
}

// Package tree holds the metadata of file systems as immutable Merkle trees, and the algebra on them.
//
// There are two sorts of trees, of the same nodes. A merged tree is a file system as a process sees it. A layer tree
// is a difference: it may hold Whiteouts (a name that is gone) and Opaque directories (nothing shines through from
// below), and its directories carry the metadata that they have in the merged file system. Apply lays a layer tree over
// a merged one; Diff is its inverse.
//
// Nodes never change, so trees share what they have in common: laying ten files over a base of 50,000 makes a few dozen
// nodes. A tree read by Decode fetches a directory when somebody first lists it.
//
// An identity names a tree without its mtimes. Every directory remembers the digest of its listing, so that asking
// again, or for a tree that shares it, costs nothing.
package tree

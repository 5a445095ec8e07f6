// Package layer is the difference between two file systems in its four forms: a tree in memory (package tree), an overlay
// directory on disk, a tar stream, and a compressed blob; and the ways from one to another.
//
//	tar -> directory and tree    Unpack, UnpackBlob
//	directory -> tree            FromUpper
//	tree -> directory            Materialise
//	tree -> tar                  Write
//	tree -> blob                 Export
//	tree's times -> directory    Retime
//
// The forms agree: a tree that is written, unpacked and read back is the same tree, but for mtimes (a tar of an image
// carries whole seconds) and for the root's own metadata (which an image's tar does not carry).
package layer

// Package generation holds what a cache mount contains at one time, and how that is written down: a row of segments, of which the
// first says everything and each later one what changed. A segment names the pieces that hold the contents; it holds none itself.
//
// Segments that several writers put behind the same row do not contradict each other where the mount's layout is known to be
// content-addressed: there the row with all of them is the union.
//
// # Segments
//
// A segment is one zstd frame. Unpacked it begins with the line "larder mount 1", then come columns, each with its length in bytes
// in front (an unsigned varint, as all numbers here but where it says signed):
//
//	states    the states that it was made of and that it makes, 16 bytes each (see view.state)
//	tree      a layer tree (package tree) over the first state's
//	touched   files that are the same but for their mtime: ordinals, each as the distance from the one before
//	times     their mtimes, signed, each as the distance from the one before
//	packs     digests of packs
//	frames    how many frames of each pack follow in the next three columns
//	gaps      bytes between a frame and the one before it in its pack, signed
//	lengths   bytes of a frame
//	raws      bytes of a frame when it is unpacked
//	counts    per content: 0 for one piece, which is all of it, or else how many pieces
//	at        per piece: the frame's number, signed, as the distance from that of the piece before
//	offsets   per piece: where it begins, signed, as the distance from the end of the piece before it in that frame
//	sizes     per piece of a content whose count is not 0: its bytes
//	digests   per piece of a content whose count is not 0: its digest
//	moved     contents that do not stand in tree: digest and size, as a varint, one after the other
//	idles     what Idle is in the second state, each together with the next column
//	runs      for how many files in a row
//	ledger    one byte: 0 none, 1 as in the first state, 2 a layer tree over that one's follows
//
// The contents are those of tree's files, as they come in Walk the first time, without empty ones, and then those of moved. Ordinals
// and runs count what is no directory, in the order of Walk, in the first and in the second state.
package generation

import (
	"bytes"
	"slices"

	"larder/internal/key"
	"larder/internal/pack"
	"larder/internal/tree"
)

// MediaType is that of a segment's blob.
const MediaType = "application/vnd.larder.mount.v1+zstd"

// Generation is the content of a cache mount. Nothing in it is changed once it is made.
type Generation struct {
	// Tree is the directory, mtimes included; a merged tree.
	Tree *tree.Node
	// Pieces are the contents of Tree's files by Node.Content, in order. Empty files have none.
	Pieces map[key.Digest][]pack.Piece
	// Idle counts, by Tree's paths as Walk gives them, the builds that used the mount since one of them read or wrote the file.
	// A path that is not in it counts 0. Directories have no count.
	Idle map[string]int
	// Ledger are the files of observed layers that steps with this mount were shown, at their places and with the times that
	// they were shown (DESIGN section 3, Times). Nil for none.
	Ledger *tree.Node
}

// maxIdle is where counts end: what has been idle for so long may as well have been for longer.
const maxIdle = 1 << 20

func sortedDigests(set map[key.Digest]bool) []key.Digest {
	out := make([]key.Digest, 0, len(set))
	for d := range set {
		out = append(out, d)
	}
	slices.SortFunc(out, func(a, b key.Digest) int { return bytes.Compare(a[:], b[:]) })
	return out
}

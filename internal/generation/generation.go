// Package generation holds what a cache mount contains at one time, and how that is written down: a row of segments, of which the
// first says everything and each later one what changed. A segment names the pieces that hold the contents; it holds none itself.
//
// Segments that several writers put behind the same row do not contradict each other where the mount's layout is known to be
// content-addressed: there the row with all of them is the union.
package generation

import (
	"larder/internal/key"
	"larder/internal/pack"
	"larder/internal/tree"
)

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

// Package pack keeps the contents of many files in few blobs. A pack is a row of zstd frames that are unpacked by themselves, so
// that any file in it is a range of the blob: small files share a frame, large ones are cut into pieces where their contents
// say so, which a change in their middle leaves alone.
//
// What is in a pack, and where, stands outside of it: in Pieces.
package pack

import (
	"context"
	"io"

	"larder/internal/key"
)

// MediaType is that of a pack's blob.
const MediaType = "application/vnd.larder.pack.v1+zstd"

// Frame is a part of a pack that is unpacked by itself.
type Frame struct {
	Offset, Length int64 // bytes, in the pack
	Raw            int64 // bytes when it is unpacked
}

// Piece is a file's contents or, where the file is large, a part of them, and where it is.
type Piece struct {
	Digest key.Digest // sha256 of its bytes
	Size   int64      // bytes
	Pack   key.Digest // sha256 of the pack's blob
	Frame  Frame
	Offset int64 // where it begins in the unpacked frame
}

// Opener opens n bytes of a pack, from off on. What it yields need not be verified: pieces are.
type Opener func(ctx context.Context, pack key.Digest, off, n int64) (io.ReadCloser, error)

// Pack is a blob that a Writer has finished.
type Pack struct {
	Digest key.Digest
	Size   int64 // bytes
	Path   string
}

// Ref is a piece that Add cut, wherever it will be.
type Ref struct {
	Digest key.Digest
	Size   int64 // bytes
}

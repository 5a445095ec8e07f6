package catalog

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/klauspost/compress/zstd"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"larder/internal/key"
	"larder/internal/remote"
)

// MediaTypeTree is that of a tree's blob: tree.Encode's bytes, packed.
const MediaTypeTree = "application/vnd.larder.tree.v1+zstd"

// maxTree bounds a tree's blob, in bytes, packed or not.
const maxTree = 1 << 30

// PackTree packs the bytes of a tree for its blob.
func PackTree(b []byte) ([]byte, error) {
	var out bytes.Buffer
	enc, err := zstd.NewWriter(&out, zstd.WithEncoderConcurrency(1))
	if err != nil {
		return nil, err
	}
	if _, err := enc.Write(b); err != nil {
		return nil, err
	}
	err = enc.Close()
	return out.Bytes(), err
}

// FetchTree reads the blob of tree d and gives the tree's bytes. A blob that is too large, or holds anything else, is remote.ErrDamaged.
func FetchTree(ctx context.Context, store remote.Store, desc ocispecs.Descriptor, d key.Digest) ([]byte, error) {
	packed, err := Fetch(ctx, store, desc, maxTree)
	if err != nil {
		return nil, err
	}
	dec, err := zstd.NewReader(nil, zstd.WithDecoderMaxMemory(maxTree), zstd.WithDecoderConcurrency(1))
	if err != nil {
		return nil, err
	}
	defer dec.Close()
	b, err := dec.DecodeAll(packed, nil)
	if err == nil && key.Bytes(b) != d {
		err = errors.New("other bytes than its name says")
	}
	if err != nil {
		return nil, badTree(d, desc, err)
	}
	return b, nil
}

func badTree(d key.Digest, desc ocispecs.Descriptor, why error) error {
	return fmt.Errorf("tree %s in blob %s: %w: %w", d, desc.Digest, why, remote.ErrDamaged)
}

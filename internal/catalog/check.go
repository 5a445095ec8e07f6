package catalog

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"larder/internal/key"
	"larder/internal/remote"
	"larder/internal/tree"
)

// Problem is a blob of a catalog that is not as the catalog says.
type Problem struct {
	Blob    ocispecs.Descriptor
	Err     error    // why
	Records []string // names of the records that need it, at most ten
}

// maxTree bounds the size of a tree, in bytes, that Check decompresses.
const maxTree = 1 << 30

// Check looks whether every blob of a catalog is in its store; with full it reads them, compares their digests, and lists every tree. A save
// with the problems' digests as Change.Gone makes the catalog right. The error is the store's, which does not answer.
func Check(ctx context.Context, store remote.Store, c *Catalog, full bool) ([]Problem, error) {
	all := c.all(ctx)
	trees := map[digest.Digest]key.Digest{}
	for d, desc := range all.trees {
		trees[desc.Digest] = d
	}
	blobs := all.blobs()
	found := make([]error, len(blobs))
	inParallel(blobs, func(i int, desc ocispecs.Descriptor) {
		if !full {
			if ok, err := store.Has(ctx, desc); err != nil {
				found[i] = err
			} else if !ok {
				found[i] = remote.ErrNotFound
			}
			return
		}
		if d, isTree := trees[desc.Digest]; isTree {
			found[i] = checkTree(ctx, store, desc, d)
		} else {
			found[i] = checkBytes(ctx, store, desc, io.Discard)
		}
	})
	var problems []Problem
	for i, err := range found {
		switch {
		case err == nil:
		case isLoss(err):
			problems = append(problems, Problem{blobs[i], err, all.namesNeeding(blobs[i].Digest)})
		default:
			return nil, fmt.Errorf("check the catalog of scope %q in %s: %w", c.name.Scope, store.Name(), err)
		}
	}
	return problems, nil
}

// checkBytes reads a blob into w and compares its size and digest.
func checkBytes(ctx context.Context, store remote.Store, desc ocispecs.Descriptor, w io.Writer) error {
	r, err := store.Open(ctx, desc)
	if err != nil {
		return err
	}
	defer r.Close()
	v := desc.Digest.Verifier()
	n, err := io.Copy(io.MultiWriter(v, w), io.LimitReader(r, desc.Size+1))
	if err != nil {
		return err
	}
	if n != desc.Size || !v.Verified() {
		return fmt.Errorf("blob %s: %w", desc.Digest, remote.ErrDamaged)
	}
	return nil
}

// checkTree reads the blob of a tree, compares the tree's own digest too, and lists all of it.
func checkTree(ctx context.Context, store remote.Store, desc ocispecs.Descriptor, d key.Digest) error {
	if desc.Size > maxTree {
		return fmt.Errorf("a tree of %d bytes: %w", desc.Size, remote.ErrDamaged)
	}
	var packed bytes.Buffer
	if err := checkBytes(ctx, store, desc, &packed); err != nil {
		return err
	}
	dec, err := zstd.NewReader(nil, zstd.WithDecoderMaxMemory(maxTree), zstd.WithDecoderConcurrency(1))
	if err != nil {
		return err
	}
	defer dec.Close()
	b, err := dec.DecodeAll(packed.Bytes(), nil)
	if err == nil && key.Bytes(b) != d {
		err = errors.New("other bytes than its name says")
	}
	if err == nil {
		err = listAll(b)
	}
	if err != nil {
		return fmt.Errorf("tree %s in blob %s: %w: %w", d, desc.Digest, err, remote.ErrDamaged)
	}
	return nil
}

func listAll(b []byte) error {
	root, err := tree.Decode(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		return err
	}
	return tree.Walk(root, func(string, *tree.Node) error { return nil })
}

// namesNeeding lists the records that name a layer or tree which a blob holds.
func (s state) namesNeeding(d digest.Digest) []string {
	var names []string
	for _, e := range s.sorted() {
		for l := range layersOf(e.Record) {
			if s.trees[l.Tree].Digest == d || slices.ContainsFunc(s.layers[l.Identity], func(b Blob) bool { return b.Desc.Digest == d }) {
				names = append(names, e.Record.Name)
				break
			}
		}
		if len(names) == 10 {
			break
		}
	}
	return names
}

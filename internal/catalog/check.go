package catalog

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"slices"

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
	Records []string // names of the records and cache mounts that need it, at most ten
}

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
			found[i] = copyBlob(ctx, store, desc, io.Discard)
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

// checkTree reads the blob of a tree, and lists all of it.
func checkTree(ctx context.Context, store remote.Store, desc ocispecs.Descriptor, d key.Digest) error {
	b, err := FetchTree(ctx, store, desc, d)
	if err != nil {
		return err
	}
	if err := listAll(b); err != nil {
		return badTree(d, desc, err)
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

// namesNeeding lists the records that name a layer or tree which a blob holds, and the cache mounts that name the blob.
func (s state) namesNeeding(d digest.Digest) []string {
	var names []string
	for _, e := range s.sorted() {
		for l := range layersOf(e.Record) {
			if s.trees[l.Tree].Digest == d || slices.ContainsFunc(s.layers[l.Identity], func(b Blob) bool { return b.Desc.Digest == d }) {
				names = append(names, e.Record.Name)
				break
			}
		}
	}
	for _, m := range s.sortedMounts() {
		if m.names(set([]digest.Digest{d})) {
			names = append(names, "cache mount "+m.ID)
		}
	}
	return names[:min(len(names), 10)]
}

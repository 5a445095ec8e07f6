package cache

import (
	"context"
	"io"
	"math/rand/v2"
	"sync/atomic"
	"testing"

	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"larder/internal/catalog"
	"larder/internal/layer"
	"larder/internal/record"
	"larder/internal/remote"
	"larder/internal/tree"
)

// countedStore counts what is read of it.
type countedStore struct {
	remote.Store
	documents, blobs, writes atomic.Int64
}

func (c *countedStore) Manifest(ctx context.Context, name string) (remote.Document, error) {
	c.documents.Add(1)
	return c.Store.Manifest(ctx, name)
}

func (c *countedStore) Open(ctx context.Context, desc ocispecs.Descriptor) (io.ReadCloser, error) {
	c.blobs.Add(1)
	return c.Store.Open(ctx, desc)
}

func (c *countedStore) PutManifest(ctx context.Context, name string, b []byte, old remote.Version) (remote.Version, error) {
	c.writes.Add(1)
	return c.Store.PutManifest(ctx, name, b, old)
}

// TestABuildWithoutChangesReadsOneDocument: that a catalog has further pages, for its hints, costs a build nothing which misses no record,
// whether what it copies has copies in the store or not.
func TestABuildWithoutChangesReadsOneDocument(t *testing.T) {
	w := newShared(t)
	store := &countedStore{Store: w.store}
	w.store = store
	root, err := tree.NewDir(tree.Meta{Mode: 0o755}, false, []tree.Entry{{Name: "a", Node: &tree.Node{Kind: tree.Symlink, Link: "x"}}})
	if err != nil {
		t.Fatal(err)
	}
	id, err := root.Identity()
	if err != nil {
		t.Fatal(err)
	}
	build := func() {
		s := w.begin("main", "main")
		rec, ok := s.Get(t.Context(), keyOf("copy"))
		if !ok {
			d, err := s.PutTree(root)
			if err != nil {
				t.Fatal(err)
			}
			rec = &record.Record{Key: keyOf("copy"), Name: "COPY a /", Outputs: record.OnlyLayer(record.Layer{Identity: id, Tree: d})}
			if rec, err = s.Put(t.Context(), rec); err != nil {
				t.Fatal(err)
			}
			rnd := rand.NewChaCha8([32]byte{1})
			for _, k := range []string{"1", "2", "3"} {
				hint := make([]byte, 20<<10)
				rnd.Read(hint)
				w.put(s, hintOf(k, hint), false)
			}
		}
		s.Used(rec, []*layer.Layer{layer.New(id, false, root, layer.Literal(nil))}, false)
		s.Save(t.Context())
		if err := s.Err(); err != nil {
			t.Error(err)
		}
	}
	build()
	if c, err := catalog.Load(t.Context(), store, catalog.NameOf("main"), catalog.Options{}); err != nil || c.Pages() == 0 {
		t.Fatalf("the catalog has no further page: %v", err)
	}
	for _, where := range []string{"here", "on another machine"} {
		if where != "here" {
			w.dir = t.TempDir()
		}
		store.documents.Store(0)
		store.blobs.Store(0)
		store.writes.Store(0)
		build()
		if d, b, p := store.documents.Load(), store.blobs.Load(), store.writes.Load(); d != 1 || b != 0 || p != 0 {
			t.Errorf("%s: %d documents and %d blobs were read, %d documents written", where, d, b, p)
		}
	}
}

package cache

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"larder/internal/catalog"
	"larder/internal/content"
	"larder/internal/key"
	"larder/internal/layer"
	"larder/internal/record"
	"larder/internal/remote"
	"larder/internal/snapshot"
	"larder/internal/tree"
)

// slowStore takes blobs, and takes its time.
type slowStore struct {
	remote.Store
	mu    sync.Mutex
	blobs map[digest.Digest]bool
}

func (s *slowStore) Name() string { return "slow" }

func (s *slowStore) Put(_ context.Context, up remote.Upload) (bool, error) {
	time.Sleep(2 * time.Millisecond)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.blobs[up.Desc.Digest] = true
	return true, nil
}

func (s *slowStore) has(d digest.Digest) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.blobs[d]
}

// TestStepsEndWhileABuildIsSaved: a build that failed is saved while steps that are being stopped still hand in what they made. What is saved
// names blobs only that are stored, whole records only, and in the end all of them.
func TestStepsEndWhileABuildIsSaved(t *testing.T) {
	const steps = 100
	dir := t.TempDir()
	blobs, err := content.Open(dir + "/blobs")
	if err != nil {
		t.Fatal(err)
	}
	defer blobs.Close()
	layers, err := snapshot.Open(dir, snapshot.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer layers.Close()
	records, err := record.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	store := &slowStore{blobs: map[digest.Digest]bool{}}
	own := &Source{Label: "slow", ID: "slow", Store: store, Load: func(context.Context) (catalog.Reader, error) { return nil, remote.ErrNotFound }}
	saved := map[key.Digest]bool{}
	save := func(_ context.Context, c catalog.Change) (catalog.Saved, error) {
		for id, copies := range c.Layers {
			for _, b := range copies {
				if !store.has(b.Desc.Digest) {
					t.Errorf("layer %s: blob %s is named before it is stored", id, b.Desc.Digest)
				}
			}
		}
		for _, p := range c.Put {
			saved[p.Record.Key] = true
			for _, o := range p.Record.Outputs {
				for _, ref := range o.Layers {
					if len(c.Layers[ref.Identity]) == 0 {
						t.Errorf("record %s is saved without a copy of its layer", p.Record.Name)
					}
				}
			}
		}
		return catalog.Saved{Records: len(c.Put)}, nil
	}
	s := Open(t.Context(), Config{
		Records: records, Layers: layers, Blobs: blobs, Sources: []*Source{own}, Targets: []*Target{{Own: own, Max: true, Save: save}},
		Warn: func(msg string) { t.Error(msg) },
	})
	defer s.Close()

	step := func(i int) {
		root, err := tree.NewDir(tree.Meta{Mode: 0o755}, false, []tree.Entry{{Name: fmt.Sprint(i), Node: &tree.Node{Kind: tree.Symlink, Link: "x"}}})
		if err != nil {
			t.Error(err)
			return
		}
		id, err := root.Identity()
		if err != nil {
			t.Error(err)
			return
		}
		rec := &record.Record{
			Key: key.Bytes([]byte(fmt.Sprint(i))), Name: fmt.Sprint(i),
			Outputs: []record.Output{{Layers: []record.Layer{{Identity: id, Pinned: true}}}},
		}
		s.Used(rec, []*layer.Layer{layer.New(id, true, root, layer.Literal(nil))}, false)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := range steps {
			step(i)
			time.Sleep(time.Millisecond)
		}
	}()
	for ended := false; !ended; {
		select {
		case <-done:
			ended = true // and saved once more
		default:
		}
		s.Save(t.Context())
	}
	if len(saved) != steps {
		t.Errorf("%d records are saved, want %d", len(saved), steps)
	}
	if err := s.Err(); err != nil {
		t.Error(err)
	}
}

package record

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"larder/internal/key"
	"larder/internal/tree"
)

func open(t *testing.T) *Store {
	t.Helper()
	s, err := Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func sample(name string) *Record {
	return &Record{
		Key: key.Bytes([]byte("key")), Name: name, Created: time.Unix(1700000000, 0).UTC(), Duration: time.Second,
		Outputs: []Output{{Base: 1, Layers: []Layer{{Identity: key.Bytes([]byte("a")), Pinned: true}}}},
	}
}

func TestFirstRecordWins(t *testing.T) {
	s := open(t)
	if _, ok := s.Get(sample("").Key); ok {
		t.Fatal("found what was never stored")
	}
	var wg sync.WaitGroup
	got := make([]string, 8)
	for i := range got {
		wg.Go(func() {
			r, err := s.Put(sample(string(rune('a' + i))))
			if err != nil {
				t.Error(err)
				return
			}
			got[i] = r.Name
		})
	}
	wg.Wait()
	for _, name := range got {
		if name != got[0] {
			t.Fatalf("writers were told %q: one record counts for all", got)
		}
	}
	r, ok := s.Get(sample("").Key)
	if !ok || r.Name != got[0] || r.Outputs[0].Base != 1 || r.Outputs[0].Layers[0] != sample("").Outputs[0].Layers[0] || !r.Created.Equal(sample("").Created) {
		t.Errorf("read back %+v", r)
	}
	if r, err := s.Replace(sample("new")); err != nil || r.Name != "new" {
		t.Errorf("replaced: %v, %v", r, err)
	}
	if r, _ := s.Get(sample("").Key); r == nil || r.Name != "new" {
		t.Errorf("after Replace: %+v", r)
	}
}

// TestDamageIsAMiss cuts and flips every byte of a record: each is a miss, and the next Put heals it.
func TestDamageIsAMiss(t *testing.T) {
	s := open(t)
	if _, err := s.Put(sample("good")); err != nil {
		t.Fatal(err)
	}
	path := s.path(s.records, sample("").Key)
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	damaged := [][]byte{nil}
	for i := range good {
		flipped := append([]byte(nil), good...)
		flipped[i] ^= 1
		damaged = append(damaged, good[:i], flipped)
	}
	for i, b := range damaged {
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		if r, ok := s.Get(sample("").Key); ok {
			t.Fatalf("damage %d: read %+v", i, r)
		}
	}
	if r, err := s.Put(sample("healed")); err != nil || r.Name != "healed" {
		t.Fatalf("%v, %v", r, err)
	}
	if r, ok := s.Get(sample("").Key); !ok || r.Name != "healed" {
		t.Errorf("after healing: %+v", r)
	}
}

// TestARecordUnderAnotherKeyIsAMiss moves a record's file.
func TestARecordUnderAnotherKeyIsAMiss(t *testing.T) {
	s := open(t)
	if _, err := s.Put(sample("good")); err != nil {
		t.Fatal(err)
	}
	other := key.Bytes([]byte("other"))
	if err := os.MkdirAll(filepath.Dir(s.path(s.records, other)), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(s.path(s.records, sample("").Key), s.path(s.records, other)); err != nil {
		t.Fatal(err)
	}
	if r, ok := s.Get(other); ok {
		t.Errorf("read %+v", r)
	}
}

func TestTrees(t *testing.T) {
	s := open(t)
	root, err := tree.NewDir(tree.Meta{Mode: 0o755, MTime: 42}, false, []tree.Entry{
		{Name: "f", Node: &tree.Node{Kind: tree.File, Meta: tree.Meta{Mode: 0o600}, Size: 1, Content: key.Bytes([]byte("x"))}},
	})
	if err != nil {
		t.Fatal(err)
	}
	d, err := s.PutTree(root)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := s.PutTree(root); err != nil || again != d {
		t.Errorf("the same tree again: %s, %v", again, err)
	}
	back, err := s.Tree(d)
	if err != nil {
		t.Fatal(err)
	}
	want, _ := root.Identity()
	if got, err := back.Identity(); err != nil || got != want || back.MTime != 42 {
		t.Errorf("read back %s %v, want %s", got, err, want)
	}
	path := s.path(s.trees, d)
	b, _ := os.ReadFile(path)
	b[len(b)/2] ^= 1
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Tree(d); err == nil {
		t.Error("a damaged tree was read")
	}
	if s.HasTree(d) {
		t.Error("a damaged tree is still there")
	}
}

func TestLock(t *testing.T) {
	s := open(t)
	k := key.Bytes([]byte("k"))
	unlock, err := s.Lock(t.Context(), k)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := s.Lock(ctx, k); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a second lock: %v", err)
	}
	if other, err := s.Lock(t.Context(), key.Bytes([]byte("other"))); err != nil {
		t.Error(err)
	} else {
		other()
	}
	unlock()
	again, err := s.Lock(t.Context(), k)
	if err != nil {
		t.Fatal(err)
	}
	again()
	if left, _ := os.ReadDir(s.locks); len(left) > 0 {
		t.Errorf("%d lock files are left", len(left))
	}
}

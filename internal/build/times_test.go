package build

import (
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"larder/internal/key"
	"larder/internal/ledger"
	"larder/internal/tree"
)

// seenFile is a context of one file.
func seenFile(t *testing.T, name string) *tree.Node {
	t.Helper()
	n := &tree.Node{Kind: tree.File, Meta: tree.Meta{MTime: 7}, Size: 1, Content: key.Bytes([]byte(name))}
	root, err := tree.NewDir(tree.Meta{}, false, []tree.Entry{{Name: name, Node: n}})
	if err != nil {
		t.Fatal(err)
	}
	return root
}

// TestTimesAtOnce ends builds of one context at once: none of them loses what another was shown.
func TestTimesAtOnce(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "ledgers")
	names := []string{"a", "b", "c", "d", "e", "f"}
	end := func(name string) (*times, *dated) {
		d := &dated{key: key.Bytes([]byte("context")), looks: []looked{{seenFile(t, name), key.Bytes([]byte(name))}}}
		return &times{dir: dir, contexts: map[string]*dated{"context": d}}, d
	}
	var wg sync.WaitGroup
	for _, name := range names {
		ts, _ := end(name)
		wg.Go(func() {
			if err := ts.keep(); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	ts, d := end("a")
	root, err := ledger.ReadFile(ts.file(d))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if n, err := root.Lookup(name); n == nil || err != nil {
			t.Errorf("%s is lost: %v", name, err)
		}
	}
	if list, err := os.ReadDir(dir); err != nil || len(list) != 1 {
		t.Errorf("got %v, %v", list, err)
	}
	// What says nothing new is not written. Until a looks again, it may have seen what came after it.
	if err := ts.keep(); err != nil {
		t.Fatal(err)
	}
	old := time.Unix(1e9, 0)
	if err := os.Chtimes(ts.file(d), old, old); err != nil {
		t.Fatal(err)
	}
	if err := ts.keep(); err != nil {
		t.Fatal(err)
	}
	if st, err := os.Stat(ts.file(d)); err != nil || !st.ModTime().Equal(old) {
		t.Errorf("written again: %v, %v", st.ModTime(), err)
	}
}

// TestPruneLedgers removes ledgers by age, and what killed builds left in any case.
func TestPruneLedgers(t *testing.T) {
	root := t.TempDir()
	e, err := Open(t.Context(), Config{Root: root, Idle: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := os.MkdirAll(e.ledgers(), 0o700); err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	for name, age := range map[string]time.Duration{"new": time.Minute, "old": 48 * time.Hour, "tmp-1": time.Minute, "x.lock": time.Minute} {
		path, at := filepath.Join(e.ledgers(), name), now.Add(-age)
		if err := os.WriteFile(path, []byte("ledger"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path, at, at); err != nil {
			t.Fatal(err)
		}
	}
	freed, err := e.Prune(t.Context(), Prune{Unused: time.Hour, MaxSize: -1}, now)
	if err != nil || freed.Things != 3 || freed.Bytes != 18 {
		t.Errorf("got %+v, %v", freed, err)
	}
	uses, err := e.Usage(t.Context())
	if err != nil || len(uses) != 1 || uses[0].Kind != "ledger" || uses[0].Name != "new" || uses[0].Size != 6 {
		t.Errorf("got %+v, %v", uses, err)
	}
}

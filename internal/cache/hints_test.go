package cache

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"

	"larder/internal/catalog"
	"larder/internal/content"
	"larder/internal/key"
	"larder/internal/observation"
	"larder/internal/record"
	"larder/internal/remote"
	"larder/internal/remote/local"
	"larder/internal/snapshot"
)

// shared is where builds meet: a machine's local root, and a store with a catalog for each scope.
type shared struct {
	t     *testing.T
	dir   string
	store remote.Store
	mute  map[string]bool // scopes whose store does not answer
}

func newShared(t *testing.T) *shared {
	store, err := local.New(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return &shared{t: t, dir: t.TempDir(), store: store, mute: map[string]bool{}}
}

func (w *shared) source(scope string) *Source {
	return &Source{Label: scope, ID: "scope " + scope, Store: w.store, Everyone: scope == "main", Load: func(ctx context.Context) (catalog.Reader, error) {
		if w.mute[scope] {
			return nil, errors.New("no answer")
		}
		c, err := catalog.Load(ctx, w.store, catalog.NameOf(scope), catalog.Options{})
		if err != nil {
			return nil, err
		}
		return c, nil
	}}
}

// begin begins a build that reads scopes and writes one, or none. It is a process of its own as far as the local root can tell.
func (w *shared) begin(writes string, reads ...string) *Session {
	t := w.t
	t.Helper()
	blobs, err := content.Open(w.dir + "/blobs")
	if err != nil {
		t.Fatal(err)
	}
	layers, err := snapshot.Open(w.dir, snapshot.Options{})
	if err != nil {
		t.Fatal(err)
	}
	records, err := record.Open(w.dir)
	if err != nil {
		t.Fatal(err)
	}
	cfg := Config{Records: records, Layers: layers, Blobs: blobs, Note: func(string) {}}
	for _, scope := range reads {
		cfg.Sources = append(cfg.Sources, w.source(scope))
	}
	if writes != "" {
		own := w.source(writes)
		if at := slices.Index(reads, writes); at >= 0 {
			own = cfg.Sources[at]
		}
		cfg.Targets = []*Target{{Own: own, Max: true, Save: func(ctx context.Context, c catalog.Change) (catalog.Saved, error) {
			return catalog.Save(ctx, w.store, catalog.NameOf(writes), c, catalog.Options{})
		}}}
	}
	s := Open(t.Context(), cfg)
	t.Cleanup(func() {
		s.Close()
		layers.Close()
		blobs.Close()
	})
	return s
}

// write puts records into a scope by hand.
func (w *shared) write(scope string, records ...*record.Record) {
	w.t.Helper()
	var c catalog.Change
	for _, r := range records {
		p := catalog.Put{Record: r}
		if have, err := catalog.Load(w.t.Context(), w.store, catalog.NameOf(scope), catalog.Options{}); err == nil {
			if e, ok := have.Record(w.t.Context(), r.Key); ok {
				p.Replaces = e.Record.Digest()
			}
		}
		c.Put = append(c.Put, p)
	}
	if _, err := catalog.Save(w.t.Context(), w.store, catalog.NameOf(scope), c, catalog.Options{}); err != nil {
		w.t.Fatal(err)
	}
}

// saved gives what a scope has under a key; nil for nothing.
func (w *shared) saved(scope, k string) *record.Record {
	w.t.Helper()
	c, err := catalog.Load(w.t.Context(), w.store, catalog.NameOf(scope), catalog.Options{})
	if err != nil {
		w.t.Fatal(err)
	}
	e, ok := c.Record(w.t.Context(), keyOf(k))
	if !ok {
		return nil
	}
	return e.Record
}

func keyOf(s string) key.Digest { return key.Bytes([]byte(s)) }

func listOf(sets ...string) []byte {
	var list []key.Digest
	for _, s := range sets {
		list = append(list, keyOf(s))
	}
	return observation.MarshalList(list)
}

// made is a record of a step; result says what came out.
func made(k, result string) *record.Record {
	return &record.Record{Key: keyOf(k), Name: "RUN " + k, Outputs: record.OnlyLayer(record.Layer{Identity: keyOf(result), Pinned: true})}
}

func hintOf(k string, hint []byte) *record.Record { return &record.Record{Key: keyOf(k), Hint: hint} }

func (w *shared) put(s *Session, r *record.Record, unite bool) {
	w.t.Helper()
	kept, err := s.PutHint(w.t.Context(), r, unite)
	if err != nil {
		w.t.Fatal(err)
	}
	s.Used(kept, nil, false)
}

func hints(list []*record.Record) string {
	out := ""
	for _, r := range list {
		out += fmt.Sprintf("%q %s; ", r.From, r.Hint)
	}
	return out
}

func TestAllRecordsOfAKey(t *testing.T) {
	w := newShared(t)
	w.write("main", hintOf("k", []byte("main")), hintOf("same", []byte("same")), &record.Record{Key: keyOf("data"), Data: []byte("x")})
	w.write("fork", hintOf("k", []byte("fork")), hintOf("same", []byte("same")))
	all := func(s *Session, k string) string { return hints(s.All(t.Context(), keyOf(k))) }

	s := w.begin("", "fork", "main")
	if got := all(s, "k"); got != `"scope fork" fork; "scope main" main; ` {
		t.Error(got)
	}
	if got := all(s, "same"); got != `"scope fork" same; ` {
		t.Error(got)
	}
	if got := all(s, "nothing"); got != "" {
		t.Error(got)
	}
	if _, ok := s.Get(t.Context(), keyOf("same")); !ok { // which remembers it
		t.Error("there is no such record")
	}
	w.put(s, hintOf("k", []byte("own")), false)
	if got := all(s, "k"); got != `"" own; "scope fork" fork; "scope main" main; ` {
		t.Error(got)
	}
	if got := all(w.begin(""), "k") + all(w.begin(""), "same"); got != `"" own; ` {
		t.Errorf("a build that reads no scope: %s", got)
	}
	if err := s.Delete(t.Context(), keyOf("k")); err != nil || all(s, "k") != "" {
		t.Errorf("what was forgotten: %s %v", all(s, "k"), err)
	}
	w.mute["fork"] = true
	if got := all(w.begin("", "main", "fork"), "same"); got != `"scope main" same; ` {
		t.Error(got)
	}
	w.mute["main"] = true
	if got := all(w.begin("", "main", "fork"), "same"); got != `"scope fork" same; ` {
		t.Errorf("what a store that does not answer had: %s", got)
	}
}

// TestHintsAreNothingToRestOn: what a build makes after it has read a hint is everybody's; after a claim it is not.
func TestHintsAreNothingToRestOn(t *testing.T) {
	w := newShared(t)
	w.write("main", hintOf("k", []byte("hint")), &record.Record{Key: keyOf("claim"), Data: []byte("x")})
	s := w.begin("", "main")
	if _, ok := s.Get(t.Context(), keyOf("k")); !ok || len(s.All(t.Context(), keyOf("k"))) != 1 {
		t.Error("the hint is not there")
	}
	if r, err := s.Put(t.Context(), made("step", "a")); err != nil || r.From != "" {
		t.Errorf("after a hint: %+v, %v", r, err)
	}
	if s.All(t.Context(), keyOf("claim")); !s.tainted {
		t.Error("a claim is taken for checked")
	}
	if r, err := s.Put(t.Context(), made("other step", "a")); err != nil || r.From == "" {
		t.Errorf("after a claim: %+v, %v", r, err)
	}
	r, err := s.Put(t.Context(), hintOf("set", []byte("x")))
	if err != nil || r.From != "" {
		t.Errorf("what its own steps looked at: %+v, %v", r, err)
	}
}

func TestListsAreUnitedOnAMachine(t *testing.T) {
	w := newShared(t)
	var (
		wg   sync.WaitGroup
		want []string
	)
	for i := range observation.MaxSets {
		s := w.begin("")
		want = append(want, fmt.Sprint(i))
		wg.Go(func() { w.put(s, hintOf("list", listOf(fmt.Sprint(i))), true) })
	}
	wg.Wait()
	all := w.begin("").All(t.Context(), keyOf("list"))
	if len(all) != 1 || len(all[0].Hint) != len(want)*key.Size || !catalog.ListsAll(all[0].Hint, listOf(want...)) {
		t.Errorf("the list has %d bytes", len(all[0].Hint))
	}
	s := w.begin("")
	w.put(s, hintOf("list", listOf("5")), true)
	if all := s.All(t.Context(), keyOf("list")); !bytes.HasPrefix(all[0].Hint, listOf("5")) || len(all[0].Hint) != len(want)*key.Size {
		t.Error("what was of use last is not in front")
	}
	for _, bad := range []*record.Record{made("list", "a"), hintOf("list", nil), hintOf("list", []byte("x"))} {
		if _, err := s.PutHint(t.Context(), bad, true); err == nil {
			t.Errorf("%+v is taken for a list", bad)
		}
	}
}

// TestListsAreUnitedInCatalogs: two builds that began at the same time both add to a list, and neither knows the other's.
func TestListsAreUnitedInCatalogs(t *testing.T) {
	w := newShared(t)
	w.write("dev", hintOf("list", listOf("old")))
	w.write("main", hintOf("list", listOf("main's", "more")))
	a, b := w.begin("dev", "dev", "main"), w.begin("dev", "dev", "main")
	for s, set := range map[*Session]string{a: "a", b: "b"} {
		s.All(t.Context(), keyOf("list"))
		w.put(s, hintOf("list", listOf(set)), true)
		w.put(s, hintOf("list", listOf(set+" 2")), true)
		w.put(s, hintOf("everybody's", listOf("x")), true)
	}
	a.Save(t.Context())
	b.Save(t.Context())
	if got := w.saved("dev", "list"); !bytes.Equal(got.Hint, listOf("b 2", "b", "a 2", "a", "old")) {
		t.Errorf("the list has %d bytes", len(got.Hint))
	}

	// What main has, which everybody reads, is not saved elsewhere; and what was found in a catalog is not kept here.
	c := w.begin("other", "other", "main")
	list := hintOf("list", listOf("main's"))
	list.From = "scope main"
	w.put(c, list, true)
	w.put(c, hintOf("mine", listOf("x")), true)
	c.Save(t.Context())
	if got := w.saved("other", "list"); got != nil || w.saved("other", "mine") == nil {
		t.Errorf("saved: %+v", got)
	}
	for _, r := range w.begin("").All(t.Context(), keyOf("list")) {
		if catalog.ListsAll(r.Hint, listOf("main's")) {
			t.Error("what main's builds found is everybody's on this machine")
		}
	}
	for _, s := range []*Session{a, b, c} {
		if err := s.Err(); err != nil {
			t.Error(err)
		}
	}
}

// TestHintsAreReplaced: a hint that is no list stands for the one before, in the catalog too; the same again is nothing to save.
func TestHintsAreReplaced(t *testing.T) {
	w := newShared(t)
	build := func(hint string) *Session {
		s := w.begin("main", "main")
		w.put(s, hintOf("last build", []byte(hint)), false)
		s.Save(t.Context())
		if err := s.Err(); err != nil {
			t.Error(err)
		}
		return s
	}
	build("one")
	build("two")
	if got := w.saved("main", "last build"); string(got.Hint) != "two" {
		t.Errorf("the catalog has %q", got.Hint)
	}
	if got := hints(w.begin("").All(t.Context(), keyOf("last build"))); got != `"" two; ` {
		t.Errorf("here there is %s", got)
	}
	if s := build("two"); s.Sent().Records != 0 {
		t.Errorf("%d records were saved", s.Sent().Records)
	}
	// An older larder has written the catalog anew, without what it does not know.
	w.write("main", hintOf("last build", nil), hintOf("set", nil))
	s := w.begin("main", "main")
	r, err := s.Put(t.Context(), hintOf("set", []byte("looks")))
	if err != nil {
		t.Fatal(err)
	}
	s.Used(r, nil, false)
	s.Save(t.Context())
	if got := w.saved("main", "set"); string(got.Hint) != "looks" {
		t.Errorf("the catalog has %q", got.Hint)
	}
}

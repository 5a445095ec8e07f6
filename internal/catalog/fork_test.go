package catalog

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"larder/internal/fault"
	"larder/internal/key"
)

// TestFork is somebody who holds the store's push token and knows every key of every record, but not the key that signs: whatever he
// writes, the default branch believes none of it.
func TestFork(t *testing.T) {
	public, private := newKey(t)
	_, his := newKey(t)
	signing := &Keys{Sign: private, Verify: []ed25519.PublicKey{public}}
	fork := Name{"fork", ScopeTag("fork")}
	victim := keyOf("s 0")
	evil := step("s 0", "evil")

	// Each gets the store as the default branch left it, and an older version of its document.
	attacks := map[string]func(t *testing.T, m *memory, older, newer []byte){
		"a catalog of his own": func(t *testing.T, m *memory, _, _ []byte) {
			p := newPage("main", time.Now(), merge(newState(), evil, nil, time.Now()))
			p.Repository, p.Sequence = m.name, uint64(time.Now().Add(time.Hour).UnixMilli())
			put(t, m, mainScope.Tag, p, nil)
		},
		"signed by him": func(t *testing.T, m *memory, _, _ []byte) {
			p := newPage("main", time.Now(), merge(newState(), evil, nil, time.Now()))
			p.Repository, p.Sequence = m.name, uint64(time.Now().Add(time.Hour).UnixMilli())
			put(t, m, mainScope.Tag, p, &Keys{Sign: his})
		},
		"a record edited, the signature kept": func(t *testing.T, m *memory, _, newer []byte) {
			doc, err := read(t.Context(), m, mainScope, Options{}.withDefaults())
			if err != nil {
				t.Fatal(err)
			}
			s := doc.state.clone()
			maps.DeleteFunc(s.records, func(k key.Digest, _ Entry) bool { return k == victim })
			p := newPage("main", doc.page.Time, merge(s, evil, nil, time.Now()))
			p.Repository, p.Sequence = m.name, doc.page.Sequence
			put(t, m, mainScope.Tag, p, nil)
			_, after, _ := strings.Cut(string(newer), `"annotations":`)
			m.docs[mainScope.Tag] = []byte(strings.TrimSuffix(string(m.docs[mainScope.Tag]), "}") + `,"annotations":` + after)
		},
		"the inlined page edited, all else kept": func(t *testing.T, m *memory, _, newer []byte) {
			before, rest, _ := strings.Cut(string(newer), `"data":"`)
			_, after, _ := strings.Cut(rest, `"`)
			m.docs[mainScope.Tag] = []byte(before + `"data":"` + strings.Repeat("A", 400) + `"` + after)
		},
		"the signature stripped": func(t *testing.T, m *memory, _, newer []byte) {
			m.docs[mainScope.Tag] = []byte(strings.Replace(string(newer), annotationSignature, "dev.larder.signatura", 1))
		},
		"the signature of an older one": func(t *testing.T, m *memory, older, newer []byte) {
			before, _, _ := strings.Cut(string(newer), `"annotations":`)
			_, after, _ := strings.Cut(string(older), `"annotations":`)
			m.docs[mainScope.Tag] = []byte(before + `"annotations":` + after)
		},
		"an older one put back": func(t *testing.T, m *memory, older, _ []byte) { m.docs[mainScope.Tag] = older },
		"another scope's moved here": func(t *testing.T, m *memory, _, _ []byte) {
			mustSave(t, m, fork, evil.withoutBlobs(), Options{Keys: signing}) // signed by the same key, for a less trusted scope
			m.docs[mainScope.Tag] = m.docs[fork.Tag]
		},
		"another repository's moved here": func(t *testing.T, m *memory, _, _ []byte) {
			other := newMemory("registry.example/forks")
			mustSave(t, other, mainScope, evil.withoutBlobs(), Options{Keys: signing})
			maps.Copy(m.blobs, other.blobs)
			m.docs[mainScope.Tag] = other.docs[mainScope.Tag]
		},
		"rubbish": func(t *testing.T, m *memory, _, _ []byte) { m.docs[mainScope.Tag] = []byte(`{"config":{"data":7}}`) },
	}
	for name, attack := range attacks {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			bubble(t, func(t *testing.T) {
				opt := Options{Keys: signing, Seen: OpenSeen(dir)}
				m := newMemory("registry.example/app")
				m.stocked("s", "x", 3)
				m.stockedAll(evil)
				mustSave(t, m, mainScope, steps("s", "x", 2), opt)
				older := slices.Clone(m.docs[mainScope.Tag])
				time.Sleep(time.Hour)
				mustSave(t, m, mainScope, steps("s", "x", 3), opt)
				newer := slices.Clone(m.docs[mainScope.Tag])
				time.Sleep(time.Hour)
				attack(t, m, older, newer)
				c, err := Load(t.Context(), m, mainScope, opt)
				if err == nil && strings.HasPrefix(name, "the inlined page") {
					// The page is in the store itself as well, as it was signed.
					if e, ok := c.Record(t.Context(), victim); !ok || e.Record.Name != "RUN s 0 # x" {
						t.Errorf("%+v", e.Record)
					}
					return
				}
				if !errors.Is(err, ErrAbsent) {
					t.Fatalf("it is believed: %v", err)
				}
				t.Log(err)
				// The next trusted job writes over it, and takes nothing from it. What a trusted key signed once may be somebody's
				// catalog: that goes when it is removed.
				time.Sleep(time.Minute)
				if strings.HasSuffix(name, "moved here") || strings.HasSuffix(name, "put back") {
					before := string(m.docs[mainScope.Tag])
					_, err := Save(t.Context(), m, mainScope, steps("s", "x", 1), opt)
					if fault.Of(err) != fault.Usage || !strings.Contains(err.Error(), "larder cache prune") || string(m.docs[mainScope.Tag]) != before {
						t.Errorf("%v", err)
					}
					if err := Remove(t.Context(), m, mainScope); err != nil {
						t.Fatal(err)
					}
				}
				mustSave(t, m, mainScope, steps("s", "x", 1), opt)
				c = mustLoad(t, m, mainScope, opt)
				if e, ok := c.Record(t.Context(), victim); !ok || e.Record.Name != "RUN s 0 # x" || len(c.Entries(t.Context())) != 1 {
					t.Errorf("%d records, %+v", len(c.Entries(t.Context())), e.Record)
				}
				if c.SignedBy() != fingerprint(public) {
					t.Errorf("signed by %q", c.SignedBy())
				}
			})
		})
	}
}

// TestForkWithoutSignatures: without keys a catalog still counts only in its own place.
func TestForkWithoutSignatures(t *testing.T) {
	bubble(t, func(t *testing.T) {
		m, other := newMemory("registry.example/app"), newMemory("registry.example/forks")
		fork := Name{"fork", ScopeTag("fork")}
		mustSave(t, m, fork, step("s", "evil").withoutBlobs(), Options{})
		mustSave(t, other, mainScope, step("s", "evil").withoutBlobs(), Options{})
		for _, doc := range [][]byte{m.docs[fork.Tag], other.docs[mainScope.Tag]} {
			m.docs[mainScope.Tag] = doc
			if _, err := Load(t.Context(), m, mainScope, Options{}); !errors.Is(err, ErrAbsent) || !strings.Contains(err.Error(), "it was written for") {
				t.Errorf("%v", err)
			}
		}
		// A directory may be moved.
		dir, moved := newMemory("local:/a"), newMemory("local:/b")
		mustSave(t, dir, mainScope, step("s", "x").withoutBlobs(), Options{})
		moved.docs, moved.blobs = dir.docs, dir.blobs
		mustLoad(t, moved, mainScope, Options{})
	})
}

// TestSignedDirectories: two directories that one root sees are no replays of each other, and an older copy of one is as good as it was.
func TestSignedDirectories(t *testing.T) {
	_, private := newKey(t)
	dir := t.TempDir()
	bubble(t, func(t *testing.T) {
		opt := Options{Keys: &Keys{Sign: private}, Seen: OpenSeen(dir)}
		a, b := newMemory("local:/a"), newMemory("local:/b")
		mustSave(t, a, mainScope, step("old", "x").withoutBlobs(), opt)
		restored := slices.Clone(a.docs[mainScope.Tag])
		time.Sleep(time.Hour)
		mustSave(t, b, mainScope, step("s", "x").withoutBlobs(), opt)
		mustLoad(t, a, mainScope, opt)
		mustSave(t, a, mainScope, step("new", "x").withoutBlobs(), opt)
		a.docs[mainScope.Tag] = restored
		time.Sleep(time.Hour)
		mustSave(t, a, mainScope, step("newer", "x").withoutBlobs(), opt)
		if c := mustLoad(t, a, mainScope, opt); len(c.Entries(t.Context())) != 2 {
			t.Errorf("%d records in a directory that was restored", len(c.Entries(t.Context())))
		}
	})
}

// TestOldSignature: one that nobody renewed for longer than records are kept does not count, with or without memory.
func TestOldSignature(t *testing.T) {
	public, private := newKey(t)
	bubble(t, func(t *testing.T) {
		m := newMemory("registry.example/app")
		mustSave(t, m, mainScope, step("s", "x").withoutBlobs(), Options{Keys: &Keys{Sign: private}})
		reader := Options{Keys: &Keys{Verify: []ed25519.PublicKey{public}}}
		time.Sleep(29 * 24 * time.Hour)
		mustLoad(t, m, mainScope, reader)
		time.Sleep(2 * 24 * time.Hour)
		if _, err := Load(t.Context(), m, mainScope, reader); !errors.Is(err, ErrAbsent) || !strings.Contains(err.Error(), "too old") {
			t.Errorf("%v", err)
		}
		if _, err := Load(t.Context(), m, mainScope, Options{}); err != nil {
			t.Errorf("who does not check signatures: %v", err)
		}
	})
}

// TestWhoMayNotWrite: a build that cannot sign leaves a signed catalog alone.
func TestWhoMayNotWrite(t *testing.T) {
	public, private := newKey(t)
	_, other := newKey(t)
	bubble(t, func(t *testing.T) {
		m := newMemory("registry.example/app")
		mustSave(t, m, mainScope, step("s", "x").withoutBlobs(), Options{Keys: &Keys{Sign: private}})
		before := m.docs[mainScope.Tag]
		for name, k := range map[string]*Keys{"no keys": nil, "only verifies": {Verify: []ed25519.PublicKey{public}}} {
			for range 2 {
				_, err := Save(t.Context(), m, mainScope, step("t", "x").withoutBlobs(), Options{Keys: k})
				if fault.Of(err) != fault.Usage || !strings.Contains(err.Error(), "--cache-sign-key") {
					t.Errorf("%s: %v", name, err)
				}
			}
		}
		if string(m.docs[mainScope.Tag]) != string(before) {
			t.Error("it was written over")
		}
		// Another key's records are not taken over, even where only Sign says whom to trust.
		mustSave(t, m, mainScope, step("t", "x").withoutBlobs(), Options{Keys: &Keys{Sign: other}})
		if c := mustLoad(t, m, mainScope, Options{Keys: &Keys{Sign: other}}); len(c.Entries(t.Context())) != 1 {
			t.Errorf("%d records", len(c.Entries(t.Context())))
		}
		// Keys that change: both are trusted for a while.
		mustSave(t, m, mainScope, step("u", "x").withoutBlobs(), Options{Keys: &Keys{Sign: private, Verify: []ed25519.PublicKey{other.Public().(ed25519.PublicKey)}}})
		if c := mustLoad(t, m, mainScope, Options{Keys: &Keys{Verify: []ed25519.PublicKey{public}}}); len(c.Entries(t.Context())) != 2 {
			t.Errorf("%d records", len(c.Entries(t.Context())))
		}
	})
}

// TestSequenceGoesUp even where a catalog was lost, and with clocks that go wrong.
func TestSequenceGoesUp(t *testing.T) {
	_, private := newKey(t)
	dir := t.TempDir()
	bubble(t, func(t *testing.T) {
		m := newMemory("registry.example/app")
		opt := Options{Keys: &Keys{Sign: private}, Seen: OpenSeen(dir)}
		last := uint64(0)
		for i := range 6 {
			at := time.Now()
			switch i {
			case 2:
				delete(m.docs, mainScope.Tag)
			case 4:
				at = at.Add(-time.Hour) // a slow clock
			}
			opt.Now = func() time.Time { return at }
			mustSave(t, m, mainScope, step(fmt.Sprint(i), "x").withoutBlobs(), opt)
			c := mustLoad(t, m, mainScope, opt)
			if c.Sequence() <= last {
				t.Errorf("save %d: sequence %d after %d", i, c.Sequence(), last)
			}
			last = c.Sequence()
			time.Sleep(10 * time.Minute)
		}
	})
}

// TestSeenIsOnlyAMemory: what is lost of it protects less and fails nothing.
func TestSeenIsOnlyAMemory(t *testing.T) {
	s := OpenSeen(t.TempDir() + "/seen")
	s.note("r", "s", sighting{5, epoch})
	s.note("r", "s", sighting{4, epoch.Add(time.Hour)})
	if got := s.last("r", "s"); got.Sequence != 5 || !got.Time.Equal(epoch) {
		t.Errorf("%+v", got)
	}
	if got := s.last("r", "other"); got.Sequence != 0 {
		t.Errorf("%+v", got)
	}
	for sequence, c := range map[uint64]struct {
		ago   time.Duration
		older bool
	}{4: {2 * time.Minute, true}, 3: {30 * time.Second, false}, 5: {2 * time.Minute, false}, 6: {2 * time.Minute, false}} {
		if got := (sighting{sequence, epoch.Add(-c.ago)}).older(s.last("r", "s")); got != c.older {
			t.Errorf("sequence %d of %s ago is older: %v", sequence, c.ago, got)
		}
	}
	unwritable := OpenSeen("/dev/null/seen")
	unwritable.note("r", "s", sighting{1, epoch})
	var none *Seen
	none.note("r", "s", sighting{1, epoch})
	if unwritable.last("r", "s") != (sighting{}) || none.last("r", "s") != (sighting{}) {
		t.Error("remembered in nothing")
	}
}

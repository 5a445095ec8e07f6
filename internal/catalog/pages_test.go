package catalog

import (
	"errors"
	"slices"
	"testing"
	"time"

	"larder/internal/key"
)

// TestOnlyPagesAreTidied: tags that a catalog names as its old pages, or that merely look so, are removed only where they are that.
func TestOnlyPagesAreTidied(t *testing.T) {
	bubble(t, func(t *testing.T) {
		m := newMemory("registry.example/app")
		old := time.Now().Add(-2 * time.Hour)
		mine := func(digits string) string { return pagePrefix(mainScope.Tag) + digits }
		another := pagePrefix(ScopeTag("other")) + "0123456789ab"
		nested := pagePrefix(mine("x")) + "0123456789ab" // of a catalog under a tag of the user's choice
		stay := []string{another, nested, mine("00000000000b")}
		for _, tag := range stay {
			m.docs[tag] = []byte(damageDoc)
		}
		m.docs[mine("00000000000a")] = []byte(damageDoc)
		m.docs[mine("00000000000b")] = []byte(imageDoc)
		p := newPage("main", time.Now(), newState())
		p.Repository, p.Sequence = m.name, 1
		for _, tag := range append([]string{mine("00000000000a")}, stay...) {
			p.Retired = append(p.Retired, retirement{tag, old})
		}
		p.Pages = []pageRef{{Tag: another, Blob: blobOf(descOf("page", pageMediaType))}}
		put(t, m, mainScope.Tag, p, nil)
		mustSave(t, m, mainScope, step("s", "x").withoutBlobs(), Options{})
		time.Sleep(2 * time.Hour)
		mustSave(t, m, mainScope, step("t", "x").withoutBlobs(), Options{})
		if _, there := m.docs[mine("00000000000a")]; there {
			t.Error("an old page stays")
		}
		if _, err := Prune(t.Context(), m, mainScope, Keep{Record: func(e Entry) bool { return e.Record.Key == key.Digest{} }}, Options{}); err != nil {
			t.Error(err)
		}
		if err := Remove(t.Context(), m, mainScope); err != nil {
			t.Fatal(err)
		}
		if _, err := Load(t.Context(), m, mainScope, Options{}); !errors.Is(err, ErrAbsent) {
			t.Error(err)
		}
		left, err := m.Names(t.Context(), "")
		slices.Sort(stay)
		if err != nil || !slices.Equal(left, stay) {
			t.Errorf("left: %v, want %v", left, stay)
		}
	})
}

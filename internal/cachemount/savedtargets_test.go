package cachemount

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

// TestFromOneToAnother: builds on empty machines restore from one store and save to another. What the second one keeps is all that it was
// given, and does not grow without bound.
func TestFromOneToAnother(t *testing.T) {
	both(t, func(t *testing.T, k Key) {
		a, b := newDepot(t), newDepot(t)
		newMachine(t, a).once(k, files(k, "base", 20))
		want := files(k, "base", 20)
		for i := range 5 {
			m := newMachine(t, a)
			m.to = []*depot{b}
			add := files(k, fmt.Sprintf("n%d-", i), 1)
			m.once(k, add)
			if k.ID == apart.ID {
				want = files(k, "base", 20) // one writer's, whole
			}
			for name, data := range add {
				want[name] = data
			}
			wants(t, fmt.Sprintf("after build %d", i), b.restored(k), want)
		}
		if row := b.row(k); len(row.Segments) > 2 {
			t.Errorf("it has %d segments", len(row.Segments))
		}
		wants(t, "the first store", a.restored(k), files(k, "base", 20))
	})
}

// TestTwoTargets: both have everything, whichever the machine began with.
func TestTwoTargets(t *testing.T) {
	both(t, func(t *testing.T, k Key) {
		first, second := newDepot(t), newDepot(t)
		m := newMachine(t, first)
		m.to = []*depot{first, second}
		want := files(k, "base", 20)
		m.once(k, want)
		for i := range 4 {
			if i%2 == 1 { // an empty one
				m = newMachine(t, first)
				m.to = []*depot{first, second}
			}
			add := files(k, fmt.Sprintf("n%d-", i), 1)
			m.once(k, add)
			for name, data := range add {
				want[name] = data
			}
			wants(t, "the first store", first.restored(k), want)
			wants(t, "the second store", second.restored(k), want)
			a, b := first.row(k), second.row(k)
			if len(a.Segments) > 6 || len(b.Segments) > 6 || a.Builds != b.Builds {
				t.Errorf("%d and %d segments, %d and %d builds", len(a.Segments), len(b.Segments), a.Builds, b.Builds)
			}
		}
	})
}

// TestWhatIsNotSavedIsSaid, for --cache-strict.
func TestWhatIsNotSavedIsSaid(t *testing.T) {
	long := apart
	long.ID = "/" + strings.Repeat("long/", 2000)
	for name, c := range map[string]struct {
		key    Key
		broken func(m *machine, d *depot)
	}{
		"no place for packs":     {apart, func(m *machine, _ *depot) { m.temp = filepath.Join(m.temp, "missing") }},
		"refused by the catalog": {long, func(*machine, *depot) {}},
		"store full": {apart, func(_ *machine, d *depot) {
			d.interfere(func(ocispecs.Descriptor) error { return errors.New("the store is full") })
		}},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDepot(t)
			m := newMachine(t, d)
			m.quiet = true
			c.broken(m, d)
			b := m.build()
			b.step(c.key, files(c.key, "a", 3))
			b.end()
			if b.session.Err() == nil {
				t.Error("nothing says so to --cache-strict")
			}
			if len(b.warned) == 0 {
				t.Error("nobody is told")
			}
			if d.row(c.key) != nil {
				t.Error("the catalog has it")
			}
		})
	}
}

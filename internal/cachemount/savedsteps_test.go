package cachemount

import (
	"errors"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"larder/internal/pack"
)

// TestStepsOfABuildAddUp: steps of one build are saved one after the other, on top of what was there, and whatever another build brought
// between them.
func TestStepsOfABuildAddUp(t *testing.T) {
	steps := func(t *testing.T, k Key, between func(*depot)) map[string]string {
		d := newDepot(t)
		newMachine(t, d).once(k, files(k, "base", 40))
		b := newMachine(t, d).build()
		b.step(k, files(k, "one", 1))
		between(d)
		b.step(k, files(k, "two", 1))
		b.end()
		return d.restored(k)
	}
	both(t, func(t *testing.T, k Key) {
		got := steps(t, k, func(*depot) {})
		wants(t, "an empty machine", got, files(k, "base", 40), files(k, "one", 1), files(k, "two", 1))
	})
	t.Run("another build", func(t *testing.T) {
		k := united
		got := steps(t, k, func(d *depot) { newMachine(t, d).once(k, files(k, "other", 1)) })
		wants(t, "an empty machine", got, files(k, "base", 40), files(k, "one", 1), files(k, "two", 1), files(k, "other", 1))
	})
}

// TestKilledStepIsNotSaved: the saving of what step 1 left is stopped by step 2, which is killed. There is step 1's state, or what was before
// it, and never step 2's. A step that comes to its end there makes it good.
func TestKilledStepIsNotSaved(t *testing.T) {
	for _, before := range []map[string]string{nil, {"state": "0"}} {
		d := newDepot(t)
		if before != nil {
			newMachine(t, d).once(apart, before)
		}
		m := newMachine(t, d)
		began := make(chan struct{}, 100)
		m.begin = func(string) {
			began <- struct{}{}
			time.Sleep(50 * time.Millisecond) // it is stopped meanwhile
		}
		b := m.build()
		one := acquire(t, b, apart, Shared)
		for len(began) > 0 {
			<-began // of restoring
		}
		write(t, one.Dir(), map[string]string{"state": "1"})
		release(t, one)
		<-began
		two := acquire(t, b, apart, Shared)
		write(t, two.Dir(), map[string]string{"state": "2, half of it"})
		must(t, two.Release(false))
		b.end()
		if got := d.restored(apart)["state"]; got != "1" && got != before["state"] {
			t.Errorf("an empty machine gets %q, before there was %q", got, before)
		}
		b = m.build() // by a step that only looks
		b.step(apart, nil)
		b.end()
		b = m.build()
		b.step(apart, map[string]string{"state": "3"})
		b.end()
		wants(t, "after a step that came to its end", d.restored(apart), map[string]string{"state": "3"})
	}
}

// TestKilledProcessIsNotSaved: as above, and the step's process is killed with larder's. Nobody told the directory.
func TestKilledProcessIsNotSaved(t *testing.T) {
	d := newDepot(t)
	m := newMachine(t, d)
	m.once(apart, map[string]string{"state": "1"})
	b := m.build()
	mount := acquire(t, b, apart, Shared)
	write(t, mount.Dir(), map[string]string{"state": "2, half of it"})
	must(t, mount.(*saved).lock.Unlock())
	b.kill()
	b = m.build() // a step that is killed as well
	must(t, acquire(t, b, apart, Shared).Release(false))
	b.end()
	wants(t, "an empty machine", d.restored(apart), map[string]string{"state": "1"})
	m.once(apart, map[string]string{"state": "3"})
	wants(t, "after a step that came to its end", d.restored(apart), map[string]string{"state": "3"})
}

// TestSavingWhileItIsStillSent: what an earlier step of the build left is still on its way to the store when the next one is saved. That is no
// loss, and nothing is sent twice.
func TestSavingWhileItIsStillSent(t *testing.T) {
	both(t, func(t *testing.T, k Key) {
		d := newDepot(t)
		m := newMachine(t, d)
		m.once(k, files(k, "base", 10))
		d.traffic()
		release := make(chan struct{})
		d.interfere(func(ocispecs.Descriptor) error {
			<-release
			return nil
		})
		const size = 1 << 20
		one, two := map[string]string{at(k, "one"): string(noise(1, size))}, map[string]string{at(k, "two"): string(noise(2, size))}
		b := m.build()
		b.step(k, one)
		b.step(k, two)
		close(release)
		b.end()
		if len(b.warned) > 0 {
			t.Errorf("it says %q", b.warned)
		}
		if packs, _ := d.traffic(); packs < 2*size || packs > 2*size+64<<10 {
			t.Errorf("%d bytes of packs were sent for %d bytes of new contents", packs, 2*size)
		}
		wants(t, "an empty machine", d.restored(k), files(k, "base", 10), one, two)
	})
}

// TestAFailedUploadIsNotNamed: the pack of step 1 fails while step 2's comes through. The catalog names what is whole only.
func TestAFailedUploadIsNotNamed(t *testing.T) {
	both(t, func(t *testing.T, k Key) {
		d := newDepot(t)
		m := newMachine(t, d)
		m.quiet = true
		m.once(k, files(k, "base", 10))
		var failed atomic.Bool
		d.interfere(func(desc ocispecs.Descriptor) error {
			if desc.MediaType == pack.MediaType && failed.CompareAndSwap(false, true) {
				time.Sleep(20 * time.Millisecond)
				return errors.New("the store is full")
			}
			return nil
		})
		b := m.build()
		b.step(k, files(k, "one", 1))
		b.step(k, files(k, "two", 1))
		b.end()
		if b.session.Err() == nil {
			t.Error("a pack was not stored, and nothing says so")
		}
		d.interfere(nil)
		got := d.restored(k)
		if len(got) == 10 {
			wants(t, "an empty machine", got, files(k, "base", 10))
		} else { // step 2 found out in time, and its pack has it all
			wants(t, "an empty machine", got, files(k, "base", 10), files(k, "one", 1), files(k, "two", 1))
		}
		m.once(k, nil)
		wants(t, "after the next build", d.restored(k), files(k, "base", 10), files(k, "one", 1), files(k, "two", 1))
	})
}

// TestAcquireDoesNotWaitForOthersSaving: two directories of the key are being saved, which takes long, while a step wants a third one.
func TestAcquireDoesNotWaitForOthersSaving(t *testing.T) {
	for _, sharing := range []Sharing{Shared, Private} {
		d := newDepot(t)
		m := newMachine(t, d)
		began := make(chan struct{}, 100)
		m.begin = func(string) { began <- struct{}{} }
		b := m.build()
		var list []Mount
		for range 3 {
			list = append(list, acquire(t, b, apart, Private))
		}
		for _, mount := range list[1:] {
			write(t, mount.Dir(), map[string]string{"zeroes": ""})
			must(t, os.Truncate(filepath.Join(mount.Dir(), "zeroes"), 64<<30))
		}
		must(t, list[0].Release(false)) // it is to be had, and nothing of it is saved
		release(t, list[1])
		release(t, list[2])
		<-began
		start := time.Now()
		mount := acquire(t, b, apart, sharing)
		if took := time.Since(start); took > 2*time.Second {
			t.Errorf("sharing %d: the step waited for %v", sharing, took)
		}
		release(t, mount)
		b.kill()
	}
}

// TestBuildsAreCounted, not the steps of them: for how long a file was idle, and how often a mount was used.
func TestBuildsAreCounted(t *testing.T) {
	d := newDepot(t)
	m := newMachine(t, d)
	for i := range 5 {
		b := m.build()
		for step := range 4 {
			mount := acquire(t, b, apart, Shared)
			if i == 0 && step == 0 {
				write(t, mount.Dir(), map[string]string{"old": "o"})
			}
			if step == 0 {
				write(t, mount.Dir(), map[string]string{"by the first step": time.Now().String()})
			}
			write(t, mount.Dir(), map[string]string{filepath.Join("d", string(rune('a'+i)), string(rune('a'+step))): "x"})
			release(t, mount)
			b.settle()
		}
		b.end()
		if got := d.row(apart).Builds; got != int64(i+1) {
			t.Errorf("the catalog counts %d builds, there were %d", got, i+1)
		}
		slot := filepath.Join(m.local.In("test").keyDir(apart), "0")
		idle := loadState(slot).generation.Idle
		if idle["old"] != i || idle["by the first step"] != 0 || idle["d/a/b"] != i {
			t.Errorf("after build %d: %v", i, idle)
		}
	}
	if left, err := os.ReadDir(m.temp); err != nil || len(left) > 0 {
		t.Error("packs are left", left, err)
	}
}

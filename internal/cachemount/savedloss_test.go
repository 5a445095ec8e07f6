package cachemount

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestCatalogThatWasNotWritten: a build's blobs are stored, and its catalog is not. What it left is saved by the next one on its machine,
// whether or not that one adds anything.
func TestCatalogThatWasNotWritten(t *testing.T) {
	both(t, func(t *testing.T, k Key) {
		for name, add := range map[string]map[string]string{"nothing new": nil, "something new": files(k, "three", 1)} {
			t.Run(name, func(t *testing.T) {
				d := newDepot(t)
				m := newMachine(t, d)
				m.once(k, files(k, "base", 40))
				b := m.build()
				b.step(k, files(k, "two", 1))
				b.kill()
				b = m.build() // and another one
				b.step(k, files(k, "twice", 1))
				b.kill()
				m.once(k, add)
				wants(t, "an empty machine", d.restored(k), files(k, "base", 40), files(k, "two", 1), files(k, "twice", 1), add)
			})
		}
	})
}

// TestCatalogThatOthersWrote: while one machine's catalog was not written, another machine's was.
func TestCatalogThatOthersWrote(t *testing.T) {
	both(t, func(t *testing.T, k Key) {
		d := newDepot(t)
		m := newMachine(t, d)
		m.once(k, files(k, "base", 40))
		b := m.build()
		b.step(k, files(k, "two", 1))
		b.kill()
		newMachine(t, d).once(k, files(k, "other", 1))
		m.once(k, files(k, "three", 1))
		got := d.restored(k)
		if k.ID == united.ID {
			wants(t, "an empty machine", got, files(k, "base", 40), files(k, "two", 1), files(k, "other", 1), files(k, "three", 1))
		} else {
			wants(t, "an empty machine", got, files(k, "base", 40), files(k, "two", 1), files(k, "three", 1))
		}
	})
}

// TestLostPacks: the store has lost what a mount lies in. Who finds that out takes it from the catalog, and the machine that still has it packs it
// anew, whether or not anything changed there.
func TestLostPacks(t *testing.T) {
	both(t, func(t *testing.T, k Key) {
		for name, add := range map[string]map[string]string{"nothing new": nil, "something new": files(k, "new", 1)} {
			t.Run(name, func(t *testing.T) {
				d := newDepot(t)
				m := newMachine(t, d)
				m.once(k, files(k, "base", 40))
				d.lose(k)
				found := newMachine(t, d)
				found.quiet = true
				found.once(k, nil)
				m.quiet = true // it says so when it finds out
				m.once(k, add)
				wants(t, "an empty machine", d.restored(k), files(k, "base", 40), add)
			})
		}
	})
}

// TestUnitedNoMore: a file that no such cache has makes a mount one writer's. It keeps what two writers had put there.
func TestUnitedNoMore(t *testing.T) {
	d := newDepot(t)
	newMachine(t, d).once(united, files(united, "base", 40))
	one, two := newMachine(t, d).build(), newMachine(t, d).build()
	one.step(united, files(united, "one", 1))
	two.step(united, files(united, "two", 1))
	one.end()
	two.end()
	if row := d.row(united); !row.United || len(row.Segments) < 3 {
		t.Fatalf("they are not united: %+v", row)
	}
	stray := map[string]string{"stray": "x"}
	newMachine(t, d).once(united, stray)
	if d.row(united).United {
		t.Fatal("it is united still: the test has to be another one")
	}
	wants(t, "an empty machine", d.restored(united), files(united, "base", 40), files(united, "one", 1), files(united, "two", 1), stray)
	newMachine(t, d).once(united, files(united, "later", 1))
	wants(t, "after one more", d.restored(united), files(united, "base", 40), files(united, "one", 1), files(united, "two", 1), stray, files(united, "later", 1))
}

// TestTouchedFileIsNotSent again: its bytes are where they were.
func TestTouchedFileIsNotSent(t *testing.T) {
	both(t, func(t *testing.T, k Key) {
		d := newDepot(t)
		m := newMachine(t, d)
		big := map[string]string{at(k, "big"): string(noise(1, 3<<20)), at(k, "small"): string(noise(2, 10<<10))}
		m.once(k, big)
		d.traffic()
		b := m.build()
		mount := acquire(t, b, k, Shared)
		hourAgo := time.Now().Add(-time.Hour)
		for name := range big {
			must(t, os.Chtimes(filepath.Join(mount.Dir(), name), hourAgo, hourAgo))
		}
		write(t, mount.Dir(), files(k, "new", 1))
		release(t, mount)
		b.end()
		if packs, _ := d.traffic(); packs > 4<<10 {
			t.Errorf("%d bytes of packs were sent", packs)
		}
		wants(t, "an empty machine", d.restored(k), big, files(k, "new", 1))
	})
}

// TestNoRoomToRestore: that the disk is full is this machine's trouble. The remote cache keeps what it has, and what steps make of nothing does
// not take its place.
func TestNoRoomToRestore(t *testing.T) {
	both(t, func(t *testing.T, k Key) {
		d := newDepot(t)
		big := map[string]string{at(k, "big"): string(noise(1, 3<<20))}
		newMachine(t, d).once(k, big)
		was := d.row(k)
		dir := t.TempDir()
		must(t, unix.Mount("tmpfs", dir, "tmpfs", 0, "size=1m"))
		t.Cleanup(func() { must(t, unix.Unmount(dir, unix.MNT_DETACH)) })
		m := newMachine(t, d)
		m.local, m.quiet = Open(dir), true
		b := m.build()
		mount := acquire(t, b, k, Shared)
		wants(t, "the step", filesIn(t, mount.Dir()))
		write(t, mount.Dir(), files(k, "small", 1))
		release(t, mount)
		b.settle()
		b.step(k, files(k, "smaller", 1))
		b.end()
		if len(b.warned) == 0 || b.session.Err() == nil {
			t.Error("nothing says that it is not restored")
		}
		if row := d.row(k); row == nil || row.Files != was.Files || row.Size != was.Size || len(row.Segments) != len(was.Segments) {
			t.Errorf("the catalog says %+v, it was %+v", row, was)
		}
		wants(t, "an empty machine", d.restored(k), big)
	})
}

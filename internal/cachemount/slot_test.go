package cachemount

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"larder/internal/key"
	"larder/internal/tree"
)

// TestNewestOfASharedMount: the first of two steps leaves it while the second one still writes, and is killed then. Whoever comes next is not
// told that the files are older than that.
func TestNewestOfASharedMount(t *testing.T) {
	for name, kill := range map[string]bool{"killed": true, "left": false} {
		t.Run(name, func(t *testing.T) {
			local := Open(t.TempDir())
			one, two := acquire(t, local, apart, Shared), acquire(t, local, apart, Shared)
			for i, m := range []Mount{one, two} {
				must(t, m.Show(t.Context(), tree.Empty(), key.Digest{byte(i)}))
			}
			release(t, one)
			time.Sleep(20 * time.Millisecond)
			write(t, two.Dir(), map[string]string{"obj.o": "x"})
			st, err := os.Stat(filepath.Join(two.Dir(), "obj.o"))
			must(t, err)
			if kill {
				must(t, two.(*slot).lock.Unlock())
			} else {
				release(t, two)
			}
			next := acquire(t, local, apart, Shared)
			past, err := next.Past()
			must(t, err)
			if past.Newest < st.ModTime().UnixNano() {
				t.Errorf("what is in there is said to be older than it is by %v", time.Duration(st.ModTime().UnixNano()-past.Newest))
			}
			release(t, next)
		})
	}
}

// TestSweep: what killed processes left goes, what is in use stays, and so does what a mount is known by.
func TestSweep(t *testing.T) {
	d := newDepot(t)
	m := newMachine(t, d)
	m.once(apart, files(apart, "base", 3))
	b := m.build()
	busy := acquire(t, b, united, Shared)
	write(t, busy.Dir(), files(united, "busy", 1))
	local := m.local.In("test")
	var litter, stay []string
	for _, k := range []Key{apart, united} {
		dir := local.keyDir(k)
		for _, name := range []string{"new-1/data/half", "old-0-x/data/gone"} {
			write(t, dir, map[string]string{name: "x"})
		}
		list := []string{filepath.Join(dir, "new-1"), filepath.Join(dir, "old-0-x")}
		for _, name := range []string{"tmp-1", "stamps.1.tmp"} {
			write(t, filepath.Join(dir, "0"), map[string]string{name: "x"})
			list = append(list, filepath.Join(dir, "0", name))
		}
		if k.ID == apart.ID {
			litter = append(litter, list...)
		} else {
			litter, stay = append(litter, list[:2]...), append(stay, list[2:]...)
		}
	}
	write(t, local.dir, map[string]string{"a file": "x"})
	must(t, m.local.Sweep())
	for _, path := range litter {
		if exists(path) {
			t.Errorf("%s is still there", path)
		}
	}
	for _, path := range stay {
		if !exists(path) {
			t.Errorf("%s went, which a step may be writing", path)
		}
	}
	release(t, busy)
	b.end()
	must(t, m.local.Sweep())
	for _, path := range stay {
		if exists(path) {
			t.Errorf("%s is still there", path)
		}
	}
	d.traffic()
	m.once(apart, nil)
	if packs, writes := d.traffic(); packs != 0 || writes != 0 {
		t.Errorf("a build without changes sent %d bytes of packs, %d blobs and documents in all", packs, writes)
	}
	must(t, Open(filepath.Join(t.TempDir(), "none")).Sweep())
}

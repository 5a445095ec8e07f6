package cachemount

import (
	"golang.org/x/sys/unix"
	"testing"
)

func TestXNoRoomNextBuild(t *testing.T) {
	d := newDepot(t)
	k := apart
	big := map[string]string{at(k, "big"): string(noise(1, 3<<20))}
	newMachine(t, d).once(k, big)
	dir := t.TempDir()
	must(t, unix.Mount("tmpfs", dir, "tmpfs", 0, "size=1m"))
	t.Cleanup(func() { must(t, unix.Unmount(dir, unix.MNT_DETACH)) })
	m := newMachine(t, d)
	m.local, m.quiet = Open(dir), true
	m.once(k, files(k, "small", 1))
	must(t, unix.Mount("tmpfs", dir, "tmpfs", unix.MS_REMOUNT, "size=100m"))
	m.once(k, files(k, "small", 1))
	got := d.restored(k)
	if got[at(k, "big")] == "" {
		t.Error("what the remote cache had is gone")
	}
}

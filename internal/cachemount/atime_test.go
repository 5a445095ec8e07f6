package cachemount

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// seenThrough mounts dir again as a step sees it, with an option for access times.
func seenThrough(t *testing.T, dir string, flag uintptr) string {
	t.Helper()
	at := t.TempDir()
	must(t, unix.Mount(dir, at, "", unix.MS_BIND, ""))
	t.Cleanup(func() {
		if err := unix.Unmount(at, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	must(t, unix.Mount("", at, "", unix.MS_REMOUNT|unix.MS_BIND|flag, ""))
	return at
}

// TestReadingIsSeen: what a step reads, in whatever way, and nothing else counts as used, build after build.
func TestReadingIsSeen(t *testing.T) {
	for name, flag := range map[string]uintptr{"strictatime": unix.MS_STRICTATIME, "relatime": unix.MS_RELATIME} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			src := t.TempDir()
			write(t, src, map[string]string{"read": "r", "mapped": "m", "run": "#!/bin/true\n", "stat": "s", "d/listed": "l", "written": "w", "touched": "t",
				"linked": "x", "moded": "y", "copied": "z", "opened": "o"})
			must(t, os.Chmod(filepath.Join(src, "run"), 0o755))
			must(t, os.Link(filepath.Join(src, "linked"), filepath.Join(src, "other name")))
			must(t, os.Symlink("read", filepath.Join(src, "followed")))
			must(t, os.Symlink("read", filepath.Join(src, "not followed")))
			future := time.Now().Add(time.Hour)
			must(t, os.Chtimes(filepath.Join(src, "read"), future, future))
			g := w.captured(src, nil, nil).Next
			out, stamps := w.restored(g)

			dir := seenThrough(t, out, flag)
			p := func(name string) string { return filepath.Join(dir, name) }
			steps := map[string]func() error{
				"read":       func() error { _, err := os.ReadFile(p("read")); return err },
				"mapped":     func() error { return readMapped(p("mapped")) },
				"run":        func() error { return runFile(p("run")) },
				"written":    func() error { return os.WriteFile(p("written"), []byte("W"), 0o644) },
				"touched":    func() error { return os.Chtimes(p("touched"), time.Time{}, time.Now()) },
				"other name": func() error { _, err := os.ReadFile(p("other name")); return err },
				"followed":   func() error { _, err := os.Stat(p("followed")); return err },
				"nothing": func() error {
					if _, err := os.Stat(p("stat")); err != nil {
						return err
					}
					f, err := os.Open(p("opened"))
					if err != nil {
						return err
					}
					f.Close()
					_, err = os.ReadDir(p("d"))
					return err
				},
			}
			want := []string{"followed", "linked", "mapped", "other name", "read", "run", "touched", "written"}
			if flag == unix.MS_RELATIME {
				steps = map[string]func() error{"read": steps["read"], "followed": steps["followed"], "other name": steps["other name"], "mapped": steps["mapped"]}
				want = []string{"followed", "linked", "mapped", "other name", "read"}
			}
			builds := 3
			if flag == unix.MS_RELATIME {
				builds = 1 // what was read once since its change is not noted again for a day
			}
			for build := range builds {
				time.Sleep(tick) // builds are not that close to each other
				for step, do := range steps {
					if err := do(); err != nil {
						t.Fatal(step, err)
					}
				}
				got := w.captured(out, g, stamps)
				var used []string
				for path := range filesOf(t, got.Next) {
					if got.Next.Idle[path] == 0 {
						used = append(used, path)
					}
				}
				if slices.Sort(used); !slices.Equal(used, want) {
					t.Errorf("build %d: used %q, want %q", build, used, want)
				}
				if n := int64(len(want)) - int64(countIn(want, "followed")); got.Used != n || got.Had != 12 {
					t.Errorf("build %d: %d used of %d", build, got.Used, got.Had)
				}
				if n := got.Next.Idle["stat"]; n != build+1 {
					t.Errorf("build %d: idle for %d", build, n)
				}
				g, stamps = got.Next, got.Stamps
			}
		})
	}
}

func countIn(list []string, s string) (n int) {
	for _, e := range list {
		if e == s {
			n++
		}
	}
	return n
}

func readMapped(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	b, err := unix.Mmap(int(f.Fd()), 0, 1, unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return err
	}
	return unix.Munmap(b)
}

func runFile(path string) error {
	p, err := os.StartProcess(path, []string{path}, &os.ProcAttr{})
	if err != nil {
		return err
	}
	_, err = p.Wait()
	return err
}

// TestOwnReadingIsNotSeen: larder's hashing changes no access time, and what it reads of links is not taken for a step's reading.
func TestOwnReadingIsNotSeen(t *testing.T) {
	w := newWorld(t)
	src := t.TempDir()
	write(t, src, map[string]string{"a": "1", "d/b": strings.Repeat("2", 3<<20)})
	must(t, os.Symlink("a", filepath.Join(src, "l")))
	out, _ := w.restored(w.captured(src, nil, nil).Next)
	before := atimes(t, out)
	first := w.captured(out, nil, nil)
	if after := atimes(t, out); !maps.Equal(before, after) {
		t.Errorf("access times were %v, are %v", before, after)
	}
	out, stamps := w.restored(first.Next)
	for range 2 {
		got := w.captured(out, first.Next, stamps)
		if got.Used != 0 || len(got.Next.Idle) != 3 {
			t.Errorf("%+v, idle %v", got, got.Next.Idle)
		}
		stamps = got.Stamps
	}
}

func atimes(t *testing.T, dir string) map[string]int64 {
	t.Helper()
	out := map[string]int64{}
	for _, name := range []string{"a", "d", "d/b"} {
		var st unix.Stat_t
		must(t, unix.Lstat(filepath.Join(dir, name), &st))
		out[name] = st.Atim.Nano()
	}
	return out
}

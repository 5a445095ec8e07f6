package cachemount

import (
	"bytes"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestContractOfTheDirectory does with a restored mount what tools do with their caches. All of it works, is saved, and comes back on
// another machine, but for the socket.
func TestContractOfTheDirectory(t *testing.T) {
	w := newWorld(t)
	src := t.TempDir()
	write(t, src, map[string]string{"tree/a/1": "one", "tree/a/2": "two", "tree/b": "b", "lock": "", "times": "t", "linked": "before", "sparse": "s", "modes": "m", "mapped": "mmmm"})
	must(t, os.Link(filepath.Join(src, "linked"), filepath.Join(src, "linked too")))
	sqlite(t, filepath.Join(src, "index.db"), "CREATE TABLE entries(name TEXT PRIMARY KEY, value BLOB); INSERT INTO entries VALUES('old', zeroblob(100000));")
	first := w.captured(src, nil, nil)
	out, stamps := w.restored(first.Next)
	dir := seenThrough(t, out, unix.MS_STRICTATIME)
	p := func(name string) string { return filepath.Join(dir, name) }

	for _, act := range []struct {
		name string
		do   func(t *testing.T)
	}{
		{"a directory is renamed, over an empty one too", func(t *testing.T) {
			must(t, os.Rename(p("tree"), p("moved")))
			must(t, os.Mkdir(p("target"), 0o700))
			must(t, unix.Rename(p("moved/a"), p("target")))
			if data, err := os.ReadFile(p("target/1")); err != nil || string(data) != "one" {
				t.Error(string(data), err)
			}
		}},
		{"a write through one name is seen through the other", func(t *testing.T) {
			must(t, os.WriteFile(p("linked"), []byte("written"), 0o644))
			if data, err := os.ReadFile(p("linked too")); err != nil || string(data) != "written" {
				t.Error(string(data), err)
			}
			must(t, os.Link(p("target/2"), p("third name")))
		}},
		{"times are set to the nanosecond", func(t *testing.T) {
			when := time.Unix(1_000_000_000, 123_456_789)
			must(t, os.Chtimes(p("times"), when, when))
			if st, err := os.Stat(p("times")); err != nil || !st.ModTime().Equal(when) {
				t.Error(st.ModTime(), err)
			}
			must(t, os.Chtimes(p("moved"), when, when))
		}},
		{"locks exclude each other", func(t *testing.T) { lockContract(t, p("lock")) }},
		{"a database works, with its journal and its write-ahead log", func(t *testing.T) {
			sqlite(t, p("index.db"), "BEGIN; INSERT INTO entries VALUES('new', 'x'); COMMIT; PRAGMA journal_mode=WAL; UPDATE entries SET value='y' WHERE name='old';")
			if got := sqlite(t, p("index.db"), "PRAGMA integrity_check; SELECT name, value FROM entries ORDER BY name;"); got != "ok\nnew|x\nold|y\n" {
				t.Errorf("the database says %q", got)
			}
		}},
		{"a socket is listened on", func(t *testing.T) {
			l, err := net.Listen("unix", p("socket"))
			must(t, err)
			l.(*net.UnixListener).SetUnlinkOnClose(false)
			c, err := net.Dial("unix", p("socket"))
			must(t, err)
			must(t, c.Close())
			must(t, l.Close())
		}},
		{"holes stay holes", func(t *testing.T) {
			must(t, os.Truncate(p("sparse"), 10<<20))
			f, err := os.OpenFile(p("sparse"), os.O_WRONLY, 0)
			must(t, err)
			_, err = f.WriteAt(noise(1, 5000), 7<<20)
			must(t, err)
			must(t, f.Close())
			if n := blocks(t, p("sparse")); n > 1<<20 {
				t.Errorf("%d bytes on disk", n)
			}
		}},
		{"a mapping is written through", func(t *testing.T) {
			f, err := os.OpenFile(p("mapped"), os.O_RDWR, 0)
			must(t, err)
			defer f.Close()
			m, err := unix.Mmap(int(f.Fd()), 0, 4, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
			must(t, err)
			copy(m, "MMMM")
			must(t, unix.Munmap(m))
		}},
		{"modes, owners and attributes are set", func(t *testing.T) {
			must(t, os.Chown(p("modes"), 1000, 1000))
			must(t, unix.Chmod(p("modes"), 0o6711))
			must(t, unix.Setxattr(p("modes"), "user.etag", []byte("e"), 0))
			must(t, unix.Mkfifo(p("fifo"), 0o600))
		}},
		{"a file is put in place whole", func(t *testing.T) {
			f, err := os.CreateTemp(dir, "tmp-")
			must(t, err)
			_, err = f.WriteString("in place")
			must(t, err)
			must(t, f.Sync())
			must(t, f.Close())
			must(t, os.Rename(f.Name(), p("times 2")))
			must(t, unix.Renameat2(unix.AT_FDCWD, p("times 2"), unix.AT_FDCWD, p("target/1"), unix.RENAME_EXCHANGE))
		}},
	} {
		t.Run(act.name, act.do)
	}
	want, sockets := "", 0
	for line := range strings.Lines(look(t, out)) {
		if strings.HasPrefix(line, `"socket"`) {
			sockets++
		} else {
			want += line
		}
	}
	if sockets != 1 {
		t.Errorf("%d sockets", sockets)
	}
	got := w.captured(out, first.Next, stamps)
	back, _ := w.restored(got.Next)
	if again := look(t, back); again != want {
		t.Errorf("on another machine:\n%s\nhere:\n%s", again, want)
	}
	if n := blocks(t, filepath.Join(back, "sparse")); n > 1<<20 {
		t.Errorf("%d bytes on disk", n)
	}
	if got := sqlite(t, filepath.Join(back, "index.db"), "PRAGMA integrity_check; SELECT count(*) FROM entries;"); got != "ok\n2\n" {
		t.Errorf("the database says %q", got)
	}
}

// lockContract takes the locks that tools take: on whole files and on ranges of them.
func lockContract(t *testing.T, path string) {
	t.Helper()
	var fds [2]int
	for i := range fds {
		fd, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC, 0)
		must(t, err)
		defer unix.Close(fd)
		fds[i] = fd
	}
	must(t, unix.Flock(fds[0], unix.LOCK_EX|unix.LOCK_NB))
	if err := unix.Flock(fds[1], unix.LOCK_EX|unix.LOCK_NB); err != unix.EWOULDBLOCK {
		t.Errorf("a second lock: %v", err)
	}
	must(t, unix.Flock(fds[0], unix.LOCK_UN))
	must(t, unix.Flock(fds[1], unix.LOCK_EX|unix.LOCK_NB))
	lock := func(fd int, start int64) error {
		return unix.FcntlFlock(uintptr(fd), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_WRLCK, Start: start, Len: 10})
	}
	must(t, lock(fds[0], 0))
	must(t, lock(fds[1], 10))
	if err := lock(fds[1], 5); err != unix.EAGAIN {
		t.Errorf("a second lock of a range: %v", err)
	}
}

func sqlite(t *testing.T, path, commands string) string {
	t.Helper()
	cmd := exec.Command("sqlite3", path)
	cmd.Stdin = strings.NewReader(".bail on\n" + commands)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	outp, err := cmd.Output()
	if err != nil {
		t.Fatalf("sqlite3: %v: %s", err, stderr.String())
	}
	return string(outp)
}

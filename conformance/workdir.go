package main

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// setupArgs names the directives that shape the context's files, with the least number of arguments of each.
var setupArgs = map[string]int{
	"file": 2, "mkdir": 1, "sparse": 2, "mode": 2, "symlink": 2, "hardlink": 2, "owner": 2, "xattr": 3,
	"fifo": 1, "socket": 1, "device": 4, "archive": 2,
}

// contextTime is the mtime of everything in a context: builds of the corpus then differ by builder only.
var contextTime = time.Date(2024, 2, 29, 12, 34, 56, 789000000, time.UTC)

// A workdir is where one case is built: the context, what lies beside it, and both builders' output.
type workdir struct {
	dir      string
	registry string
}

func (w workdir) context() string { return filepath.Join(w.dir, "context") }

// expand replaces the placeholders that a case may use.
func (w workdir) expand(s string) string {
	return strings.ReplaceAll(strings.ReplaceAll(s, "$WORK", w.dir), "REGISTRY", w.registry)
}

func (w workdir) expandAll(list []string) []string {
	out := make([]string, len(list))
	for i, s := range list {
		out[i] = w.expand(s)
	}
	return out
}

// path resolves a name of the corpus, which may reach beside the context and no further.
func (w workdir) path(name string) (string, error) {
	p := filepath.Join(w.context(), name)
	if rel, err := filepath.Rel(w.dir, p); err != nil || rel == ".." || strings.HasPrefix(rel, "../") {
		return "", fmt.Errorf("%q lies outside the case's directory", name)
	}
	return p, nil
}

// prepare writes the case's files. The process's umask must be 0.
func (w workdir) prepare(c *testCase) error {
	if err := os.MkdirAll(w.context(), 0o755); err != nil {
		return err
	}
	for _, f := range c.files {
		if err := w.writeFile(f.Name, w.expand(string(f.Data))); err != nil {
			return err
		}
	}
	// Archives hold mtimes too, so the times are set before each is packed and once more at the end.
	for _, d := range c.setup {
		if err := w.apply(d); err != nil {
			return fmt.Errorf("line %d: %s %q: %w", d.line, d.name, d.args, err)
		}
	}
	return setTimes(w.dir)
}

func (w workdir) writeFile(name, content string) error {
	p, err := w.path(name)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
		return err
	}
	return os.WriteFile(p, []byte(content), 0o644)
}

func (w workdir) apply(d directive) error {
	switch d.name {
	case "mode":
		mode, err := strconv.ParseUint(d.args[0], 8, 12)
		if err != nil {
			return err
		}
		return w.each(d.args[1:], func(p string) error { return unix.Chmod(p, uint32(mode)) })
	case "owner":
		var uid, gid int
		if _, err := fmt.Sscanf(d.args[0], "%d:%d", &uid, &gid); err != nil {
			return err
		}
		return w.each(d.args[1:], func(p string) error { return os.Lchown(p, uid, gid) })
	case "file":
		return w.writeFile(d.args[0], w.expand(d.args[1]))
	}
	p, err := w.path(d.args[0])
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
		return err
	}
	switch d.name {
	case "mkdir":
		return os.MkdirAll(p, 0o755)
	case "symlink":
		return os.Symlink(d.args[1], p)
	case "hardlink":
		old, err := w.path(d.args[1])
		if err != nil {
			return err
		}
		return os.Link(old, p)
	case "xattr":
		return unix.Lsetxattr(p, d.args[1], []byte(d.args[2]), 0)
	case "fifo":
		return unix.Mkfifo(p, 0o644)
	case "socket":
		return listenOnce(p)
	case "device":
		return makeDevice(p, d.args[1:])
	case "sparse":
		return makeSparse(p, d.args[1])
	case "archive":
		src, err := w.path(d.args[1])
		if err != nil {
			return err
		}
		if err := setTimes(w.dir); err != nil {
			return err
		}
		return packArchive(p, src)
	}
	return errors.New("directive without an action")
}

func (w workdir) each(names []string, do func(path string) error) error {
	for _, n := range names {
		p, err := w.path(n)
		if err != nil {
			return err
		}
		if err := do(p); err != nil {
			return err
		}
	}
	return nil
}

// listenOnce leaves a socket file behind. Its path may be longer than a socket address, so it is bound by a short one.
func listenOnce(path string) error {
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer dir.Close()
	short := fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), filepath.Base(path))
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: short, Net: "unix"})
	if err != nil {
		return err
	}
	l.SetUnlinkOnClose(false)
	return l.Close()
}

func makeDevice(path string, args []string) error {
	kinds := map[string]uint32{"c": unix.S_IFCHR, "b": unix.S_IFBLK}
	kind, ok := kinds[args[0]]
	if !ok {
		return fmt.Errorf("device type %q is neither c nor b", args[0])
	}
	major, err := strconv.ParseUint(args[1], 10, 32)
	if err != nil {
		return err
	}
	minor, err := strconv.ParseUint(args[2], 10, 32)
	if err != nil {
		return err
	}
	return unix.Mknod(path, kind|0o644, int(unix.Mkdev(uint32(major), uint32(minor))))
}

// makeSparse writes a file of the size in bytes that is one hole but for a few bytes at its end.
func makeSparse(path, size string) error {
	n, err := strconv.ParseInt(size, 10, 64)
	if err != nil {
		return err
	}
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	tail := []byte("end\n")
	if n < int64(len(tail)) {
		return errors.New("too small to have a hole")
	}
	if _, err := f.WriteAt(tail, n-int64(len(tail))); err != nil {
		return err
	}
	return f.Close()
}

func setTimes(dir string) error {
	ts := []unix.Timespec{unix.NsecToTimespec(contextTime.UnixNano()), unix.NsecToTimespec(contextTime.UnixNano())}
	return filepath.WalkDir(dir, func(p string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return unix.UtimesNanoAt(unix.AT_FDCWD, p, ts, unix.AT_SYMLINK_NOFOLLOW)
	})
}

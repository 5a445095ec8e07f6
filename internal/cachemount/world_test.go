package cachemount

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"larder/internal/generation"
	"larder/internal/key"
	"larder/internal/pack"
	"larder/internal/tree"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// world is where packs are kept, in memory.
type world struct {
	t      testing.TB
	dir    string
	mu     sync.Mutex
	packs  map[key.Digest][]byte
	stored map[key.Digest]pack.Piece
	opened int64 // bytes that were asked for
}

func newWorld(t testing.TB) *world {
	return &world{t: t, dir: t.TempDir(), packs: map[key.Digest][]byte{}, stored: map[key.Digest]pack.Piece{}}
}

func (w *world) writer() *pack.Writer {
	return pack.NewWriter(pack.Options{
		Dir: w.dir,
		Have: func(d key.Digest) (pack.Piece, bool) {
			w.mu.Lock()
			defer w.mu.Unlock()
			p, ok := w.stored[d]
			return p, ok
		},
		Done: func(p pack.Pack) error {
			data, err := os.ReadFile(p.Path)
			if err != nil {
				return err
			}
			w.mu.Lock()
			defer w.mu.Unlock()
			w.packs[p.Digest] = data
			return os.Remove(p.Path)
		},
	})
}

func (w *world) open(_ context.Context, d key.Digest, off, n int64) (io.ReadCloser, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	data, ok := w.packs[d]
	if !ok || off+n > int64(len(data)) {
		return nil, errors.New("no such pack")
	}
	w.opened += n
	return io.NopCloser(bytes.NewReader(data[off : off+n])), nil
}

// capture is Capture with a writer that knows what this world has.
func (w *world) capture(dir string, before *generation.Generation, stamps *Stamps, opt CaptureOptions) (*Captured, error) {
	got, err := Capture(w.t.Context(), dir, before, stamps, w.writer(), opt)
	if err == nil {
		for _, list := range got.Next.Pieces {
			for _, p := range list {
				w.stored[p.Digest] = p
			}
		}
	}
	return got, err
}

func (w *world) captured(dir string, before *generation.Generation, stamps *Stamps) *Captured {
	w.t.Helper()
	got, err := w.capture(dir, before, stamps, CaptureOptions{})
	must(w.t, err)
	return got
}

// restored makes a directory of a generation.
func (w *world) restored(g *generation.Generation) (string, *Stamps) {
	w.t.Helper()
	dir, err := os.MkdirTemp(w.t.TempDir(), "")
	must(w.t, err)
	s, err := Restore(w.t.Context(), dir, g, w.open)
	must(w.t, err)
	return dir, s
}

// look says what is in a directory, one line per path, without any of the code that is tested.
func look(t testing.TB, dir string) string {
	t.Helper()
	var b strings.Builder
	first := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		fmt.Fprintf(&b, "%q mode=%o owner=%d:%d mtime=%d", rel, st.Mode, st.Uid, st.Gid, st.Mtim.Nano())
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFREG:
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			fmt.Fprintf(&b, " size=%d %x", st.Size, sha256.Sum256(data))
		case unix.S_IFLNK:
			target, err := os.Readlink(path)
			if err != nil {
				return err
			}
			fmt.Fprintf(&b, " -> %q", target)
		case unix.S_IFCHR, unix.S_IFBLK:
			fmt.Fprintf(&b, " rdev=%x", st.Rdev)
		}
		if st.Mode&unix.S_IFMT != unix.S_IFDIR && st.Nlink > 1 {
			id := fmt.Sprint(st.Dev, st.Ino)
			if first[id] == "" {
				first[id] = rel
			}
			fmt.Fprintf(&b, " same=%q", first[id])
		}
		b.WriteString(lookXattrs(t, path) + "\n")
		return nil
	})
	must(t, err)
	return b.String()
}

func lookXattrs(t testing.TB, path string) string {
	t.Helper()
	buf := make([]byte, 4096)
	n, err := unix.Llistxattr(path, buf)
	must(t, err)
	names := strings.FieldsFunc(string(buf[:n]), func(r rune) bool { return r == 0 })
	slices.Sort(names)
	out := ""
	for _, name := range names {
		value := make([]byte, 4096)
		n, err := unix.Lgetxattr(path, name, value)
		must(t, err)
		out += fmt.Sprintf(" %s=%q", name, value[:n])
	}
	return out
}

// tell gives a generation's tree as text, with the times, groups and pieces that two equal ones have in common.
func tell(t testing.TB, g *generation.Generation) string {
	t.Helper()
	var b strings.Builder
	first := map[uint64]string{}
	count := map[uint64]int{}
	must(t, tree.Walk(g.Tree, func(_ string, n *tree.Node) error { count[n.Group]++; return nil }))
	must(t, tree.Walk(g.Tree, func(path string, n *tree.Node) error {
		fmt.Fprintf(&b, "%q %s %o %d:%d %d %v %d %s %q %x", path, n.Kind, n.Mode, n.UID, n.GID, n.MTime, n.Xattrs, n.Size, n.Content.Hex(), n.Link, n.Rdev)
		if n.Group != 0 && count[n.Group] > 1 {
			if first[n.Group] == "" {
				first[n.Group] = path
			}
			fmt.Fprintf(&b, " same=%q", first[n.Group])
		}
		for _, p := range g.Pieces[n.Content] {
			fmt.Fprintf(&b, " %s/%d", p.Digest.Hex()[:8], p.Size)
		}
		b.WriteByte('\n')
		return nil
	}))
	return b.String()
}

// write makes files, with their directories.
func write(t testing.TB, dir string, files map[string]string) {
	t.Helper()
	for name, data := range files {
		p := filepath.Join(dir, name)
		must(t, os.MkdirAll(filepath.Dir(p), 0o755))
		must(t, os.WriteFile(p, []byte(data), 0o644))
	}
}

// filesOf gives all that is no directory, by path.
func filesOf(t testing.TB, g *generation.Generation) map[string]*tree.Node {
	t.Helper()
	out := map[string]*tree.Node{}
	must(t, tree.Walk(g.Tree, func(path string, n *tree.Node) error {
		if n.Kind != tree.Dir {
			out[path] = n
		}
		return nil
	}))
	return out
}

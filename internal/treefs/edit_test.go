package treefs

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"larder/internal/layer"
)

// edits are made in place and keep the size, which is the hardest to see.
func edit(t *testing.T, path string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	must(t, err)
	defer f.Close()
	_, err = f.WriteAt([]byte("X"), 1)
	must(t, err)
}

// replace puts another file in a file's place, as editors do.
func replace(t *testing.T, path string) {
	t.Helper()
	b, err := os.ReadFile(path)
	must(t, err)
	b[1] = 'X'
	must(t, os.WriteFile(path+".new", b, 0o644))
	must(t, os.Rename(path+".new", path))
}

// oldTimes makes a file's change time old, as a file's is that nobody has edited for a while.
func oldTimes(fs *FS, path string) {
	n := fs.find(path)
	fs.contents.mu.Lock()
	defer fs.contents.mu.Unlock()
	n.file.watch.doubt = false
}

// find gives the inode of a path of the first part that was looked up.
func (fs *FS) find(path string) *inode {
	n := fs.parts[0].root
	for name := range strings.SplitSeq(path, "/") {
		n, _ = fs.lookup(n, name)
	}
	return n
}

var (
	small = strings.Repeat("small ", 1000)
	large = strings.Repeat("large ", 200_000)
)

// TestEditedContext: a step never gets bytes that are not those of the tree without larder saying so: at once, or in Check.
func TestEditedContext(t *testing.T) {
	for _, c := range []struct {
		name, file string
		do         func(t *testing.T, fs *FS, shown, file string)
		read       bool   // the step's read succeeds
		err, check string // what Err and Check blame
	}{
		{name: "small before", file: small, err: "f", do: func(t *testing.T, _ *FS, _, file string) { edit(t, file) }},
		{name: "large before", file: large, err: "f", do: func(t *testing.T, _ *FS, _, file string) { edit(t, file) }},
		{name: "small after", file: small, read: true, do: func(t *testing.T, _ *FS, shown, file string) {
			read(t, shown)
			edit(t, file)
		}},
		{name: "large after", file: large, read: true, check: "f", do: func(t *testing.T, _ *FS, shown, file string) {
			read(t, shown)
			edit(t, file)
		}},
		{name: "large after with old times", file: large, read: true, check: "f", do: func(t *testing.T, fs *FS, shown, file string) {
			read(t, shown)
			oldTimes(fs, "f")
			edit(t, file)
		}},
		{name: "large after with its times put back", file: large, read: true, check: "f", do: func(t *testing.T, fs *FS, shown, file string) {
			read(t, shown)
			var st unix.Stat_t
			must(t, unix.Stat(file, &st))
			edit(t, file)
			must(t, os.Chtimes(file, time.Time{}, time.Unix(st.Mtim.Unix())))
			// As if the edit had come within the clock's tick.
			must(t, unix.Stat(file, &st))
			n := fs.find("f")
			fs.contents.mu.Lock()
			defer fs.contents.mu.Unlock()
			n.file.watch.stamp.mtime, n.file.watch.stamp.ctime = st.Mtim, st.Ctim
		}},
		{name: "large while it is read", file: large, read: true, check: "f", do: func(t *testing.T, _ *FS, shown, file string) {
			fd := open(t, shown, unix.O_RDONLY)
			_, err := unix.Pread(fd, make([]byte, 100), 0)
			must(t, err)
			edit(t, file)
		}},
		{name: "small replaced after", file: small, read: true, do: func(t *testing.T, _ *FS, shown, file string) {
			read(t, shown)
			replace(t, file)
		}},
		{name: "large replaced after", file: large, read: true, do: func(t *testing.T, _ *FS, shown, file string) {
			read(t, shown)
			replace(t, file)
		}},
		{name: "large replaced before", file: large, err: "f", do: func(t *testing.T, _ *FS, _, file string) { replace(t, file) }},
		{name: "removed", file: small, err: "f", do: func(t *testing.T, _ *FS, _, file string) { must(t, os.Remove(file)) }},
		{name: "shorter", file: large, err: "f", do: func(t *testing.T, _ *FS, _, file string) { must(t, os.Truncate(file, 400_000)) }},
		{name: "longer", file: large, err: "f", do: func(t *testing.T, _ *FS, _, file string) { must(t, os.Truncate(file, 4_000_000)) }},
		{name: "not at all", file: large, read: true, do: func(t *testing.T, _ *FS, shown, _ string) { read(t, shown) }},
		{name: "another", file: large, read: true, do: func(t *testing.T, _ *FS, _, file string) { edit(t, filepath.Dir(file)+"/g") }},
	} {
		for _, opt := range []Options{{Copy: true}, {Passthrough: inMemory + 1}} {
			t.Run(c.name, func(t *testing.T) {
				p, dir := draw(t).file("f", c.file).file("g", "g"+c.file).written(false)
				fs := show(t, opt, p)
				root := over(t, fs.Dir(0))
				c.do(t, fs, root+"/f", filepath.Join(dir, "f"))
				if b, err := os.ReadFile(root + "/f"); (err == nil) != c.read {
					t.Errorf("copy %t: read %d bytes, %v", opt.Copy, len(b), err)
				} else if err == nil && c.check == "" && string(b) != c.file {
					t.Errorf("copy %t: other bytes", opt.Copy)
				}
				blames(t, "Err", fs.Err(), c.err)
				blames(t, "Check", fs.Check(t.Context()), c.check)
			})
		}
	}
}

// blames checks that an error is a *layer.ChangedError of a file, or that none is.
func blames(t *testing.T, what string, err error, name string) {
	t.Helper()
	var changed *layer.ChangedError
	switch {
	case name == "":
		if err != nil {
			t.Errorf("%s: %v", what, err)
		}
	case errors.Is(err, layer.ErrNoContent):
	case !errors.As(err, &changed) || filepath.Base(changed.Name) != name:
		t.Errorf("%s: got %v, want %s to be blamed", what, err, name)
	}
}

// TestManyLargeFiles: more files of a context than are kept open, read at a time; those that were put away are looked at as well.
func TestManyLargeFiles(t *testing.T) {
	for _, opt := range []Options{{Copy: true}, {Passthrough: inMemory + 1}} {
		const files = mostFiles + 60
		s := draw(t)
		for i := range files {
			s.file(name(i), name(i)+strings.Repeat("x", inMemory))
		}
		p, dir := s.written(false)
		fs := show(t, opt, p)
		var open []*os.File
		for i := range files {
			f, err := os.Open(fs.Dir(0) + "/" + name(i))
			must(t, err)
			buf := make([]byte, 10)
			_, err = f.Read(buf)
			must(t, err)
			if string(buf[:len(name(i))]) != name(i) {
				t.Errorf("%s begins with %q", name(i), buf)
			}
			open = append(open, f)
		}
		fs.contents.mu.Lock()
		kept := fs.contents.files
		fs.contents.mu.Unlock()
		if kept > mostFiles {
			t.Errorf("%d files are kept open", kept)
		}
		if err := fs.Check(t.Context()); err != nil {
			t.Errorf("nothing was edited: %v", err)
		}
		for i := range files {
			read(t, fs.Dir(0)+"/"+name(i)) // what was put away is opened again
		}
		for _, f := range open {
			f.Close()
		}
		if err := fs.Check(t.Context()); err != nil {
			t.Errorf("nothing was edited: %v", err)
		}
		if opt.Copy { // else it was put away while it was open, and when it was read last is not known
			edit(t, filepath.Join(dir, name(3)))
			if err := fs.Check(t.Context()); err != nil {
				t.Errorf("nobody has read what was edited since it was put away: %v", err)
			}
		}
		oldTimes(fs, name(files-1))
		edit(t, filepath.Join(dir, name(files-1)))
		blames(t, "Check", fs.Check(t.Context()), name(files-1))
	}
}

func name(i int) string { return "file" + string(rune('a'+i/26)) + string(rune('a'+i%26)) }

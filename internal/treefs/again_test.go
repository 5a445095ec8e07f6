package treefs

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"larder/internal/key"
	"larder/internal/layer"
)

// alone is a file system that is not mounted, and one large file of it whose contents are opened by what open is at the time.
func alone(t *testing.T, open *func() (io.ReadCloser, error)) (*FS, *inode) {
	t.Helper()
	fs := &FS{ctx: t.Context()}
	fs.contents.init()
	t.Cleanup(fs.contents.close)
	pt := &part{contents: sourceFunc(func(context.Context, key.Digest, int64) (io.ReadCloser, error) { return (*open)() })}
	return fs, &inode{node: draw(t).fileNode(large, 0o644), part: pt, file: &file{}}
}

// files makes files with the same bytes.
func files(t *testing.T, names ...string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	for _, name := range names {
		must(t, os.WriteFile(filepath.Join(dir, name), []byte(large), 0o644))
	}
	return dir
}

// use reads a content, which stays ready.
func (fs *FS) use(t *testing.T, n *inode) *content {
	t.Helper()
	c, err := fs.acquire(nil, 0, n)
	must(t, err)
	c.done()
	return c
}

// drop takes a content out, as when there are too many.
func (fs *FS) drop(c *content) {
	fs.contents.mu.Lock()
	fs.contents.take(c)
	fs.contents.mu.Unlock()
}

// TestReadWhileItIsPutAway: who opens a file just after it was looked at for the last time is not taken for one who read it before.
func TestReadWhileItIsPutAway(t *testing.T) {
	dir := files(t, "f")
	open := func() (io.ReadCloser, error) { return os.Open(dir + "/f") }
	for _, doubt := range []bool{true, false} {
		fs, n := alone(t, &open)
		first := fs.use(t, n)
		first.watch.doubt = doubt
		fs.drop(first)
		err := first.watch.check(t.Context(), first.disk)
		second := fs.use(t, n)
		fs.settled(first, err)
		first.done()
		blames(t, "nothing was edited", fs.Check(t.Context()), "")
		edit(t, dir+"/f")
		blames(t, "edited while it is open", fs.Check(t.Context()), "f")
		fs.drop(second)
		fs.putAway(second)
		blames(t, "edited before it was put away", fs.Check(t.Context()), "f")
		must(t, os.WriteFile(dir+"/f", []byte(large), 0o644))
	}
}

// TestReadWhileItWasTaken: one that somebody still reads is looked at in the end.
func TestReadWhileItWasTaken(t *testing.T) {
	dir := files(t, "f")
	open := func() (io.ReadCloser, error) { return os.Open(dir + "/f") }
	fs, n := alone(t, &open)
	c, err := fs.acquire(nil, 0, n)
	must(t, err)
	fs.drop(c)
	fs.putAway(c)
	edit(t, dir+"/f")
	c.done() // it may have read just now
	blames(t, "edited while it was read", fs.Check(t.Context()), "f")
}

// TestComesFromElsewhere: what was read of a file and hashed is right, wherever the same bytes come from the next time.
func TestComesFromElsewhere(t *testing.T) {
	for _, c := range []struct {
		name string
		open func(dir string) (io.ReadCloser, error)
		want string
	}{
		{"a stored file", func(dir string) (io.ReadCloser, error) {
			f, err := os.Open(dir + "/g")
			return &layer.StoredFile{File: f}, err
		}, ""},
		{"another file", func(dir string) (io.ReadCloser, error) { return os.Open(dir + "/g") }, ""},
		{"another file with other bytes", func(dir string) (io.ReadCloser, error) { return os.Open(dir + "/h") }, "f"},
		{"no file", func(dir string) (io.ReadCloser, error) {
			f, err := os.Open(dir + "/g")
			return struct{ io.ReadCloser }{f}, err
		}, ""},
		{"fewer bytes", func(dir string) (io.ReadCloser, error) {
			f, err := os.Open(dir + "/g")
			return struct {
				io.Reader
				io.Closer
			}{io.LimitReader(f, 1000), f}, err
		}, "f"},
		{"nowhere", func(string) (io.ReadCloser, error) { return nil, errGone }, "gone"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := files(t, "f", "g", "h")
			edit(t, dir+"/h")
			open := func() (io.ReadCloser, error) { return os.Open(dir + "/f") }
			fs, n := alone(t, &open)
			first := fs.use(t, n)
			n.file.opens = 1 // somebody has it open
			fs.drop(first)
			fs.putAway(first)
			must(t, os.Remove(dir+"/f"))
			open = func() (io.ReadCloser, error) { return c.open(dir) }
			check := func(when string) {
				t.Helper()
				err := fs.Check(t.Context())
				if c.want == "gone" && errors.Is(err, errGone) {
					return
				}
				blames(t, when, err, c.want)
			}
			check("put away")
			if c.want != "" {
				return
			}
			fs.opt.Temp = t.TempDir()
			second := fs.use(t, n)
			check("opened again")
			n.file.opens = 0
			fs.drop(second)
			fs.putAway(second)
			check("put away again")
		})
	}
}

var errGone = errors.New("gone")

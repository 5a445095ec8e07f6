package runstep

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"

	"golang.org/x/sys/unix"

	"larder/internal/key"
)

// copy copies a file, or what is in a directory, into dir.
func (v *view) copy(ctx context.Context, p, dir string) error {
	at, err := v.resolve(p, false)
	if err != nil {
		return err
	}
	st, err := v.lstat(at)
	if err != nil {
		return &fs.PathError{Op: "open", Path: p, Err: cause(err)}
	}
	if !st.IsDir() && !st.Mode().IsRegular() {
		return fmt.Errorf("%s is neither a file nor a directory", p)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	to, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer to.Close()
	c := &copier{ctx: ctx, v: v, to: to}
	if st.IsDir() {
		return c.dir(at, ".")
	}
	return c.file(at, path.Base(p), st)
}

// copier copies out of a view. Files belong to whom the process runs as; modes, but for set-id bits, and times are the
// container's. What is mounted below a directory stays out, and what was there before it was mounted: it is no result, or
// lies on this machine already. So do pipes, sockets and devices.
type copier struct {
	ctx context.Context
	v   *view
	to  *os.Root
}

func (c *copier) dir(from, to string) error {
	root, name, err := c.v.find(from)
	if err != nil {
		return err
	}
	f, err := root.Open(name)
	if err != nil {
		return err
	}
	list, err := f.ReadDir(-1)
	f.Close()
	if err != nil {
		return err
	}
	for _, e := range list {
		if err := c.ctx.Err(); err != nil {
			return context.Cause(c.ctx)
		}
		at := path.Join(from, e.Name())
		if _, ok := c.v.mounts[at]; ok {
			continue
		}
		if err := c.entry(at, path.Join(to, e.Name())); err != nil {
			return fmt.Errorf("%s: %w", at, cause(err))
		}
	}
	return nil
}

func (c *copier) entry(from, to string) error {
	st, err := c.v.lstat(from)
	if err != nil {
		return err
	}
	switch st.Mode().Type() {
	case fs.ModeDir:
		return c.subdir(from, to, st)
	case 0:
		return c.file(from, to, st)
	case fs.ModeSymlink:
		root, name, err := c.v.find(from)
		if err != nil {
			return err
		}
		target, err := root.Readlink(name)
		if err != nil {
			return err
		}
		return c.place(to, func(tmp string) error { return c.to.Symlink(target, tmp) })
	}
	return nil
}

func (c *copier) subdir(from, to string, st fs.FileInfo) error {
	have, err := c.to.Lstat(to)
	if err == nil && !have.IsDir() {
		if err := c.to.Remove(to); err != nil {
			return err
		}
		err = fs.ErrNotExist
	}
	if errors.Is(err, fs.ErrNotExist) {
		err = c.to.Mkdir(to, 0o700)
	}
	if err != nil {
		return err
	}
	if err := c.dir(from, to); err != nil {
		return err
	}
	if err := c.to.Chmod(to, st.Mode().Perm()); err != nil {
		return err
	}
	return c.to.Chtimes(to, st.ModTime(), st.ModTime())
}

func (c *copier) file(from, to string, st fs.FileInfo) error {
	root, name, err := c.v.find(from)
	if err != nil {
		return err
	}
	src, err := root.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK, 0) // if it is a pipe by now, nobody waits for its writer
	if err != nil {
		return err
	}
	defer src.Close()
	if now, err := src.Stat(); err != nil || !now.Mode().IsRegular() {
		return errors.Join(err, errors.New("changed while it was copied"))
	}
	return c.place(to, func(tmp string) error {
		f, err := c.to.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		if err != nil {
			return err
		}
		err = copyFile(c.ctx, f, src)
		if err = errors.Join(err, f.Chmod(st.Mode().Perm()), f.Close()); err != nil {
			return err
		}
		return c.to.Chtimes(tmp, st.ModTime(), st.ModTime())
	})
}

// piece is how much of a file, in bytes, is copied before it is looked whether that is to go on.
const piece = 4 << 20

// copyFile copies src to its end, or gives ctx's cause. Both are files that the kernel may copy between by itself.
func copyFile(ctx context.Context, dst, src *os.File) error {
	for {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		switch _, err := io.CopyN(dst, src, piece); err {
		case nil:
		case io.EOF:
			return nil
		default:
			return err
		}
	}
}

// place makes something under another name and puts it where it belongs when it is complete. A directory in its way goes.
func (c *copier) place(to string, create func(tmp string) error) error {
	dir, base := path.Split(to)
	tmp := dir + ".larder-" + key.Bytes([]byte(base)).Hex()[:20] // the same in every run: one that was killed leaves it
	if err := c.to.RemoveAll(tmp); err != nil {
		return err
	}
	if err := create(tmp); err != nil {
		c.to.Remove(tmp)
		return err
	}
	if st, err := c.to.Lstat(to); err == nil && st.IsDir() {
		if err := c.to.RemoveAll(to); err != nil {
			return err
		}
	}
	return c.to.Rename(tmp, to)
}

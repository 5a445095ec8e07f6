package local

import (
	"fmt"
	"io"
	"os"
	"path"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"larder/internal/key"
	"larder/internal/layer"
	"larder/internal/tree"
)

// temp is the name that an object has until it is complete. It is the same in every run, so that what a killed run left is
// written over by the next.
func temp(p string) string {
	dir, base := path.Split(p)
	return dir + ".larder-" + key.Bytes([]byte(base)).Hex()[:20]
}

// file writes a regular file and puts it in its place.
func (w *writer) file(p string, n *tree.Node) error {
	tmp := temp(p)
	w.root.Remove(tmp) // of a run that was killed
	f, err := w.root.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	if err = w.fill(f, p, n); err == nil {
		xattrs(f, n)
		err = f.Chmod(mode(n))
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		w.root.Remove(tmp)
		return err
	}
	return w.place(tmp, p, n)
}

func (w *writer) fill(f *os.File, p string, n *tree.Node) error {
	if n.Size == 0 {
		return nil
	}
	rc, err := w.src.Open(w.ctx, n.Content, n.Size)
	if err != nil {
		return err
	}
	defer rc.Close()
	_, err = io.Copy(f, layer.Verified(rc, n.Content, n.Size, p))
	return err
}

// place gives an object its time and its name.
func (w *writer) place(tmp, p string, n *tree.Node) error {
	if err := w.times(tmp, n); err != nil {
		return err
	}
	return w.root.Rename(tmp, p)
}

// xattrs sets what the file system and the process's rights allow; the rest stays out, as with other builders.
func xattrs(f *os.File, n *tree.Node) {
	for _, x := range n.Xattrs {
		unix.Fsetxattr(int(f.Fd()), x.Name, x.Value, 0)
	}
}

// times sets an object's time, a symlink's own.
func (w *writer) times(p string, n *tree.Node) error {
	at := time.Unix(0, n.MTime)
	if w.opt.Epoch != nil {
		at = *w.opt.Epoch
	}
	if n.Kind != tree.Symlink {
		return w.root.Chtimes(p, at, at)
	}
	dir, err := w.root.Open(name(strings.TrimSuffix(path.Dir(p), ".")))
	if err != nil {
		return err
	}
	defer dir.Close()
	ts, err := unix.TimeToTimespec(at)
	if err != nil {
		return err
	}
	return unix.UtimesNanoAt(int(dir.Fd()), path.Base(p), []unix.Timespec{ts, ts}, unix.AT_SYMLINK_NOFOLLOW)
}

// mknod makes a device or fifo.
func (w *writer) mknod(p string, n *tree.Node) error {
	w.root.Remove(p)
	dir, err := w.root.Open(name(strings.TrimSuffix(path.Dir(p), ".")))
	if err != nil {
		return err
	}
	defer dir.Close()
	kind := map[tree.Kind]uint32{tree.Char: unix.S_IFCHR, tree.Block: unix.S_IFBLK, tree.Fifo: unix.S_IFIFO}[n.Kind]
	if err := unix.Mknodat(int(dir.Fd()), path.Base(p), kind|n.Mode&0o777, int(n.Rdev)); err != nil {
		return fmt.Errorf("%s: %w", p, err)
	}
	return w.root.Chmod(p, mode(n))
}

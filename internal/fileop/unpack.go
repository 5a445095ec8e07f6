package fileop

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os/exec"
	"path"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/moby/go-archive/compression"
	"golang.org/x/sys/unix"

	"larder/internal/layer"
	"larder/internal/tree"
)

// Bounds on what an archive may hold.
const (
	maxArchiveEntries = 4 << 20
	maxPath           = 4096
	maxName           = 255
)

// unpack unpacks a source that is an archive below dest, as ADD does; it says false of anything else. The links in the
// archive's own names, and those that are there already, lead nowhere outside dest.
func (r *run) unpack(ctx context.Context, w *work, from origin, src chosen, dest string, st style) (bool, error) {
	clean, n, err := tree.Resolve(from.root, src.name, true)
	if err != nil || n == nil || n.Kind != tree.File {
		return false, err
	}
	raw, err := r.open(ctx, from, clean, n)
	if err != nil {
		return false, err
	}
	defer raw.Close()
	verified := layer.Verified(raw, n.Content, n.Size, clean)
	plain, err := compression.DecompressStream(verified)
	if err != nil {
		var missing *exec.Error
		if errors.As(err, &missing) {
			return false, fmt.Errorf("the program that unpacks it is missing, install it or copy instead of add: %w", err)
		}
		return false, nil
	}
	stop := sync.OnceFunc(func() { plain.Close() })
	defer stop()
	tr := tar.NewReader(plain)
	first, err := tr.Next()
	if err != nil {
		var changed *layer.ChangedError
		if errors.As(err, &changed) {
			return false, err
		}
		return false, nil
	}
	top := w.top()
	p, err := top.rooted(dest)
	if err != nil {
		return false, err
	}
	if err := top.mkdirAll(p, 0o755, st.owner, st.mtime); err != nil {
		return false, err
	}
	dir, err := top.stat(p)
	if err != nil {
		return false, err
	}
	dir.utime(&w.now) // entering the chroot makes and removes a directory in it
	u := &untar{run: r, to: place{w, dir}, owner: st.owner}
	if err := u.all(ctx, tr, first); err != nil {
		return false, err
	}
	stop()                                 // it may read ahead meanwhile; how it ends does not matter any more
	_, err = io.Copy(io.Discard, verified) // what is behind the archive's end counts for the digest
	return true, err
}

// untar is go-archive's Unpack in a chroot.
type untar struct {
	run   *run
	to    place
	owner owner
	dirs  []*tar.Header
}

func (u *untar) all(ctx context.Context, tr *tar.Reader, hdr *tar.Header) error {
	for count := 1; ; count++ {
		if err := ctx.Err(); err != nil {
			return err
		}
		if count > maxArchiveEntries {
			return fmt.Errorf("more than %d entries", maxArchiveEntries)
		}
		if err := u.entry(hdr, tr); err != nil {
			return fmt.Errorf("entry %.200q: %w", hdr.Name, err)
		}
		var err error
		if hdr, err = tr.Next(); err == io.EOF {
			break
		} else if err != nil {
			return err
		}
	}
	for _, hdr := range u.dirs {
		ino, err := u.to.stat(path.Join("/", hdr.Name))
		if err != nil {
			return err
		}
		mtime := boundTime(hdr.ModTime)
		ino.utime(&mtime)
	}
	return nil
}

func (u *untar) entry(hdr *tar.Header, r io.Reader) error {
	if hdr.Typeflag == tar.TypeXGlobalHeader {
		return nil
	}
	hdr.Name = path.Clean(hdr.Name)
	name := path.Join("/", hdr.Name)
	if len(name) > maxPath {
		return syscall.ENAMETOOLONG
	}
	if err := u.parents(path.Dir(name)); err != nil {
		return err
	}
	if have, err := u.to.lstat(name); err == nil {
		if have.Kind == tree.Dir && hdr.Name == "." {
			return nil
		}
		if have.Kind != tree.Dir || hdr.Typeflag != tar.TypeDir {
			if err := u.to.removeAll(name); err != nil {
				return err
			}
		}
	} else if !answered(err) {
		return err
	}
	ino, err := u.make(hdr, name, r)
	if err != nil {
		return err
	}
	if err := u.dress(ino, hdr); err != nil {
		return err
	}
	if hdr.Typeflag == tar.TypeDir {
		u.dirs = append(u.dirs, hdr)
	}
	return nil
}

// parents makes directories that the archive implies, for root with mode 755.
func (u *untar) parents(dir string) error {
	_, err := u.to.lstat(dir)
	if err == nil || !isNotExist(err) {
		if err != nil && !answered(err) {
			return err
		}
		return nil
	}
	if have, err := u.to.stat(dir); err == nil {
		if have.Kind != tree.Dir {
			return fail("mkdir", dir, syscall.ENOTDIR)
		}
		return nil
	}
	if dir != "/" {
		if err := u.parents(path.Dir(dir)); err != nil {
			return err
		}
	}
	ino, err := u.to.mkdir(dir, 0o755)
	if err != nil {
		return err
	}
	ino.UID, ino.GID = 0, 0
	return nil
}

// make creates the object of an entry.
func (u *untar) make(hdr *tar.Header, name string, r io.Reader) (*inode, error) {
	mode := fromFileMode(hdr.FileInfo().Mode())
	device := func(kind tree.Kind) (*inode, error) {
		if hdr.Devmajor < 0 || hdr.Devmajor > math.MaxUint32 || hdr.Devminor < 0 || hdr.Devminor > math.MaxUint32 {
			return nil, fmt.Errorf("device number %d:%d is out of range", hdr.Devmajor, hdr.Devminor)
		}
		n := tree.Node{Kind: kind, Meta: tree.Meta{Mode: mode}}
		if kind != tree.Fifo {
			n.Rdev = unix.Mkdev(uint32(hdr.Devmajor), uint32(hdr.Devminor))
			if n.Rdev == 0 && kind == tree.Char {
				return nil, errors.New("a character device 0:0 cannot stand in a layer, it would hide the name")
			}
		}
		return u.to.create("mknod", name, n)
	}
	switch hdr.Typeflag {
	case tar.TypeDir:
		have, err := u.to.lstat(name)
		if err == nil && have.Kind == tree.Dir {
			return have, nil
		}
		return u.to.mkdir(name, mode)
	case tar.TypeReg:
		ino, err := u.to.create("open", name, tree.Node{Kind: tree.File, Meta: tree.Meta{Mode: mode}})
		if err != nil {
			return nil, err
		}
		ino.Content, ino.Size, err = u.run.contents.spool.add(r)
		return ino, err
	case tar.TypeChar:
		return device(tree.Char)
	case tar.TypeBlock:
		return device(tree.Block)
	case tar.TypeFifo:
		return device(tree.Fifo)
	case tar.TypeLink:
		return u.to.link(path.Join("/", hdr.Linkname), name)
	case tar.TypeSymlink:
		if hdr.Linkname == "" {
			return nil, fail("symlink", name, syscall.ENOENT)
		}
		return u.to.symlink(hdr.Linkname, name)
	}
	return nil, fmt.Errorf("unhandled tar header type %d", hdr.Typeflag)
}

// dress sets what an entry says of owner, xattrs, mode and time. An entry that is a hard link says it of the object that it
// links to.
func (u *untar) dress(ino *inode, hdr *tar.Header) error {
	who := u.owner
	if !who.set {
		if hdr.Uid < 0 || hdr.Uid > math.MaxUint32 || hdr.Gid < 0 || hdr.Gid > math.MaxUint32 {
			return fmt.Errorf("owner %d:%d is out of range", hdr.Uid, hdr.Gid)
		}
		who = owner{set: true, uid: uint32(hdr.Uid), gid: uint32(hdr.Gid)}
	}
	ino.chown(who)
	ino.setXattrs(paxXattrs(ino, hdr))
	if ino.Kind != tree.Symlink {
		ino.chmod(fromFileMode(hdr.FileInfo().Mode()))
	} else if hdr.Typeflag == tar.TypeLink {
		return nil
	}
	mtime := boundTime(hdr.ModTime)
	ino.utime(&mtime)
	return nil
}

// paxXattrs gives the xattrs of an entry that a file system takes: others are passed over, as BuildKit does.
func paxXattrs(ino *inode, hdr *tar.Header) []tree.Xattr {
	var out []tree.Xattr
	for k, v := range hdr.PAXRecords {
		name, ok := strings.CutPrefix(k, "SCHILY.xattr.")
		space, rest, _ := strings.Cut(name, ".")
		if !ok || rest == "" || strings.HasPrefix(name, "trusted.overlay.") {
			continue
		}
		switch space {
		case "user":
			ok = ino.Kind == tree.File || ino.Kind == tree.Dir
		case "trusted", "security":
		default:
			ok = false
		}
		if ok {
			out = append(out, tree.Xattr{Name: name, Value: []byte(v)})
		}
	}
	slices.SortFunc(out, func(a, b tree.Xattr) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// boundTime is an entry's time in nanoseconds, 1970 for one that does not fit.
func boundTime(t time.Time) int64 {
	if t.Before(time.Unix(0, 0)) || t.After(time.Unix(0, math.MaxInt64)) {
		return 0
	}
	return t.UnixNano()
}

package layer

import (
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"larder/internal/disk"
	"larder/internal/tree"
)

// times is the argument of utimensat: the access time is that of the modification, so that unpacking twice gives the same.
func times(mtime int64) []unix.Timespec {
	t := unix.NsecToTimespec(mtime)
	return []unix.Timespec{t, t}
}

// setOpen gives an open file its metadata. The order counts: a change of owner clears setuid bits and capabilities.
func setOpen(fd int, m *tree.Meta) error {
	if err := unix.Fchown(fd, int(m.UID), int(m.GID)); err != nil {
		return os.NewSyscallError("fchown", err)
	}
	if err := unix.Fchmod(fd, m.Mode); err != nil {
		return os.NewSyscallError("fchmod", err)
	}
	for _, x := range m.Xattrs {
		if err := unix.Fsetxattr(fd, x.Name, x.Value, 0); unsettable(err) {
			return fmt.Errorf("attribute %s: %w", x.Name, err)
		}
	}
	return os.NewSyscallError("utimensat", unix.UtimesNanoAt(fd, "", times(m.MTime), unix.AT_EMPTY_PATH))
}

// setPath gives an object its metadata that is not open for writing: a directory, link or device. rel is a path of real
// directories below rootfd.
func setPath(rootfd int, rel string, kind tree.Kind, m *tree.Meta) error {
	if rel == "" {
		rel = "."
	}
	if err := unix.Fchownat(rootfd, rel, int(m.UID), int(m.GID), unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return os.NewSyscallError("fchownat", err)
	}
	if kind != tree.Symlink {
		if err := unix.Fchmodat(rootfd, rel, m.Mode, 0); err != nil {
			return os.NewSyscallError("fchmodat", err)
		}
	}
	for _, x := range m.Xattrs {
		if err := unix.Lsetxattr(disk.ProcPath(rootfd, rel), x.Name, x.Value, 0); unsettable(err) {
			return fmt.Errorf("attribute %s: %w", x.Name, err)
		}
	}
	return os.NewSyscallError("utimensat", unix.UtimesNanoAt(rootfd, rel, times(m.MTime), unix.AT_SYMLINK_NOFOLLOW))
}

// unsettable tells errors from the answer of a file system that does not know this kind of attribute (ACLs on a mount
// without them): the layer is then as good as it can be there, as with other builders.
func unsettable(err error) bool { return err != nil && err != unix.ENOTSUP }

// create makes the object of a node that is neither a File nor a Dir, with its metadata. rel does not exist yet.
func create(rootfd int, rel string, n *tree.Node) error {
	var err error
	switch n.Kind {
	case tree.Symlink:
		err = os.NewSyscallError("symlink", unix.Symlinkat(n.Link, rootfd, rel))
	case tree.Whiteout:
		return os.NewSyscallError("mknod whiteout", unix.Mknodat(rootfd, rel, unix.S_IFCHR, 0))
	case tree.Char:
		err = os.NewSyscallError("mknod", unix.Mknodat(rootfd, rel, unix.S_IFCHR|0o600, int(n.Rdev)))
	case tree.Block:
		err = os.NewSyscallError("mknod", unix.Mknodat(rootfd, rel, unix.S_IFBLK|0o600, int(n.Rdev)))
	case tree.Fifo:
		err = os.NewSyscallError("mknod", unix.Mknodat(rootfd, rel, unix.S_IFIFO|0o600, 0))
	default:
		err = fmt.Errorf("cannot be made from a layer (kind %d)", n.Kind)
	}
	if err != nil {
		return err
	}
	return setPath(rootfd, rel, n.Kind, &n.Meta)
}

// markOpaque makes a directory hide what is below it in an overlay.
func markOpaque(rootfd int, rel string) error {
	if err := unix.Lsetxattr(disk.ProcPath(rootfd, rel), overlayOpaque, []byte("y"), 0); err != nil {
		return fmt.Errorf("mark opaque: %w", err)
	}
	return nil
}

// joinRel joins a clean relative path and a name; the root is "".
func joinRel(dir, name string) string {
	if dir == "" {
		return name
	}
	var b strings.Builder
	b.Grow(len(dir) + 1 + len(name))
	b.WriteString(dir)
	b.WriteByte('/')
	b.WriteString(name)
	return b.String()
}

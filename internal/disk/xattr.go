package disk

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"larder/internal/tree"
)

// MaxXattrs bounds the names and the values of one file's attributes, in bytes; it is the kernel's own limit for either.
const MaxXattrs = 64 << 10

// OverlayPrefix begins the names of what overlay notes for itself on the objects of an upper directory.
const OverlayPrefix = "trusted.overlay."

// Kept says whether an attribute belongs to an object's content. What overlay keeps for itself must not: from outside it could
// redirect a look-up into another directory. What the host's security modules put on each file is the host's. The kernel knows
// user.* on files and directories only. Names that no kernel would take (too long, with a NUL) are not looked for.
func Kept(name string, kind tree.Kind) bool {
	switch {
	case strings.HasPrefix(name, OverlayPrefix), strings.HasPrefix(name, "user.overlay."):
		return false
	case strings.HasPrefix(name, "user."):
		return kind == tree.File || kind == tree.Dir
	case strings.HasPrefix(name, "trusted."):
		return true
	}
	return name == "security.capability" || name == "system.posix_acl_access" || name == "system.posix_acl_default"
}

// XattrReader reads attributes through one buffer; one goroutine uses it.
type XattrReader struct {
	Overlay  bool // gives what begins with OverlayPrefix as well
	Vanished bool // leaves out an attribute that is gone by the time it is read, which otherwise is an error

	names, value [MaxXattrs]byte
}

// Opened gives the attributes of an open object that are Kept, sorted; nil for none.
func (x *XattrReader) Opened(fd int, kind tree.Kind) ([]tree.Xattr, error) {
	n, err := unix.Flistxattr(fd, x.names[:])
	return x.collect(n, err, kind, func(name string) (int, error) { return unix.Fgetxattr(fd, name, x.value[:]) })
}

// Named gives those of an object that must not be opened: a link, a device.
func (x *XattrReader) Named(dirfd int, name string, kind tree.Kind) ([]tree.Xattr, error) {
	path := ProcPath(dirfd, name)
	n, err := unix.Llistxattr(path, x.names[:])
	return x.collect(n, err, kind, func(attr string) (int, error) { return unix.Lgetxattr(path, attr, x.value[:]) })
}

func (x *XattrReader) collect(n int, err error, kind tree.Kind, get func(string) (int, error)) ([]tree.Xattr, error) {
	if errors.Is(err, unix.ENOTSUP) || err == nil && n == 0 {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list attributes: %w", err)
	}
	var out []tree.Xattr
	for name := range strings.SplitSeq(strings.TrimSuffix(string(x.names[:n]), "\x00"), "\x00") {
		if !Kept(name, kind) && !(x.Overlay && strings.HasPrefix(name, OverlayPrefix)) {
			continue
		}
		n, err := get(name)
		if x.Vanished && errors.Is(err, unix.ENODATA) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read attribute %s: %w", name, err)
		}
		out = append(out, tree.Xattr{Name: name, Value: slices.Clone(x.value[:n])})
	}
	tree.SortXattrs(out)
	return out, nil
}

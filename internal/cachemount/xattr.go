package cachemount

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"larder/internal/tree"
)

// maxXattrs bounds the names and the values of one file's attributes; it is the kernel's own limit for either.
const maxXattrs = 64 << 10

// keptXattr says whether an attribute belongs to a mount's content, as for layers: what overlay and the host's security modules
// note on files belongs to the machine. The kernel knows user.* on files and directories only.
func keptXattr(name string, kind tree.Kind) bool {
	switch {
	case strings.HasPrefix(name, "trusted.overlay."), strings.HasPrefix(name, "user.overlay."):
		return false
	case strings.HasPrefix(name, "user."):
		return kind == tree.File || kind == tree.Dir
	case strings.HasPrefix(name, "trusted."):
		return true
	}
	return name == "security.capability" || name == "system.posix_acl_access" || name == "system.posix_acl_default"
}

// setXattr makes an error of a failed setting, except where the file system does not know attributes of this kind: the mount is then
// as good as it can be there.
func setXattr(name string, err error) error {
	if err == nil || errors.Is(err, unix.ENOTSUP) {
		return nil
	}
	return fmt.Errorf("set attribute %s: %w", name, err)
}

// xattrReader reads attributes through one buffer; one goroutine uses it.
type xattrReader struct {
	names, value [maxXattrs]byte
}

// open gives the attributes of an open file, sorted.
func (x *xattrReader) open(fd int, kind tree.Kind) ([]tree.Xattr, error) {
	n, err := unix.Flistxattr(fd, x.names[:])
	return x.collect(n, err, kind, func(name string) (int, error) { return unix.Fgetxattr(fd, name, x.value[:]) })
}

// named gives those of what must not be opened: a link, a device.
func (x *xattrReader) named(dirfd int, name string, kind tree.Kind) ([]tree.Xattr, error) {
	path := procPath(dirfd, name)
	n, err := unix.Llistxattr(path, x.names[:])
	return x.collect(n, err, kind, func(attr string) (int, error) { return unix.Lgetxattr(path, attr, x.value[:]) })
}

func (x *xattrReader) collect(n int, err error, kind tree.Kind, get func(string) (int, error)) ([]tree.Xattr, error) {
	if errors.Is(err, unix.ENOTSUP) || err == nil && n == 0 {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list attributes: %w", err)
	}
	var out []tree.Xattr
	for name := range strings.SplitSeq(strings.TrimSuffix(string(x.names[:n]), "\x00"), "\x00") {
		if !keptXattr(name, kind) {
			continue
		}
		n, err := get(name)
		if err != nil {
			return nil, fmt.Errorf("read attribute %s: %w", name, err)
		}
		out = append(out, tree.Xattr{Name: name, Value: slices.Clone(x.value[:n])})
	}
	tree.SortXattrs(out)
	return out, nil
}

// procPath names an object in an open directory for calls that know no directory descriptors.
func procPath(dirfd int, name string) string { return fmt.Sprintf("/proc/self/fd/%d/%s", dirfd, name) }

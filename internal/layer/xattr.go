package layer

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"larder/internal/tree"
)

// Overlay's marks on directories and files of an upper directory.
const (
	overlayPrefix   = "trusted.overlay."
	overlayOpaque   = overlayPrefix + "opaque"
	overlayRedirect = overlayPrefix + "redirect"
	overlayMetacopy = overlayPrefix + "metacopy"
)

// maxXattrs bounds the names and the values of one file's attributes; the kernel's own limit for either is 64 KiB.
const maxXattrs = 64 << 10

// layerXattr says whether an attribute belongs in a layer. What overlay keeps for itself must not: in a tar from outside
// it could redirect a look-up into another directory. What the host's security modules put on each file is the host's, not
// the image's. The kernel knows user.* on files and directories only.
func layerXattr(name string, kind tree.Kind) bool {
	switch {
	case name == "" || len(name) > 255 || strings.ContainsRune(name, 0):
		return false
	case strings.HasPrefix(name, overlayPrefix), strings.HasPrefix(name, "user.overlay."):
		return false
	case strings.HasPrefix(name, "user."):
		return kind == tree.File || kind == tree.Dir
	case strings.HasPrefix(name, "security."):
		return name == "security.capability"
	case strings.HasPrefix(name, "system."):
		return name == "system.posix_acl_access" || name == "system.posix_acl_default"
	case strings.HasPrefix(name, "trusted."):
		return true
	}
	return false
}

// overlayMarks is what overlay noted on an object of an upper directory.
type overlayMarks struct {
	opaque bool
}

// xattrReader reads attributes through one buffer; one goroutine uses it.
type xattrReader struct {
	names, value [maxXattrs]byte
}

// readFd gives the attributes of an open file.
func (x *xattrReader) readFd(fd int, kind tree.Kind) ([]tree.Xattr, overlayMarks, error) {
	n, err := unix.Flistxattr(fd, x.names[:])
	return x.collect(n, err, kind, func(name string) (int, error) { return unix.Fgetxattr(fd, name, x.value[:]) })
}

// readLink gives the attributes of an object that must not be opened: a link, a device.
func (x *xattrReader) readLink(dirfd int, name string, kind tree.Kind) ([]tree.Xattr, overlayMarks, error) {
	path := procPath(dirfd, name)
	n, err := unix.Llistxattr(path, x.names[:])
	return x.collect(n, err, kind, func(attr string) (int, error) { return unix.Lgetxattr(path, attr, x.value[:]) })
}

func (x *xattrReader) collect(n int, err error, kind tree.Kind, get func(string) (int, error)) ([]tree.Xattr, overlayMarks, error) {
	var marks overlayMarks
	if errors.Is(err, unix.ENOTSUP) || err == nil && n == 0 {
		return nil, marks, nil
	}
	if err != nil {
		return nil, marks, fmt.Errorf("list attributes: %w", err)
	}
	var out []tree.Xattr
	for name := range strings.SplitSeq(strings.TrimSuffix(string(x.names[:n]), "\x00"), "\x00") {
		overlay := strings.HasPrefix(name, overlayPrefix)
		if !overlay && !layerXattr(name, kind) {
			continue
		}
		n, err := get(name)
		if errors.Is(err, unix.ENODATA) {
			continue
		}
		if err != nil {
			return nil, marks, fmt.Errorf("read attribute %s: %w", name, err)
		}
		if overlay {
			switch name {
			case overlayOpaque:
				marks.opaque = marks.opaque || string(x.value[:n]) == "y"
			case overlayRedirect, overlayMetacopy:
				return nil, marks, fmt.Errorf("has %s: the overlay was mounted without redirect_dir=off,metacopy=off", name)
			}
			continue
		}
		out = append(out, tree.Xattr{Name: name, Value: slices.Clone(x.value[:n])})
	}
	slices.SortFunc(out, func(a, b tree.Xattr) int { return strings.Compare(a.Name, b.Name) })
	return out, marks, nil
}

// procPath names an object below an open directory for calls that know no directory descriptors.
func procPath(dirfd int, name string) string { return fmt.Sprintf("/proc/self/fd/%d/%s", dirfd, name) }

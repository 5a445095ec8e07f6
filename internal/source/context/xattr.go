package context

import (
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"larder/internal/tree"
)

// fdXattrs reads the extended attributes of an open file, but those that say nothing about the file: macOS's, overlay's
// own, and labels that the host's security modules put on every file.
func fdXattrs(fd int) ([]tree.Xattr, error) {
	var small [256]byte
	names, err := grown(small[:], func(b []byte) (int, error) { return unix.Flistxattr(fd, b) })
	if err == unix.ENOTSUP || err == unix.ENOSYS || err == nil && len(names) == 0 {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var out []tree.Xattr
	for _, name := range strings.Split(strings.TrimSuffix(string(names), "\x00"), "\x00") {
		if foreignXattr(name) {
			continue
		}
		// One that vanished or that this user may not read is left out, as fsutil leaves it out.
		if v, err := grown(make([]byte, 64), func(b []byte) (int, error) { return unix.Fgetxattr(fd, name, b) }); err == nil {
			out = append(out, tree.Xattr{Name: name, Value: slices.Clip(v)})
		}
	}
	slices.SortFunc(out, func(a, b tree.Xattr) int { return strings.Compare(a.Name, b.Name) })
	return out, nil
}

func foreignXattr(name string) bool {
	switch name {
	case "security.selinux", "security.ima", "security.evm", "security.SMACK64":
		return true
	}
	return strings.HasPrefix(name, "com.apple.") || strings.HasPrefix(name, "trusted.overlay.")
}

// grown calls get with buf, and with a larger one for as long as the answer does not fit. The kernel gives at most 64 KiB.
func grown(buf []byte, get func([]byte) (int, error)) ([]byte, error) {
	for {
		n, err := get(buf)
		if err == unix.ERANGE && len(buf) <= 64<<10 {
			buf = make([]byte, 4*len(buf))
			continue
		}
		if err != nil {
			return nil, err
		}
		return buf[:n], nil
	}
}

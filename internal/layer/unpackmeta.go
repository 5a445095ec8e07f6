package layer

import (
	"archive/tar"
	"encoding/base64"
	"fmt"
	"math"
	"net/url"
	"slices"
	"strings"
	"time"

	"larder/internal/disk"
	"larder/internal/tree"
)

// The PAX records that carry extended attributes: star's, which everybody writes, and libarchive's (base64 under an
// escaped name), which bsdtar adds.
const (
	paxSchily     = "SCHILY.xattr."
	paxLibarchive = "LIBARCHIVE.xattr."
)

func headerMeta(hdr *tar.Header, kind tree.Kind) (tree.Meta, error) {
	const maxID = math.MaxUint32 - 1 // the last one means "none" to the kernel
	if hdr.Uid < 0 || int64(hdr.Uid) > maxID || hdr.Gid < 0 || int64(hdr.Gid) > maxID {
		return tree.Meta{}, fmt.Errorf("owner %d:%d: %w", hdr.Uid, hdr.Gid, ErrBadTar)
	}
	m := tree.Meta{Mode: uint32(hdr.Mode) & 0o7777, UID: uint32(hdr.Uid), GID: uint32(hdr.Gid), MTime: nanos(hdr.ModTime)}
	if kind == tree.Symlink {
		m.Mode = 0o777
	}
	m.Xattrs = headerXattrs(hdr, kind)
	return m, nil
}

// nanos gives 0 for times that do not fit (before 1678, after 2262).
func nanos(t time.Time) int64 {
	const limit = math.MaxInt64 / int64(time.Second)
	if s := t.Unix(); s <= -limit || s >= limit {
		return 0
	}
	return t.UnixNano()
}

func headerXattrs(hdr *tar.Header, kind tree.Kind) []tree.Xattr {
	var out []tree.Xattr
	add := func(name string, value []byte) {
		if layerXattr(name, kind) && !slices.ContainsFunc(out, func(x tree.Xattr) bool { return x.Name == name }) {
			out = append(out, tree.Xattr{Name: name, Value: value})
		}
	}
	for k, v := range hdr.PAXRecords {
		if name, ok := strings.CutPrefix(k, paxSchily); ok {
			add(name, []byte(v))
		}
	}
	for k, v := range hdr.PAXRecords {
		name, ok := strings.CutPrefix(k, paxLibarchive)
		if !ok {
			continue
		}
		name, err := url.PathUnescape(name)
		if err != nil {
			continue
		}
		if value, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(v, "=")); err == nil {
			add(name, value)
		}
	}
	slices.SortFunc(out, func(a, b tree.Xattr) int { return strings.Compare(a.Name, b.Name) })
	// What the kernel could not hold on one file is left out, so that FromUpper can read what is there.
	size := 0
	return slices.DeleteFunc(out, func(x tree.Xattr) bool {
		size += len(x.Name) + 1
		return size > disk.MaxXattrs || len(x.Value) > disk.MaxXattrs
	})
}

// mergeXattrs is what a second entry for the same object leaves: its own, and those of the first that it does not name.
func mergeXattrs(old, add []tree.Xattr) []tree.Xattr {
	if len(old) == 0 {
		return add
	}
	out := slices.Clone(add)
	for _, x := range old {
		if !slices.ContainsFunc(add, func(y tree.Xattr) bool { return y.Name == x.Name }) {
			out = append(out, x)
		}
	}
	slices.SortFunc(out, func(a, b tree.Xattr) int { return strings.Compare(a.Name, b.Name) })
	return out
}

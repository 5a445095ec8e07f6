package context

import (
	"cmp"
	"encoding/binary"
	"slices"
	"strings"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"larder/internal/tree"
)

// directory is one that a scan found. The worker that reads it fills it in; its files may be looked at by others.
type directory struct {
	path    string // relative to the context, "" for the context itself
	wanted  bool   // the filter keeps it even when nothing below it is kept
	gone    bool   // it vanished, or may not be read and nobody asked for it
	matches matches
	fs      fileSystem

	meta    tree.Meta
	entries []tree.Entry // files, sorted; a Node whose Kind is 0 vanished
	subs    []subdirectory
}

type subdirectory struct {
	name string
	dir  *directory
}

// part is some of a directory's files, entries[from:to].
type part struct {
	handle   *handle
	from, to int
}

// handle is an open directory that several parts share; the last to let go closes it.
type handle struct {
	fd   int
	uses atomic.Int32
}

func (h *handle) release() {
	if h.uses.Add(-1) == 0 {
		unix.Close(h.fd)
	}
}

// assemble makes the tree of a directory whose tasks have all ended; nil when it is not in the layer.
func (d *directory) assemble() (*tree.Node, error) {
	if d.gone && d.path != "" {
		return nil, nil
	}
	entries := slices.DeleteFunc(d.entries, func(e tree.Entry) bool { return e.Node.Kind == 0 })
	files := len(entries)
	for _, sub := range d.subs {
		n, err := sub.dir.assemble()
		if err != nil {
			return nil, err
		}
		if n != nil {
			entries = append(entries, tree.Entry{Name: sub.name, Node: n})
		}
	}
	if len(entries) == 0 && !d.wanted {
		return nil, nil
	}
	if files > 0 && files < len(entries) {
		slices.SortFunc(entries, func(a, b tree.Entry) int { return cmp.Compare(a.Name, b.Name) })
	}
	d.entries, d.subs = nil, nil
	return tree.NewDir(d.meta, false, entries)
}

// dirent is a name in a directory with the type that the kernel gave (DT_*).
type dirent struct {
	name string
	typ  uint8
}

// maxNames bounds the names of one directory, so that a broken file system that lists without end does not take all memory.
const maxNames = 10_000_000

// list reads the names of an open directory, sorted. buf is scratch space of at least 4 KiB.
func list(fd int, buf []byte, out []dirent) ([]dirent, error) {
	out = out[:0]
	for {
		n, err := unix.Getdents(fd, buf)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return out, err
		}
		if n == 0 {
			break
		}
		// All names of one answer share a string: a directory of thousands costs a few allocations.
		block := string(buf[:n])
		for len(block) > 0 {
			name, typ, size, ok := parseDirent(block)
			if !ok {
				return out, unix.EIO
			}
			if name != "." && name != ".." {
				out = append(out, dirent{name, typ})
			}
			block = block[size:]
		}
		if len(out) > maxNames {
			return out, unix.EFBIG
		}
	}
	if !slices.IsSortedFunc(out, compareDirents) {
		slices.SortFunc(out, compareDirents)
	}
	return out, nil
}

func compareDirents(a, b dirent) int { return strings.Compare(a.name, b.name) }

// parseDirent reads a linux_dirent64 at the start of block: inode (8 bytes), offset (8), record length (2), type (1), name.
func parseDirent(block string) (name string, typ uint8, size int, ok bool) {
	const header = 19
	if len(block) < header+1 {
		return "", 0, 0, false
	}
	size = int(binary.NativeEndian.Uint16([]byte{block[16], block[17]}))
	if size < header+1 || size > len(block) {
		return "", 0, 0, false
	}
	name = block[header:size]
	end := strings.IndexByte(name, 0)
	if end < 1 {
		return "", 0, 0, false
	}
	return name[:end], block[18], size, true
}

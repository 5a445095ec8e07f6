package treefs

import (
	"slices"
	"strings"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"larder/internal/disk"
	"larder/internal/observation"
	"larder/internal/tree"
)

// requests answers the kernel. What it does not implement is answered by "not implemented", once for most requests.
type requests struct {
	fuse.RawFileSystem
	fs *FS
}

func (requests) String() string { return "larder" }

// forever is how long the kernel may believe an answer, in seconds.
const forever = 1 << 30

const maxName = 255

func (r requests) Lookup(_ <-chan struct{}, h *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	dir := r.fs.inodes.get(h.NodeId)
	switch {
	case dir == nil || dir.dir == nil:
		return fuse.Status(unix.ESTALE)
	case len(name) > maxName:
		return fuse.Status(unix.ENAMETOOLONG)
	}
	n, err := r.fs.lookup(dir, name)
	if err != nil {
		r.fs.fail(err)
		return fuse.EIO
	}
	out.EntryValid = forever
	if n == nil {
		return fuse.OK // node 0 stands for an absent name, to be remembered
	}
	out.NodeId = n.number
	out.AttrValid = forever
	n.attr(&out.Attr)
	return fuse.OK
}

func (r requests) GetAttr(_ <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	n := r.fs.inodes.get(in.NodeId)
	if n == nil {
		return fuse.Status(unix.ESTALE)
	}
	out.AttrValid = forever
	n.attr(&out.Attr)
	return fuse.OK
}

func (r requests) Readlink(_ <-chan struct{}, h *fuse.InHeader) ([]byte, fuse.Status) {
	n := r.fs.inodes.get(h.NodeId)
	if n == nil || n.node.Kind != tree.Symlink {
		return nil, fuse.EINVAL
	}
	return []byte(n.node.Link), fuse.OK
}

func (r requests) OpenDir(_ <-chan struct{}, _ *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	if r.fs.noOpendir {
		return fuse.ENOSYS
	}
	out.OpenFlags = fuse.FOPEN_KEEP_CACHE | fuse.FOPEN_CACHE_DIR
	return fuse.OK
}

// ReadDir lists a directory: "." and ".." at 0 and 1, entry i at i+2.
func (r requests) ReadDir(_ <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	n := r.fs.inodes.get(in.NodeId)
	if n == nil || n.dir == nil {
		return fuse.ENOTDIR
	}
	n.note(observation.List)
	d := n.dir
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.load(r.fs, n.node); err != nil {
		r.fs.fail(err)
		return fuse.EIO
	}
	for off := in.Offset; off < uint64(len(d.entries))+2; off++ {
		e := fuse.DirEntry{Off: off + 1}
		switch off {
		case 0:
			e.Name, e.Ino, e.Mode = ".", n.number, unix.S_IFDIR
		case 1:
			e.Name, e.Ino, e.Mode = "..", d.parent, unix.S_IFDIR
		default:
			i := int(off - 2)
			if d.entries[i].Node.Kind == tree.Socket {
				continue
			}
			e.Name, e.Ino, e.Mode = d.entries[i].Name, d.number(n.part, i), kindMode(d.entries[i].Node.Kind)
		}
		if !out.AddDirEntry(e) {
			break
		}
	}
	return fuse.OK
}

const (
	opaqueMark = disk.OverlayPrefix + "opaque"
	originMark = disk.OverlayPrefix + "origin"
)

// GetXAttr notes nothing: extended attributes are a part of the entry, which whoever knows of an object has looked at.
func (r requests) GetXAttr(_ <-chan struct{}, h *fuse.InHeader, name string, dest []byte) (uint32, fuse.Status) {
	n := r.fs.inodes.get(h.NodeId)
	if n == nil {
		return 0, fuse.Status(unix.ESTALE)
	}
	if strings.HasPrefix(name, disk.OverlayPrefix) {
		if name == opaqueMark && n.node.Opaque {
			return give(dest, "y")
		}
		// Overlay lists a directory that only one lower has as it is, with its whiteouts, unless it looks copied up.
		if name == originMark && hasWhiteouts(n.node) {
			return give(dest, "")
		}
		return 0, fuse.ENODATA
	}
	for _, x := range n.node.Xattrs {
		if x.Name == name {
			return give(dest, string(x.Value))
		}
	}
	if !slices.ContainsFunc(namespaces, func(s string) bool { return strings.HasPrefix(name, s) }) {
		return 0, fuse.Status(unix.EOPNOTSUPP) // as other file systems say of names that can never be
	}
	return 0, fuse.ENODATA
}

// hasWhiteouts tells whether a directory names something that is gone.
func hasWhiteouts(n *tree.Node) bool {
	if n.Kind != tree.Dir || !n.IsLayer() {
		return false
	}
	entries, err := n.Entries()
	return err == nil && slices.ContainsFunc(entries, func(e tree.Entry) bool { return e.Node.Kind == tree.Whiteout })
}

// namespaces are what names of extended attributes begin with.
var namespaces = []string{"user.", "trusted.", "security.", "system.posix_acl_"}

func (r requests) ListXAttr(_ <-chan struct{}, h *fuse.InHeader, dest []byte) (uint32, fuse.Status) {
	n := r.fs.inodes.get(h.NodeId)
	if n == nil {
		return 0, fuse.Status(unix.ESTALE)
	}
	var names strings.Builder
	if n.node.Opaque {
		names.WriteString(opaqueMark + "\x00")
	}
	for _, x := range n.node.Xattrs {
		names.WriteString(x.Name)
		names.WriteByte(0)
	}
	return give(dest, names.String())
}

// give answers with a value, or with its length where there is no room for it.
func give(dest []byte, value string) (uint32, fuse.Status) {
	if len(dest) < len(value) {
		return uint32(len(value)), fuse.ERANGE
	}
	return uint32(copy(dest, value)), fuse.OK
}

// StatFs tells the same of all parts.
func (r requests) StatFs(_ <-chan struct{}, _ *fuse.InHeader, out *fuse.StatfsOut) fuse.Status {
	*out = fuse.StatfsOut{Bsize: blockSize, Frsize: blockSize, NameLen: maxName}
	return fuse.OK
}

func (r requests) Flush(<-chan struct{}, *fuse.FlushIn) fuse.Status { return fuse.ENOSYS }

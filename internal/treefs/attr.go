package treefs

import (
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"larder/internal/tree"
)

const blockSize = 4096

// attr fills in what stat shows. A directory's size and number of names are constants: else a listing would show in its entry.
func (n *inode) attr(out *fuse.Attr) {
	t := n.node
	*out = fuse.Attr{Ino: n.number, Mode: kindMode(t.Kind) | t.Mode, Nlink: max(n.names, 1), Owner: fuse.Owner{Uid: t.UID, Gid: t.GID}, Blksize: blockSize}
	switch t.Kind {
	case tree.File:
		out.Size = uint64(t.Size)
		out.Blocks = (out.Size + blockSize - 1) / blockSize * (blockSize / 512)
	case tree.Dir:
		out.Size = blockSize
		out.Blocks = blockSize / 512
	case tree.Symlink:
		out.Mode = unix.S_IFLNK | 0o777 // whatever a tree says: on disk there is no other
		out.Size = uint64(len(t.Link))
	case tree.Char, tree.Block:
		out.Rdev = deviceNumber(t.Rdev)
	case tree.Whiteout:
		out.Mode = unix.S_IFCHR
	}
	sec, nsec := t.MTime/1e9, t.MTime%1e9
	if nsec < 0 {
		sec, nsec = sec-1, nsec+1e9
	}
	out.Mtime, out.Mtimensec = uint64(sec), uint32(nsec)
	out.Ctime, out.Ctimensec = out.Mtime, out.Mtimensec
	out.Atime, out.Atimensec = out.Mtime, out.Mtimensec
}

func kindMode(k tree.Kind) uint32 {
	switch k {
	case tree.File:
		return unix.S_IFREG
	case tree.Dir:
		return unix.S_IFDIR
	case tree.Symlink:
		return unix.S_IFLNK
	case tree.Block:
		return unix.S_IFBLK
	case tree.Fifo:
		return unix.S_IFIFO
	}
	return unix.S_IFCHR // Whiteout too: overlay's is the device 0/0
}

// deviceNumber gives a device's number as the kernel takes it here: 12 bits of major, 20 of minor.
func deviceNumber(rdev uint64) uint32 {
	major, minor := unix.Major(rdev), unix.Minor(rdev)
	return minor&0xff | major<<8 | minor&^0xff<<12
}

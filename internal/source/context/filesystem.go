package context

import "golang.org/x/sys/unix"

// fileSystem says what a directory lies on.
type fileSystem struct {
	dev uint64
	// honest file systems change a file's ctime with each write, and no program can set it back. Network and FUSE file
	// systems may make it up from the mtime, or serve an old one; read-only images have the times that their maker chose.
	honest bool
}

// Numbers of file systems that unix has no name for.
const (
	zfsMagic      = 0x2fc12fc1
	bcachefsMagic = 0xca451a4e
)

func identify(fd int, dev uint64) fileSystem {
	var st unix.Statfs_t
	if err := unix.Fstatfs(fd, &st); err != nil {
		return fileSystem{dev, false}
	}
	switch uint32(st.Type) {
	case unix.EXT4_SUPER_MAGIC, unix.XFS_SUPER_MAGIC, unix.BTRFS_SUPER_MAGIC, unix.F2FS_SUPER_MAGIC,
		unix.TMPFS_MAGIC, unix.OVERLAYFS_SUPER_MAGIC, zfsMagic, bcachefsMagic:
		return fileSystem{dev, true}
	}
	return fileSystem{dev, false}
}

package treefs

import (
	"errors"
	"io"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"larder/internal/layer"
	"larder/internal/observation"
	"larder/internal/tree"
)

// What was measured, in time of the processors: where no file is handed to the kernel, it need not be asked to open any, which spares
// 55 us whenever one is opened; a large file that is handed over spares 0.7 ns for a byte, the first time that it is read. So files are
// handed over where there are at least payingShare bytes of large ones for each file that there is, so that each may be opened some times.
const (
	passthroughSize = 512 << 10
	payingShare     = 256 << 10
)

// counted is the handle of an open that Release has to count.
const counted = 1

// Open looks at a file's contents, if the kernel asks at all.
func (r requests) Open(cancel <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	n := r.fs.inodes.get(in.NodeId)
	switch {
	case r.fs.noOpen:
		return fuse.ENOSYS // the kernel opens files by itself from now on; reading shows what is looked at
	case n == nil || n.node.Kind != tree.File:
		return fuse.Status(unix.ESTALE)
	case in.Flags&unix.O_ACCMODE != unix.O_RDONLY:
		return fuse.EROFS
	}
	n.note(observation.Content)
	out.OpenFlags = fuse.FOPEN_KEEP_CACHE | fuse.FOPEN_NOFLUSH
	if n.file == nil {
		return fuse.OK
	}
	if n.node.Size < r.fs.passSize || n.node.Size <= inMemory {
		return r.fs.ready(cancel, in.Pid, n)
	}
	id, status := r.fs.openLarge(cancel, in.Pid, n)
	if status != fuse.OK {
		return status
	}
	out.Fh = counted
	if id != 0 {
		out.OpenFlags, out.BackingID = fuse.FOPEN_PASSTHROUGH|fuse.FOPEN_NOFLUSH, id
	}
	return fuse.OK
}

// ready makes sure that a file's contents can be had before it is opened: an open that fails says more than a read that does.
func (fs *FS) ready(cancel <-chan struct{}, pid uint32, n *inode) fuse.Status {
	c, err := fs.acquire(cancel, pid, n)
	if err != nil {
		return fs.status(err)
	}
	c.done()
	return fuse.OK
}

// openLarge counts an open and gives the kernel's number of the file that it shall read, 0 where reads come here.
func (fs *FS) openLarge(cancel <-chan struct{}, pid uint32, n *inode) (int32, fuse.Status) {
	f := n.file
	again := func() (int32, bool) {
		if f.opens > 0 {
			f.opens++
		}
		return f.backing, f.opens > 0
	}
	c := &fs.contents
	c.mu.Lock()
	id, ok := again()
	c.mu.Unlock()
	if ok {
		return id, fuse.OK
	}
	got, err := fs.acquire(cancel, pid, n)
	if err != nil {
		return 0, fs.status(err)
	}
	defer got.done()
	c.mu.Lock()
	defer c.mu.Unlock()
	if id, ok := again(); ok {
		return id, fuse.OK
	}
	f.opens = 1
	if got.whole && fs.pass.Load() && !n.part.noPass.Load() {
		f.backing = fs.register(n.part, got)
	}
	return f.backing, fuse.OK
}

// register hands a file to the kernel; 0 where it does not take it.
func (fs *FS) register(p *part, c *content) int32 {
	id, errno := fs.server.RegisterBackingFd(&fuse.BackingMap{Fd: int32(c.disk.Fd())})
	switch errno {
	case 0:
		return id
	case unix.EPERM:
		fs.pass.Store(false) // no privilege, for no file
	default:
		p.noPass.Store(true) // its file system is stacked itself, or cannot be read so
	}
	return 0
}

func (r requests) Release(_ <-chan struct{}, in *fuse.ReleaseIn) {
	n := r.fs.inodes.get(in.NodeId)
	if in.Fh != counted || n == nil || n.file == nil {
		return
	}
	c := &r.fs.contents
	c.mu.Lock()
	defer c.mu.Unlock()
	n.file.opens--
	if n.file.opens == 0 && n.file.backing != 0 {
		r.fs.server.UnregisterBackingFd(n.file.backing)
		n.file.backing = 0
	}
}

func (r requests) Read(cancel <-chan struct{}, in *fuse.ReadIn, buf []byte) (fuse.ReadResult, fuse.Status) {
	n := r.fs.inodes.get(in.NodeId)
	if n == nil || n.node.Kind != tree.File {
		return nil, fuse.Status(unix.ESTALE)
	}
	n.note(observation.Content)
	off := int64(min(in.Offset, uint64(n.node.Size)))
	size := min(n.node.Size-off, int64(in.Size), int64(len(buf)))
	if size == 0 {
		return fuse.ReadResultData(nil), fuse.OK
	}
	c, err := r.fs.acquire(cancel, in.Pid, n)
	if err != nil {
		return nil, r.fs.status(err)
	}
	defer c.done()
	if c.disk == nil {
		return fuse.ReadResultVector([][]byte{c.bytes[off : off+size]}), fuse.OK
	}
	if _, err := c.disk.ReadAt(buf[:size], c.start+off); err != nil {
		if err == io.EOF {
			err = &layer.ChangedError{Name: nameOf(n, c.disk)}
		}
		return nil, r.fs.status(err)
	}
	return fuse.ReadResultVector([][]byte{buf[:size]}), fuse.OK
}

// status is what the step is told of a failure that Err has.
func (fs *FS) status(err error) fuse.Status {
	switch {
	case errors.Is(err, errKilled):
		return fuse.EINTR
	case !errors.Is(err, errClosed):
		fs.fail(err)
	}
	return fuse.EIO
}

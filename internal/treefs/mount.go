package treefs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"larder/internal/layer"
	"larder/internal/tree"
)

// Part is one tree that is shown, in a directory of its own.
type Part struct {
	Root     *tree.Node   // a directory: a layer tree, with whiteouts and opaque marks, or a merged one
	Contents layer.Source // opens every File of Root
}

// Options say how parts are shown.
type Options struct {
	// Temp is a directory for contents that are in no file anywhere. What is put there has no name and ends with the process.
	Temp string
	// Copy has all contents go through this process, and none of them handed to the kernel as files to read itself.
	Copy bool
	// Passthrough is the size from which files are handed to the kernel, in bytes. 0 is passthroughSize where that pays: handing over
	// any file makes opening all of them dearer.
	Passthrough int64

	device string // instead of /dev/fuse
}

// FS is a mounted file system. It is safe for concurrent use.
type FS struct {
	dir string
	opt Options
	own *inode // of dir, which holds the parts
	// parts are in the order that Mount was given.
	parts  []*part
	inodes inodes

	// noOpendir: the kernel can do without being asked to open directories. noOpen: files as well; what is noted then is reading.
	noOpendir, noOpen bool
	pass              atomic.Bool // files are handed to the kernel
	passSize          int64       // from this size, in bytes

	caller   context.Context // of Mount
	ctx      context.Context // ends with caller and with Close
	cancel   context.CancelCauseFunc
	contents contents

	mu  sync.Mutex
	err error // first failure to give contents

	server *fuse.Server
	served chan struct{} // closed when the server has ended
	device uint32        // minor device number of the mount, by which the kernel knows the connection
	once   sync.Once
	closed error
}

// mostRequest is the largest read that the kernel may ask for at once, in bytes. It does not read further ahead, and what it may ask
// for is room that each request takes.
const mostRequest = 128 << 10

// mostBackground is how many reads ahead may be under way.
const mostBackground = 64

// Mount shows parts below dir, which exists and is empty. ctx is the step's: contents are opened with it, at any time until Close.
// An error wraps ErrUnavailable where this machine cannot do it.
func Mount(ctx context.Context, dir string, parts []Part, opt Options) (_ *FS, err error) {
	if dir, err = filepath.Abs(dir); err != nil {
		return nil, err
	}
	if opt.device == "" {
		opt.device = "/dev/fuse"
	}
	fs := &FS{dir: dir, opt: opt, caller: ctx, served: make(chan struct{})}
	fs.ctx, fs.cancel = context.WithCancelCause(ctx)
	defer func() {
		if err != nil {
			fs.cancel(err)
		}
	}()
	fs.contents.init()
	hand, err := fs.plant(parts)
	if err != nil {
		return nil, fmt.Errorf("show layers: %w", err)
	}
	fd, err := mountFuse(opt.device, dir)
	if err != nil {
		return nil, err
	}
	mounted := true
	defer func() {
		if err != nil && mounted {
			unix.Unmount(dir, unix.UMOUNT_NOFOLLOW|unix.MNT_FORCE|unix.MNT_DETACH)
		}
	}()
	disabled := uint64(0)
	if opt.Copy || !hand {
		disabled = fuse.CAP_PASSTHROUGH
	}
	// The server takes fd, and closes it if it fails. It has told the kernel what it wants before it returns.
	fs.server, err = fuse.NewServer(requests{fuse.NewDefaultRawFileSystem(), fs}, fmt.Sprintf("/dev/fd/%d", fd), &fuse.MountOptions{
		Name:                     "larder",
		MaxWrite:                 mostRequest,
		MaxReadAhead:             mostRequest,
		MaxBackground:            mostBackground,
		MaxStackDepth:            1,
		DisableReadDirPlus:       true,
		EnableSymlinkCaching:     true,
		ExplicitDataCacheControl: true,
		ExtraCapabilities:        fuse.CAP_NO_OPENDIR_SUPPORT,
		DisabledCapabilities:     disabled,
		Logger:                   log.New(io.Discard, "", 0),
		PanicHandler:             fs.panicked,
	})
	if err != nil {
		return nil, fmt.Errorf("%w: the kernel's FUSE does not agree with larder's: %w", ErrUnavailable, err)
	}
	can := fs.server.KernelSettings().Flags64() &^ disabled
	fs.noOpendir = can&fuse.CAP_NO_OPENDIR_SUPPORT != 0
	fs.pass.Store(can&fuse.CAP_PASSTHROUGH != 0)
	fs.noOpen = can&fuse.CAP_NO_OPEN_SUPPORT != 0 && !fs.pass.Load()
	go func() {
		defer close(fs.served)
		fs.server.Serve()
	}()
	mounted = false // Close does it
	if err := fs.settle(); err != nil {
		return nil, errors.Join(fmt.Errorf("mount %s: %w", dir, err), fs.Close())
	}
	return fs, nil
}

// settle does what has to be done before anybody looks.
func (fs *FS) settle() error {
	var st unix.Stat_t
	if err := unix.Stat(fs.dir, &st); err != nil {
		return err
	}
	fs.device = unix.Minor(uint64(st.Dev))
	// The runtime polls files that it opens, without letting go of what the answer may need. Once told that there is no polling
	// here, the kernel asks no more. The library answers for this name itself.
	fd, err := unix.Open(filepath.Join(fs.dir, ".go-fuse-epoll-hack"), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0) //nolint:errcheck // the answer is no
	return nil
}

// Dir gives where a part is shown.
func (fs *FS) Dir(i int) string { return filepath.Join(fs.dir, strconv.Itoa(i)) }

// Passthrough tells whether files are handed to the kernel. Until the first large one was, it only says that they may be.
func (fs *FS) Passthrough() bool { return fs.pass.Load() }

// Err gives the first failure to give contents: a *layer.GoneError, a *layer.ChangedError, why the context ended. All that the
// step was told is that reading failed.
func (fs *FS) Err() error {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	return fs.err
}

func (fs *FS) fail(err error) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	if fs.err == nil {
		fs.err = err
	}
}

func (fs *FS) panicked(what any) fuse.Status {
	fs.fail(fmt.Errorf("larder has a bug: serving a layer to a step: %v\n%s", what, debug.Stack()))
	return fuse.EIO
}

var errClosed = errors.New("the file system is closed")

// closeWait bounds how long Close waits for the server; it ends at once unless something is very wrong.
const closeWait = 5 * time.Second

// Close unmounts and waits for the server to end. It may be called any number of times.
func (fs *FS) Close() error {
	fs.once.Do(func() { fs.closed = fs.close() })
	return fs.closed
}

func (fs *FS) close() error {
	fs.cancel(errClosed)
	// Forced, so that the kernel gives up the connection: who still looks at the mount, or at an overlay on it, keeps neither us
	// nor the server from ending.
	err := unix.Unmount(fs.dir, unix.UMOUNT_NOFOLLOW|unix.MNT_FORCE|unix.MNT_DETACH)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) {
		err = fs.abort() // somebody else has unmounted it
	}
	select {
	case <-fs.served:
		err = nil
	case <-time.After(closeWait):
		err = errors.Join(err, errors.New("the server does not end"))
	}
	fs.contents.close()
	if err != nil {
		return fmt.Errorf("unmount %s: %w", fs.dir, err)
	}
	return nil
}

// abort has the kernel give up a connection whose mount cannot be reached by its path any more.
func (fs *FS) abort() error {
	err := os.WriteFile(fmt.Sprintf("/sys/fs/fuse/connections/%d/abort", fs.device), []byte("1"), 0)
	if errors.Is(err, os.ErrNotExist) {
		return nil // it is gone, or there is no way to it, which waiting tells
	}
	return err
}

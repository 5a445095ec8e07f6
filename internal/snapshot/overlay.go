package snapshot

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// maxLowers is the kernel's OVL_MAX_STACK.
const maxLowers = 500

// overlay describes one overlay mount.
type overlay struct {
	lowers []string // the topmost first
	upper  string   // empty for a read-only mount
	work   string
	// served says that some lower directories are of another file system, treefs's.
	served bool
}

// pinned options, see DESIGN section 3: a host whose default is metacopy=on or redirect_dir=on would leave uppers
// that are no layers.
var pinned = [][2]string{{"redirect_dir", "off"}, {"metacopy", "off"}, {"index", "off"}}

// options gives those of one mount. Where all lower directories are of one file system xino changes nothing. Where some are served, "on" would have overlay look
// each name up to list a merged directory, so that listing it depended on every file in it, and show inode numbers beyond 2^63, which
// programs that keep them in a double take for one and the same; "off" shows files of served layers under a device number of their own.
func (o overlay) options() [][2]string {
	if o.served {
		return append(pinned[:len(pinned):len(pinned)], [2]string{"xino", "off"})
	}
	return append(pinned[:len(pinned):len(pinned)], [2]string{"xino", "on"})
}

// classicOnly remembers that this kernel's overlay does not take lower directories one by one (before Linux 6.8).
var classicOnly atomic.Bool

// mountAt mounts o at target. Layers are handed to the kernel by descriptor or one by one, so neither the number of
// layers nor a ':' or ',' in a path matters.
func (o overlay) mountAt(target string) error {
	if len(o.lowers) == 0 {
		return errors.New("an overlay mount needs a lower directory")
	}
	if len(o.lowers) > maxLowers {
		return fmt.Errorf("%d layers are stacked, the kernel's overlay takes %d: merge some in the Dockerfile", len(o.lowers), maxLowers)
	}
	if !classicOnly.Load() {
		err := o.mountOneByOne(target)
		if err == nil || !errors.Is(err, errNoLowerdirAdd) {
			return err
		}
		classicOnly.Store(true)
	}
	return o.mountClassic(target)
}

// errNoLowerdirAdd says that the kernel lacks the new mount API or overlay's "lowerdir+" in it.
var errNoLowerdirAdd = errors.New("overlay does not know lowerdir+")

func (o overlay) mountOneByOne(target string) error {
	fsfd, err := unix.Fsopen("overlay", unix.FSOPEN_CLOEXEC)
	if errors.Is(err, unix.ENOSYS) {
		return errNoLowerdirAdd
	}
	if err != nil {
		return noOverlay(err)
	}
	defer unix.Close(fsfd)
	if err := unix.FsconfigSetString(fsfd, "source", "overlay"); err != nil {
		return configError(fsfd, "source", err)
	}
	var held dirs
	defer held.close()
	for i, dir := range o.lowers {
		if err := setDir(fsfd, "lowerdir+", dir, &held); err != nil {
			if i == 0 && errors.Is(err, unix.EINVAL) {
				return errNoLowerdirAdd
			}
			return configError(fsfd, "lower directory "+dir, err)
		}
	}
	for _, opt := range o.options() {
		if err := unix.FsconfigSetString(fsfd, opt[0], opt[1]); err != nil {
			return configError(fsfd, opt[0]+"="+opt[1], err)
		}
	}
	if o.upper != "" {
		if err := setDir(fsfd, "upperdir", o.upper, &held); err != nil {
			return configError(fsfd, "upper directory "+o.upper, err)
		}
		if err := setDir(fsfd, "workdir", o.work, &held); err != nil {
			return configError(fsfd, "work directory "+o.work, err)
		}
		// An upper becomes a layer or is thrown away, and is never mounted again after a crash: what the step syncs,
		// and above all the sync of the whole file system at unmount, buys nothing.
		if err := unix.FsconfigSetFlag(fsfd, "volatile"); err != nil && !errors.Is(err, unix.EINVAL) {
			return configError(fsfd, "volatile", err)
		}
	}
	if err := unix.FsconfigCreate(fsfd); err != nil {
		return configError(fsfd, "create", err)
	}
	attr := 0
	if o.upper == "" {
		attr = unix.MOUNT_ATTR_RDONLY
	}
	mnt, err := unix.Fsmount(fsfd, unix.FSMOUNT_CLOEXEC, attr)
	if err != nil {
		return configError(fsfd, "fsmount", err)
	}
	defer unix.Close(mnt)
	if err := unix.MoveMount(mnt, "", unix.AT_FDCWD, target, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return fmt.Errorf("mount overlay at %s: %w", target, err)
	}
	return nil
}

// setDir hands a directory to the mount: by its path, which mount tables then show, or by a descriptor where
// fsconfig's limit of 255 bytes or overlay's own escapes stand in the way.
func setDir(fsfd int, option, dir string, held *dirs) error {
	if len(dir) > 255 || strings.Contains(dir, `\`) {
		name, err := held.open(dir)
		if err != nil {
			return err
		}
		dir = name
	}
	return unix.FsconfigSetString(fsfd, option, dir)
}

// mountClassic mounts through mount(2), whose options have to fit into one page and are split at commas and colons:
// every directory goes in as /proc/self/fd/N.
func (o overlay) mountClassic(target string) error {
	var held dirs
	defer held.close()
	var opts strings.Builder
	for i, dir := range o.lowers {
		name, err := held.open(dir)
		if err != nil {
			return err
		}
		if i == 0 {
			opts.WriteString("lowerdir=")
		} else {
			opts.WriteByte(':')
		}
		opts.WriteString(name)
	}
	flags := uintptr(unix.MS_RDONLY)
	if o.upper != "" {
		flags = 0
		upper, err := held.open(o.upper)
		if err != nil {
			return err
		}
		work, err := held.open(o.work)
		if err != nil {
			return err
		}
		fmt.Fprintf(&opts, ",upperdir=%s,workdir=%s", upper, work)
	}
	for _, opt := range o.options() {
		fmt.Fprintf(&opts, ",%s=%s", opt[0], opt[1])
	}
	if opts.Len()+len(",volatile") >= os.Getpagesize() {
		return fmt.Errorf("%d layers are more than this kernel's mount call takes; Linux 6.8 or newer takes %d", len(o.lowers), maxLowers)
	}
	err := errors.New("not tried")
	if o.upper != "" {
		err = unix.Mount("overlay", target, "overlay", flags, opts.String()+",volatile")
	}
	if o.upper == "" || errors.Is(err, unix.EINVAL) {
		err = unix.Mount("overlay", target, "overlay", flags, opts.String())
	}
	runtime.KeepAlive(&held)
	if errors.Is(err, unix.ENODEV) {
		return noOverlay(err)
	}
	if err != nil {
		return fmt.Errorf("mount overlay at %s: %w", target, err)
	}
	return nil
}

// dirs are directories held open for as long as a mount call needs them.
type dirs []int

func (d *dirs) open(dir string) (string, error) {
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", &os.PathError{Op: "open", Path: dir, Err: err}
	}
	*d = append(*d, fd)
	return "/proc/self/fd/" + strconv.Itoa(fd), nil
}

func (d *dirs) close() {
	for _, fd := range *d {
		unix.Close(fd)
	}
}

// configError adds what the kernel's log of this mount says.
func configError(fsfd int, what string, err error) error {
	buf := make([]byte, 512)
	n, rerr := unix.Read(fsfd, buf)
	if rerr != nil || n <= 0 {
		return fmt.Errorf("overlay mount: %s: %w", what, err)
	}
	text := strings.TrimSpace(string(bytes.TrimPrefix(buf[:n], []byte("e "))))
	return fmt.Errorf("overlay mount: %s: %w (%s)", what, err, text)
}

func noOverlay(err error) error {
	if errors.Is(err, unix.EPERM) {
		return fmt.Errorf("mounting needs root (CAP_SYS_ADMIN): run larder with sudo, or the container that it runs in with --privileged: %w", err)
	}
	if errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("this kernel has no overlay file system (try: modprobe overlay): %w", err)
	}
	return fmt.Errorf("overlay mount: %w", err)
}

package snapshot

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

// removeTree deletes a directory of ours after taking off whatever is mounted in it. Where something stays mounted it
// deletes nothing: a bind mount leads into files that are not ours.
func removeTree(dir string) error {
	if _, err := os.Lstat(dir); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	mounts, err := mountsBelow(dir)
	if err != nil {
		return err
	}
	for i := len(mounts) - 1; i >= 0; i-- {
		err := unix.Unmount(mounts[i], unix.UMOUNT_NOFOLLOW|unix.MNT_DETACH)
		if err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("unmount %s: %w", mounts[i], err)
		}
	}
	if len(mounts) > 0 {
		if mounts, err = mountsBelow(dir); err != nil {
			return err
		}
		if len(mounts) > 0 {
			return fmt.Errorf("%s stays mounted, so %s is not deleted", mounts[0], dir)
		}
	}
	return os.RemoveAll(dir)
}

// mountsBelow lists the mount points at and below dir, each after those that it lies on.
func mountsBelow(dir string) ([]string, error) {
	infos, err := mountinfo.GetMounts(func(info *mountinfo.Info) (skip, stop bool) {
		return info.Mountpoint != dir && !strings.HasPrefix(info.Mountpoint, dir+"/"), false
	})
	if err != nil {
		return nil, fmt.Errorf("read the mount table: %w", err)
	}
	var out []string
	for _, info := range infos {
		out = append(out, info.Mountpoint) // the kernel lists them in the order in which they were mounted
	}
	return out, nil
}

package snapshot

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"larder/internal/key"
)

// holdsUppers are file systems that are known to hold overlay's upper directories; any other is tried out.
var holdsUppers = map[int64]bool{
	unix.EXT4_SUPER_MAGIC: true, unix.XFS_SUPER_MAGIC: true, unix.BTRFS_SUPER_MAGIC: true, unix.F2FS_SUPER_MAGIC: true,
}

// minFree is what a place beside the root needs to be worth using, in bytes: docker gives a container a /dev/shm of
// 64 MiB, which no base image fits into.
const minFree = 1 << 30

// findBase gives the directory for layers and mounts. That is root wherever root's file system takes overlay uppers; a
// container's own root file system, itself an overlay, does not. Then it is a directory in the first place that does,
// remembered in the file "place" so that all processes of a root agree. With an error it is root nevertheless, where all
// but mounting works.
func findBase(root string, places []string) (string, error) {
	if canHold(root) == nil {
		return root, nil
	}
	memo := filepath.Join(root, "place")
	if b, err := os.ReadFile(memo); err == nil {
		if base := strings.TrimSpace(string(b)); filepath.IsAbs(base) && ownDir(base) && canHold(base) == nil {
			return base, nil
		}
	}
	name := ".larder-" + key.Bytes([]byte(root)).Hex()[:12]
	tried := []string{root}
	for _, place := range append(besideCheckouts(root, places), "/var/tmp", "/tmp", "/dev/shm", "/run") {
		if free(place) < minFree {
			continue
		}
		base := filepath.Join(place, name)
		err := os.Mkdir(base, 0o700)
		if err != nil && !errors.Is(err, fs.ErrExist) || !ownDir(base) {
			continue
		}
		if canHold(base) == nil {
			return base, remember(memo, base)
		}
		os.Remove(base)
		tried = append(tried, place)
	}
	base, err := ownTmpfs(root)
	if err != nil {
		return root, fmt.Errorf("no place for overlay's upper directories: %s cannot hold them, and a tmpfs could not be mounted (%w); name a directory on a volume with --root", strings.Join(tried, ", "), err)
	}
	return base, remember(memo, base)
}

// besideCheckouts turns checkouts into the topmost directories on the same file systems, as far as those are not inside
// of them: what lies in a checkout would be sent along as build context.
func besideCheckouts(root string, places []string) []string {
	var useless unix.Stat_t
	if unix.Stat(root, &useless) != nil {
		return nil
	}
	var out []string
	for _, p := range places {
		p, err := filepath.Abs(p)
		if err != nil {
			continue
		}
		var own unix.Stat_t
		for at := p; unix.Stat(at, &own) != nil && at != "/"; at = filepath.Dir(at) {
		}
		if own.Dev == useless.Dev {
			continue
		}
		best := ""
		for dir := filepath.Dir(p); ; dir = filepath.Dir(dir) {
			var st unix.Stat_t
			if unix.Stat(dir, &st) != nil || st.Dev != own.Dev {
				break
			}
			best = dir
			if dir == "/" {
				break
			}
		}
		if best != "" {
			out = append(out, best)
		}
	}
	return out
}

// canHold tells whether overlay uppers work in dir.
func canHold(dir string) error {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return err
	}
	if st.Type == unix.OVERLAYFS_SUPER_MAGIC {
		return errors.New("is an overlay itself")
	}
	if holdsUppers[st.Type] {
		return nil
	}
	return tryOverlay(dir)
}

// tryOverlay mounts an overlay in dir and deletes a file in it, which has to leave a whiteout in the upper directory.
func tryOverlay(dir string) (err error) {
	probe, err := os.MkdirTemp(dir, "probe")
	if err != nil {
		return err
	}
	defer func() {
		if rerr := removeTree(probe); err == nil {
			err = rerr
		}
	}()
	for _, sub := range []string{"lower", "upper", "work", "root"} {
		if err := os.Mkdir(filepath.Join(probe, sub), 0o700); err != nil {
			return err
		}
	}
	if err := os.WriteFile(filepath.Join(probe, "lower/file"), nil, 0o600); err != nil {
		return err
	}
	o := overlay{lowers: []string{probe + "/lower"}, upper: probe + "/upper", work: probe + "/work"}
	if err := o.mountAt(probe + "/root"); err != nil {
		return err
	}
	if err := os.Remove(filepath.Join(probe, "root/file")); err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Lstat(probe+"/upper/file", &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFCHR || st.Rdev != 0 {
		return errors.New("overlay leaves no whiteouts here")
	}
	return nil
}

// ownTmpfs mounts a tmpfs inside of root, for all processes that use this root.
func ownTmpfs(root string) (string, error) {
	base := filepath.Join(root, "memory")
	if err := os.Mkdir(base, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return "", err
	}
	if canHold(base) == nil {
		return base, nil
	}
	if err := unix.Mount("larder", base, "tmpfs", 0, "mode=0700"); err != nil {
		return "", noOverlay(err)
	}
	return base, canHold(base)
}

// ownDir tells whether path is a real directory that nobody but us can have put there: in /tmp others may plant one.
func ownDir(path string) bool {
	var st unix.Stat_t
	return unix.Lstat(path, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFDIR && int(st.Uid) == os.Geteuid() && st.Mode&0o022 == 0
}

func free(dir string) uint64 {
	var st unix.Statfs_t
	if unix.Statfs(dir, &st) != nil {
		return 0
	}
	return st.Bavail * uint64(st.Bsize)
}

func remember(memo, base string) error {
	tmp := memo + "." + randomName(8)
	if err := os.WriteFile(tmp, []byte(base+"\n"), 0o644); err != nil {
		return err
	}
	return os.Rename(tmp, memo)
}

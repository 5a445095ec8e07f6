package local

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"

	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"larder/internal/fault"
	"larder/internal/remote"
)

// check refuses a directory that is somebody else's, or in which a name of ours is something else than we would make. A checkout may
// bring such a directory along, with links to files that are none of the checkout's business. Its errors are of kind Usage.
func (s *Store) check() error {
	st, err := os.Stat(s.dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case !st.IsDir():
		return refuse("it is no directory")
	}
	for _, dir := range s.dirs() {
		if err := expect(dir, fs.ModeDir); err != nil {
			return err
		}
	}
	layout := s.path(ocispecs.ImageLayoutFile)
	for _, file := range []string{layout, s.path(ocispecs.ImageIndexFile), s.path(".larder", "lock"), s.path(".larder", "swept")} {
		if err := expect(file, 0); err != nil {
			return err
		}
	}
	if _, err := os.Lstat(layout); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return s.checkEmpty()
}

// dirs are the directories that larder makes, in this order.
func (s *Store) dirs() []string {
	return []string{s.path(".larder"), s.path(".larder", "tmp"), s.path(ocispecs.ImageBlobsDir), s.path(ocispecs.ImageBlobsDir, "sha256")}
}

// expect refuses what is there under a name and is not of a type.
func expect(path string, want fs.FileMode) error {
	st, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case st.Mode().Type() == want:
		return nil
	case st.Mode().Type() == fs.ModeSymlink:
		return refuse("%s is a link, which larder does not follow: remove it, or name another directory", path)
	case want == fs.ModeDir:
		return refuse("%s is no directory: remove it, or name another directory", path)
	}
	return refuse("%s is no file: remove it, or name another directory", path)
}

// checkEmpty refuses a directory without oci-layout, unless there is nothing in it but what an interrupted prepare left and what a new
// file system has.
func (s *Store) checkEmpty() error {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return err
	}
	begun := slices.ContainsFunc(entries, func(e fs.DirEntry) bool { return e.Name() == ".larder" })
	for _, e := range entries {
		switch name := e.Name(); {
		case name == "lost+found", name == ".larder", begun && name == ocispecs.ImageBlobsDir:
		default:
			if _, err := os.Lstat(s.path(ocispecs.ImageLayoutFile)); err == nil { // somebody else has made it meanwhile
				return nil
			}
			return refuse("it is not empty, and no cache (there is no file %s in it): name a directory that is the cache's alone; it need not exist",
				ocispecs.ImageLayoutFile)
		}
	}
	return nil
}

func refuse(format string, args ...any) error {
	return fault.New(fault.Usage, remote.Mark(fmt.Errorf(format, args...), remote.ErrFinal))
}

// openFile opens a file to read it. What is no file, a link for example, counts as damaged.
func openFile(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if errors.Is(err, unix.ELOOP) {
		return nil, fmt.Errorf("%s is a link: %w", path, remote.ErrDamaged)
	}
	if err != nil {
		return nil, err
	}
	st, err := f.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = fmt.Errorf("%s is no file: %w", path, remote.ErrDamaged)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// present tells whether there is a file of a size.
func present(path string, size int64) bool {
	st, err := os.Lstat(path)
	return err == nil && st.Mode().IsRegular() && st.Size() == size
}

// touch makes a file young, so that the sweep leaves it.
func touch(path string) error {
	now := unix.Timespec{Nsec: unix.UTIME_NOW}
	if err := unix.UtimesNanoAt(unix.AT_FDCWD, path, []unix.Timespec{now, now}, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return &fs.PathError{Op: "touch", Path: path, Err: err}
	}
	return nil
}

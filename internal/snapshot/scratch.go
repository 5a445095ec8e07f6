package snapshot

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Scratch is something of a step's that lies in this process's directory, and goes with the process should it die.
type Scratch struct {
	// Path is a directory, or for BindPart what was asked for.
	Path string

	dir string
	n   int
}

// Remove takes it away with everything in it. It may be called more than once.
func (t *Scratch) Remove() error { return removeTree(t.dir) }

// Memory makes a directory whose files are in memory and reach no disk but swap.
func (s *Store) Memory() (*Scratch, error) {
	dir, err := s.tempDir("mem")
	if err != nil {
		return nil, err
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", unix.MS_NODEV|unix.MS_NOSUID, "mode=0711"); err != nil {
		os.Remove(dir)
		return nil, fmt.Errorf("mount a tmpfs: %w", err)
	}
	return &Scratch{Path: dir, dir: dir}, nil
}

// File writes a file that only its owner can read and gives its path. It is not safe for concurrent use.
func (t *Scratch) File(data []byte) (string, error) {
	t.n++
	path := filepath.Join(t.Path, strconv.Itoa(t.n))
	return path, os.WriteFile(path, data, 0o600)
}

// BindPart gives a path of its own to a file or directory inside of root. Symbolic links are followed as they would be
// with root as /, so nothing outside can be reached; the error wraps fs.ErrNotExist where the part is missing.
func (s *Store) BindPart(root, part string) (_ *Scratch, err error) {
	rootfd, err := unix.Open(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: root, Err: err}
	}
	defer unix.Close(rootfd)
	part = "/" + strings.TrimLeft(part, "/")
	fd, err := unix.Openat2(rootfd, part, &unix.OpenHow{
		Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	})
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: part, Err: err}
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, &os.PathError{Op: "stat", Path: part, Err: err}
	}
	dir, err := s.tempDir("part")
	if err != nil {
		return nil, err
	}
	t := &Scratch{Path: filepath.Join(dir, "it"), dir: dir}
	defer func() {
		if err != nil {
			t.Remove()
		}
	}()
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		err = os.Mkdir(t.Path, 0o700)
	} else {
		err = os.WriteFile(t.Path, nil, 0o600)
	}
	if err != nil {
		return nil, err
	}
	if err := unix.Mount("/proc/self/fd/"+strconv.Itoa(fd), t.Path, "", unix.MS_BIND, ""); err != nil {
		return nil, fmt.Errorf("bind %s: %w", part, err)
	}
	return t, nil
}

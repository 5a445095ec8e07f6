package snapshot

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"larder/internal/fault"
	"larder/internal/layer"
	"larder/internal/tree"
)

// MountOptions say how a state is shown.
type MountOptions struct {
	// ReadOnly mounts have no upper directory and cannot be committed.
	ReadOnly bool
	// Over are files, links and directories of the state that are shown with other times than those of its layers, with what leads
	// there; their contents are the state's. It is a merged tree that differs from the state's in times only, and has all names of a
	// file with several or none. They lie under what the step writes and are no part of what Commit makes. Nil for none.
	Over *tree.Node
	// Groups says how each group of the state's layers is shown, in the order of layer.State.Groups; nil to show every layer by its
	// directory. With it Over says nothing but the times of directories that tars only imply.
	Groups []GroupOptions
}

// GroupOptions say how a group of layers is shown.
type GroupOptions struct {
	// Dir is a directory that shows the whole group, see Store.Serve. Empty for the directories of its layers.
	Dir string
	// Over is what MountOptions.Over is, of this group: it lies right above its layers. It is for groups without a Dir.
	Over *tree.Node
}

// Mount is a state mounted for a step. Commit or Discard ends it; it is not safe for concurrent use.
type Mount struct {
	// Root is where the file system of the state can be seen.
	Root string

	store *Store
	state *layer.State
	dir   string // holds upper, work and root; removed at the end
	upper string // empty for a read-only mount

	once sync.Once
	err  error
}

// Mount shows a state as a directory, by unpacking what is not unpacked yet and stacking the layers with overlay.
func (s *Store) Mount(ctx context.Context, state *layer.State, opt MountOptions) (*Mount, error) {
	m, err := s.mount(state, opt.ReadOnly, opt.Groups != nil, func(dir string) ([]string, error) {
		if opt.Groups != nil {
			return s.groupDirs(ctx, state, opt.Groups, opt.Over, dir)
		}
		return s.layerDirs(ctx, state, opt.Over, dir)
	})
	return m, s.explain(err)
}

// MountDir shows one directory of a Served as Mount shows the layers of a state: what is written to it goes elsewhere, and with the mount. It cannot be
// committed.
func (s *Store) MountDir(dir string, readOnly bool) (*Mount, error) {
	m, err := s.mount(nil, readOnly, true, func(string) ([]string, error) { return []string{dir}, nil })
	return m, s.explain(err)
}

// mount makes an overlay of the directories that lowers gives, the topmost first; it may make more in the directory that it is given.
func (s *Store) mount(state *layer.State, readOnly, served bool, lowers func(dir string) ([]string, error)) (_ *Mount, err error) {
	if s.noUppers != nil {
		return nil, fault.New(fault.Machine, s.noUppers)
	}
	dir, err := s.tempDir("m")
	if err != nil {
		return nil, err
	}
	m := &Mount{Root: filepath.Join(dir, "root"), store: s, state: state, dir: dir}
	defer func() {
		if err != nil {
			err = errors.Join(err, removeTree(dir))
		}
	}()
	o := overlay{served: served}
	if o.lowers, err = lowers(dir); err != nil {
		return nil, err
	}
	if err := os.Mkdir(m.Root, 0o755); err != nil {
		return nil, err
	}
	// Overlay wants one lower directory with an upper, and two without.
	for len(o.lowers) == 0 || readOnly && len(o.lowers) == 1 {
		empty := filepath.Join(dir, fmt.Sprint("empty", len(o.lowers)))
		if err := os.Mkdir(empty, 0o755); err != nil {
			return nil, err
		}
		o.lowers = append(o.lowers, empty)
	}
	if !readOnly {
		m.upper = filepath.Join(dir, "upper")
		o.upper, o.work = m.upper, filepath.Join(dir, "work")
		if err := os.Mkdir(o.work, 0o700); err != nil {
			return nil, err
		}
		if err := os.Mkdir(o.upper, 0o755); err != nil {
			return nil, err
		}
		// The root directory of an overlay is that of its upper.
		if err := copyDirMeta(o.lowers[0], o.upper); err != nil {
			return nil, err
		}
	}
	if err := o.mountAt(m.Root); err != nil {
		return nil, fault.New(fault.Machine, err)
	}
	s.mu.Lock()
	s.mounts[m] = struct{}{}
	s.mu.Unlock()
	return m, nil
}

// Discard unmounts and throws away what was written. It may be called any number of times, also after Commit.
func (m *Mount) Discard() error {
	m.once.Do(func() {
		m.err = m.unmount()
		m.err = errors.Join(m.err, m.finish())
	})
	return m.err
}

func (m *Mount) unmount() error {
	var err error
	for wait := time.Millisecond; wait < 100*time.Millisecond; wait *= 2 {
		if err = unix.Unmount(m.Root, unix.UMOUNT_NOFOLLOW); !errors.Is(err, unix.EBUSY) {
			break
		}
		time.Sleep(wait) // an exited container's last reference
	}
	if errors.Is(err, unix.EBUSY) {
		// Something else looks at it, a backup or a desktop's indexer. It may finish; nobody new gets in.
		err = unix.Unmount(m.Root, unix.UMOUNT_NOFOLLOW|unix.MNT_DETACH)
	}
	if err != nil {
		return fmt.Errorf("unmount %s: %w", m.Root, err)
	}
	return nil
}

// finish forgets the mount and removes its directory.
func (m *Mount) finish() error {
	m.store.mu.Lock()
	delete(m.store.mounts, m)
	m.store.mu.Unlock()
	return removeTree(m.dir)
}

// copyDirMeta gives directory to the owner, mode, extended attributes and times of directory from.
func copyDirMeta(from, to string) error {
	var st unix.Stat_t
	if err := unix.Stat(from, &st); err != nil {
		return &os.PathError{Op: "stat", Path: from, Err: err}
	}
	if err := unix.Chown(to, int(st.Uid), int(st.Gid)); err != nil {
		return &os.PathError{Op: "chown", Path: to, Err: err}
	}
	if err := unix.Chmod(to, st.Mode&0o7777); err != nil {
		return &os.PathError{Op: "chmod", Path: to, Err: err}
	}
	if err := copyXattrs(from, to); err != nil {
		return err
	}
	return os.Chtimes(to, time.Unix(st.Atim.Unix()), time.Unix(st.Mtim.Unix()))
}

func copyXattrs(from, to string) error {
	buf := make([]byte, 64<<10) // the kernel's limit for a list and for a value
	n, err := unix.Llistxattr(from, buf)
	if errors.Is(err, unix.ENOTSUP) {
		return nil
	}
	if err != nil {
		return &os.PathError{Op: "listxattr", Path: from, Err: err}
	}
	for name := range strings.SplitSeq(string(buf[:n]), "\x00") {
		if name == "" || strings.HasPrefix(name, "trusted.overlay.") || strings.HasPrefix(name, "security.selinux") {
			continue
		}
		n, err := unix.Lgetxattr(from, name, buf)
		if err != nil {
			return &os.PathError{Op: "getxattr " + name, Path: from, Err: err}
		}
		if err := unix.Lsetxattr(to, name, buf[:n], 0); err != nil {
			return &os.PathError{Op: "setxattr " + name, Path: to, Err: err}
		}
	}
	return nil
}

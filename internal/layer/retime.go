package layer

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"larder/internal/tree"
)

// Retime gives the layer directory dir what its tree knows and a tar does not carry: every mtime to the nanosecond, and the
// root's own metadata. have is the tree that dir shows now, want one that differs from it in just these; where have is nil,
// every time is set. Nothing but times and the root is touched. After an error some of it is done.
func Retime(dir string, have, want *tree.Node) error {
	root, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("date layer directory: %w", err)
	}
	defer root.Close()
	r := &retimer{rootfd: int(root.Fd()), linked: map[uint64]bool{}}
	if err := r.entries("", have, want); err != nil {
		return fmt.Errorf("date layer directory %s: %w", dir, err)
	}
	if err := setPath(r.rootfd, "", tree.Dir, &want.Meta); err != nil {
		return fmt.Errorf("date layer directory %s: %w", dir, err)
	}
	return nil
}

type retimer struct {
	rootfd int
	linked map[uint64]bool // groups that are done
}

var errOtherTree = errors.New("its tree has other names")

// entries dates what is in a directory.
func (r *retimer) entries(rel string, have, want *tree.Node) error {
	entries, err := want.Entries()
	if err != nil {
		return fmt.Errorf("/%s: %w", rel, err)
	}
	var old []tree.Entry
	if have != nil {
		if old, err = have.Entries(); err != nil {
			return fmt.Errorf("/%s: %w", rel, err)
		}
		if len(old) != len(entries) {
			return fmt.Errorf("/%s: %w", rel, errOtherTree)
		}
	}
	for i, e := range entries {
		var was *tree.Node
		if have != nil {
			if was = old[i].Node; old[i].Name != e.Name || was.Kind != e.Node.Kind {
				return fmt.Errorf("/%s: %w", joinRel(rel, e.Name), errOtherTree)
			}
		}
		if err := r.entry(joinRel(rel, e.Name), was, e.Node); err != nil {
			return err
		}
	}
	return nil
}

func (r *retimer) entry(rel string, have, want *tree.Node) error {
	switch {
	case have == want || want.Kind == tree.Whiteout || want.Kind == tree.Socket:
		return nil // sockets are not on the disk
	case want.Kind == tree.Dir:
		if err := r.entries(rel, have, want); err != nil {
			return err
		}
	case want.Group != 0 && r.linked[want.Group]:
		return nil
	case want.Group != 0:
		r.linked[want.Group] = true
	}
	if have != nil && have.MTime == want.MTime {
		return nil
	}
	if err := unix.UtimesNanoAt(r.rootfd, rel, times(want.MTime), unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return fmt.Errorf("/%s: %w", rel, os.NewSyscallError("utimensat", err))
	}
	return nil
}

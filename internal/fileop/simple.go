package fileop

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"
	"syscall"

	"github.com/moby/buildkit/solver/pb"

	"larder/internal/key"
	"larder/internal/tree"
)

func isNotExist(err error) bool { return errors.Is(err, fs.ErrNotExist) }

func mkdir(w *work, a *pb.FileActionMkDir, who owner) error {
	top := w.top()
	p, err := top.rooted(a.Path)
	if err != nil {
		return err
	}
	mode := uint32(a.Mode) & 0o777
	if a.MakeParents {
		return top.mkdirAll(p, mode, who, timestamp(a.Timestamp))
	}
	ino, err := top.mkdir(p, mode)
	if err != nil {
		if errors.Is(err, fs.ErrExist) {
			return nil
		}
		return err
	}
	ino.chown(who)
	ino.utime(timestamp(a.Timestamp))
	return nil
}

func symlink(w *work, a *pb.FileActionSymlink, who owner) error {
	top := w.top()
	p, err := top.rooted(path.Join("/", a.Newpath))
	if err != nil {
		return err
	}
	if a.Oldpath == "" {
		return fail("symlink", p, syscall.ENOENT)
	}
	ino, err := top.symlink(a.Oldpath, p)
	if err != nil {
		return err
	}
	ino.chown(who)
	ino.utime(timestamp(a.Timestamp))
	return nil
}

var errNotRegular = errors.New("not a regular file")

func (r *run) mkfile(w *work, a *pb.FileActionMkFile, who owner) error {
	top := w.top()
	p, err := top.rooted(path.Join("/", a.Path))
	if err != nil {
		return err
	}
	ino, err := top.lstat(p)
	switch {
	case err == nil && ino.Kind == tree.Dir:
		return fail("open", p, syscall.EISDIR)
	case err == nil && ino.Kind != tree.File:
		return fmt.Errorf("open %s: %w", p, errNotRegular)
	case err == nil: // written to as it is: its mode stays
		ino.changed = true
		ino.MTime = w.now
		ino.dropCapability()
	case !isNotExist(err):
		return err
	default:
		ino, err = top.create("open", p, tree.Node{Kind: tree.File, Meta: tree.Meta{Mode: uint32(a.Mode) & 0o777}})
		if err != nil {
			return err
		}
	}
	ino.Size, ino.Content = int64(len(a.Data)), key.Bytes(a.Data)
	r.contents.literal(a.Data)
	ino.chown(who)
	ino.utime(timestamp(a.Timestamp))
	return nil
}

func rm(w *work, a *pb.FileActionRm) error {
	if !a.AllowWildcard {
		return rmPath(w.top(), a.Path, a.AllowNotFound)
	}
	matches, err := resolveWildcards(w.top(), cleanPath(a.Path), false)
	if err != nil {
		return err
	}
	for _, m := range matches {
		if err := rmPath(w.top(), m, a.AllowNotFound); err != nil {
			return err
		}
	}
	return nil
}

func rmPath(top place, name string, allowNotFound bool) error {
	dir, base := path.Split(path.Join("/", name))
	if base == "" {
		return errors.New("the root directory cannot be removed")
	}
	dir, err := top.rooted(dir)
	if err != nil {
		return err
	}
	p := path.Join(dir, base)
	if !allowNotFound {
		if _, err := top.stat(p); isNotExist(err) {
			return &NotFoundError{Path: p}
		} else if err != nil && !answered(err) {
			return err
		}
	}
	return top.removeAll(strings.TrimSuffix(p, "/"))
}

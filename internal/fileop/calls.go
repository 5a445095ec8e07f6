package fileop

import (
	"bytes"
	"errors"
	"io/fs"
	"path"
	"slices"
	"syscall"

	"larder/internal/tree"
)

// place is a directory of a work seen as the root of a file system: the work's own, or the one that an archive is unpacked
// into. Its methods answer as the system calls of their names do for root, paths being absolute and umask 0.
type place struct {
	w   *work
	dir *inode
}

func (w *work) top() place { return place{w, w.root} }

// Root, Child and Inspect make a place a tree.Names.
func (p place) Root() *inode { return p.dir }

func (p place) Child(dir *inode, name string) (*inode, bool, error) {
	ino, err := p.w.child(dir, name)
	return ino, ino != nil, err
}

func (p place) Inspect(ino *inode) (tree.Kind, string) { return ino.Kind, ino.Link }

func (p place) lstat(name string) (*inode, error) { return tree.Lstat(p, name) }
func (p place) stat(name string) (*inode, error)  { return tree.Stat(p, name) }

// rooted resolves every link of a path inside the place.
func (p place) rooted(name string) (string, error) { return tree.Rooted(p, name) }

func fail(op, name string, errno syscall.Errno) error {
	return &fs.PathError{Op: op, Path: name, Err: errno}
}

// answered tells a file system's answer, such as ENOENT, from the failure to get one.
func answered(err error) bool {
	_, ok := err.(*fs.PathError)
	return ok
}

// parent finds the directory that a name is to be created in or removed from, and what is there now.
func (p place) parent(op, name string) (dir *inode, base string, have *inode, err error) {
	parent, base := path.Split(path.Clean(name))
	dir, err = p.stat(parent)
	if err != nil {
		if pe, ok := err.(*fs.PathError); ok {
			err = &fs.PathError{Op: op, Path: name, Err: pe.Err}
		}
		return nil, "", nil, err
	}
	if dir.Kind != tree.Dir {
		return nil, "", nil, fail(op, name, syscall.ENOTDIR)
	}
	if base == "" { // the root, which has no name anywhere
		return dir, base, dir, nil
	}
	have, err = p.w.child(dir, base)
	return dir, base, have, err
}

// create makes a new object. Its group, and of a directory the setgid bit, come from a setgid directory above it.
func (p place) create(op, name string, n tree.Node) (*inode, error) {
	dir, base, have, err := p.parent(op, name)
	if err != nil {
		return nil, err
	}
	if have != nil {
		return nil, fail(op, name, syscall.EEXIST)
	}
	if len(base) > maxName {
		return nil, fail(op, name, syscall.ENAMETOOLONG)
	}
	return p.w.add(dir, base, n), nil
}

func (w *work) add(dir *inode, name string, n tree.Node) *inode {
	n.MTime = w.now
	if dir.Mode&modeSetgid != 0 {
		n.GID = dir.GID
		if n.Kind == tree.Dir {
			n.Mode |= modeSetgid
		}
	}
	ino := &inode{Node: n, changed: true}
	w.put(dir, name, ino)
	return ino
}

func (p place) mkdir(name string, mode uint32) (*inode, error) {
	return p.create("mkdir", name, tree.Node{Kind: tree.Dir, Meta: tree.Meta{Mode: mode}})
}

func (p place) symlink(target, name string) (*inode, error) {
	return p.create("symlink", name, tree.Node{Kind: tree.Symlink, Link: target, Meta: tree.Meta{Mode: 0o777}})
}

// link gives an object that is no directory another name.
func (p place) link(old, name string) (*inode, error) {
	ino, err := p.lstat(old)
	if err != nil {
		return nil, err
	}
	if ino.Kind == tree.Dir {
		return nil, fail("link", old, syscall.EPERM)
	}
	dir, base, have, err := p.parent("link", name)
	if err != nil {
		return nil, err
	}
	if have != nil {
		return nil, fail("link", name, syscall.EEXIST)
	}
	if !ino.changed && ino.Kind == tree.File {
		// The base's file is copied up: its content becomes part of the layer, so it is part of what was looked at.
		if err := p.w.base.content(&ino.Node, ino.path); err != nil {
			return nil, err
		}
	}
	ino.changed = true
	p.w.put(dir, base, ino)
	return ino, nil
}

// removeAll takes a name away with all that it holds. A name that is not there is no error.
func (p place) removeAll(name string) error {
	dir, base, have, err := p.parent("unlinkat", name)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	}
	if base == "" {
		return fail("unlinkat", name, syscall.EBUSY)
	}
	if have != nil {
		p.w.put(dir, base, nil)
	}
	return nil
}

// mkdirAll makes a directory and those above it that are missing, each with the mode and owner given.
func (p place) mkdirAll(name string, mode uint32, who owner, mtime *int64) error {
	if ino, err := p.stat(name); err == nil {
		if ino.Kind != tree.Dir {
			return fail("mkdir", name, syscall.ENOTDIR)
		}
		return nil
	} else if !answered(err) {
		return err
	}
	if parent := path.Dir(path.Clean(name)); parent != "/" {
		if err := p.mkdirAll(parent, mode, who, mtime); err != nil {
			return err
		}
	}
	ino, err := p.mkdir(name, mode)
	if err != nil {
		if have, lerr := p.lstat(name); lerr == nil && have.Kind == tree.Dir {
			return nil
		}
		return err
	}
	ino.chown(who)
	ino.utime(mtime)
	return nil
}

const (
	modeSetuid = 0o4000
	modeSetgid = 0o2000
	modeXgrp   = 0o010
	capability = "security.capability"
)

func (ino *inode) chmod(mode uint32) {
	ino.Mode = mode & 0o7777
	ino.changed = true
}

// chown changes the owner, if one is given. The kernel takes setuid, setgid and capabilities from a file that changes hands,
// even to the same ones.
func (ino *inode) chown(who owner) {
	if !who.set {
		return
	}
	ino.UID, ino.GID = who.uid, who.gid
	ino.changed = true
	if ino.Kind == tree.Dir {
		return
	}
	ino.Mode &^= modeSetuid
	if ino.Mode&modeXgrp != 0 {
		ino.Mode &^= modeSetgid
	}
	ino.dropCapability()
}

func (ino *inode) dropCapability() {
	for _, x := range ino.Xattrs {
		if x.Name == capability {
			ino.Xattrs = slices.DeleteFunc(slices.Clone(ino.Xattrs), func(x tree.Xattr) bool { return x.Name == capability })
			return
		}
	}
}

func (ino *inode) utime(mtime *int64) {
	if mtime != nil {
		ino.MTime = *mtime
		ino.changed = true
	}
}

func (ino *inode) setXattrs(list []tree.Xattr) {
	if len(list) == 0 {
		return
	}
	out := slices.Clone(ino.Xattrs)
	for _, x := range list {
		i, found := slices.BinarySearchFunc(out, x.Name, func(h tree.Xattr, name string) int {
			return bytes.Compare([]byte(h.Name), []byte(name))
		})
		if found {
			out[i] = x
		} else {
			out = slices.Insert(out, i, x)
		}
	}
	ino.Xattrs = out
	ino.changed = true
}

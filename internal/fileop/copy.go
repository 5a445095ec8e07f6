package fileop

import (
	"context"
	"fmt"
	"path"
	"path/filepath"

	"github.com/moby/buildkit/solver/pb"
	mode "github.com/tonistiigi/dchapes-mode"

	"larder/internal/key"
	"larder/internal/tree"
)

// copier is one copy of one source into a work. The names of its steps in comments are those of fsutil's copy package.
type copier struct {
	ctx     context.Context
	to      place
	style   style
	replace bool // alwaysReplaceExistingDestPaths
	through map[*tree.Node]struct{}
	linked  map[uint64]*inode // by Group in the source
}

// doCopy copies what was chosen. The archives among it are unpacked, where the action asks for that.
func (r *run) doCopy(ctx context.Context, w *work, a *pb.FileActionCopy, from origin, list []chosen, who owner) error {
	to := w.top()
	dest := cleanPath(a.Dest)
	if !a.CreateDestPath {
		p, err := to.rooted(path.Join("/", a.Dest))
		if err != nil {
			return err
		}
		if _, err := to.lstat(path.Dir(p)); err != nil {
			if answered(err) {
				return fmt.Errorf("%s cannot be created, its directory does not exist: %w", a.Dest, err)
			}
			return err
		}
	}
	st := style{owner: who, mtime: timestamp(a.Timestamp)}
	if a.ModeStr != "" {
		set, err := mode.ParseWithUmask(a.ModeStr, 0)
		if err != nil {
			return fmt.Errorf("mode %q: %w", a.ModeStr, err)
		}
		st.modeSet = &set
	} else if a.Mode != -1 {
		m := uint32(a.Mode)
		st.mode = &m
	}
	for _, c := range list {
		if a.AttemptUnpackDockerCompatibility {
			if ok, err := r.unpack(ctx, w, from, c, dest, st); err != nil || ok {
				if err != nil {
					return fmt.Errorf("unpack %s: %w", path.Join("/", c.name), err)
				}
				continue
			}
		}
		cp := &copier{ctx: ctx, to: to, style: st, replace: a.AlwaysReplaceExistingDestPaths, through: c.through, linked: map[uint64]*inode{}}
		if err := cp.run(c, dest, a.DirCopyContents); err != nil {
			return fmt.Errorf("copy %s: %w", path.Join("/", c.name), err)
		}
		if c.node.HasSockets() {
			r.contents.literal(nil) // sockets become empty files
		}
	}
	return nil
}

// run is Copy.
func (c *copier) run(src chosen, dest string, contentsOnly bool) error {
	dirMode := c.style.dirMode()
	ensure := dest
	if d, f := filepath.Split(dest); f != "" && f != "." {
		ensure = d
	}
	p, err := c.to.rooted(ensure)
	if err != nil {
		return err
	}
	if err := c.to.mkdirAll(p, dirMode, c.style.owner, c.style.mtime); err != nil {
		return err
	}
	target, err := c.to.rooted(filepath.Clean(dest))
	if err != nil {
		return err
	}
	// prepareTargetDir
	isDir := src.node.Kind == tree.Dir
	have, err := c.to.stat(target)
	if err != nil && !isNotExist(err) {
		return err
	}
	if !contentsOnly && isDir && have != nil || !isDir && have != nil && have.Kind == tree.Dir {
		target = filepath.Join(target, filepath.Base(src.name))
	}
	parent := path.Dir(target)
	if contentsOnly && isDir && have == nil {
		parent = target
	}
	if err := c.to.mkdirAll(parent, dirMode, c.style.owner, c.style.mtime); err != nil {
		return err
	}
	at, err := c.spot(target)
	if err != nil {
		return err
	}
	return c.copy(src.node, at, false)
}

// spot is a name in the target's file system: where it is and what stands there.
type spot struct {
	dir  *inode // nil for the root
	name string
	have *inode // nil for nothing
	path string // for messages
}

func (c *copier) spot(target string) (spot, error) {
	if target == "/" {
		return spot{have: c.to.dir, path: target}, nil
	}
	dir, name, have, err := c.to.parent("lstat", target)
	return spot{dir, name, have, target}, err
}

func (c *copier) below(at spot, dir *inode, name string) (spot, error) {
	have, err := c.to.w.child(dir, name)
	return spot{dir, name, have, path.Join(at.path, name)}, err
}

// copy puts src at a spot. restyle says that a directory that is already there takes over src's metadata.
func (c *copier) copy(src *tree.Node, at spot, restyle bool) error {
	if _, through := c.through[src]; through {
		return c.passThrough(src, at)
	}
	if c.replace && at.have != nil && !(src.Kind == tree.Dir && at.have.Kind == tree.Dir) {
		if err := c.remove(&at); err != nil {
			return err
		}
	}
	if src.Kind == tree.Dir {
		return c.copyDir(src, at, restyle)
	}
	if at.have != nil {
		if at.have.Kind == tree.Dir {
			return fmt.Errorf("cannot replace to directory %s with file", at.path)
		}
		if err := c.remove(&at); err != nil {
			return err
		}
	}
	linked := src.Group != 0 && src.Kind == tree.File // of other kinds BuildKit makes copies
	if linked {
		if ino := c.linked[src.Group]; ino != nil {
			c.to.w.put(at.dir, at.name, ino)
			return nil
		}
	}
	n := *src
	if n.Kind == tree.Socket { // a device made without a type is a regular file
		n.Kind, n.Size, n.Content = tree.File, 0, emptyFile
	}
	n.Group = 0
	n.Meta = c.style.apply(&n)
	ino := &inode{Node: n, changed: true}
	c.to.w.put(at.dir, at.name, ino)
	if linked {
		c.linked[src.Group] = ino
	}
	return nil
}

var emptyFile = key.Bytes(nil)

func (c *copier) remove(at *spot) error {
	if at.dir == nil {
		return fmt.Errorf("the root directory cannot be replaced")
	}
	c.to.w.put(at.dir, at.name, nil)
	at.have = nil
	return nil
}

// copyDir is copyDirectory and what copy does after it.
func (c *copier) copyDir(src *tree.Node, at spot, restyle bool) error {
	if err := c.ctx.Err(); err != nil {
		return err
	}
	ino := at.have
	switch {
	case ino == nil:
		if len(c.through) == 0 && !src.HasGroups() && !src.HasSockets() {
			n, err := c.style.restyle(c.ctx, src)
			if err != nil {
				return err
			}
			c.to.w.put(at.dir, at.name, freshInode(n))
			return nil
		}
		ino = c.to.w.add(at.dir, at.name, tree.Node{Kind: tree.Dir, Meta: tree.Meta{Mode: src.Mode}})
	case ino.Kind != tree.Dir:
		return fmt.Errorf("cannot copy to non-directory: %s", at.path)
	case restyle:
		ino.chmod(src.Mode)
	}
	if err := c.copyEntries(src, ino, at); err != nil {
		return err
	}
	if at.have == nil || restyle {
		c.info(ino, src)
	} else {
		mtime := src.MTime
		if c.style.mtime != nil {
			mtime = *c.style.mtime
		}
		ino.utime(&mtime)
	}
	return nil
}

func (c *copier) copyEntries(src *tree.Node, ino *inode, at spot) error {
	entries, err := src.Entries()
	if err != nil {
		return err
	}
	for _, e := range entries {
		to, err := c.below(at, ino, e.Name)
		if err != nil {
			return err
		}
		if err := c.copy(e.Node, to, true); err != nil {
			return err
		}
	}
	return nil
}

// passThrough is createParentDirs: a directory that no pattern includes is made for what is below it.
func (c *copier) passThrough(src *tree.Node, at spot) error {
	ino := at.have
	switch {
	case ino == nil:
		ino = c.to.w.add(at.dir, at.name, tree.Node{Kind: tree.Dir, Meta: tree.Meta{Mode: src.Mode}})
		c.info(ino, src)
	case ino.Kind != tree.Dir:
		return fmt.Errorf("cannot copy to non-directory: %s", at.path)
	default:
		ino.chmod(src.Mode)
	}
	return c.copyEntries(src, ino, at)
}

// info is copyFileInfo and copyXAttrs.
func (c *copier) info(ino *inode, src *tree.Node) {
	meta := c.style.apply(src)
	meta.Xattrs = ino.Xattrs
	ino.Meta = meta
	ino.changed = true
	ino.setXattrs(src.Xattrs)
}

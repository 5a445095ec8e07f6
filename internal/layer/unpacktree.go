package layer

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"larder/internal/tree"
)

// udir is a directory while its layer is being unpacked.
type udir struct {
	meta    tree.Meta
	opaque  bool
	implied bool // the tar has no entry for it
	entries map[string]uentry
}

// uentry is a directory, or anything else.
type uentry struct {
	dir   *udir
	node  *tree.Node
	seq   int  // the number under which the disk writer got node
	hides bool // there was a whiteout for the name of node: a directory in its place will be opaque
}

func newUdir(meta tree.Meta) *udir { return &udir{meta: meta, entries: map[string]uentry{}} }

// maxHops is how many links a path may go through, as in the kernel's own walk (where it is 40) but more generous.
const maxHops = 255

// parent walks to a directory of the layer and gives its true path, making what is missing of it. Links are followed inside
// the layer: absolute ones start at its root, and ".." stops there.
func (u *unpacker) parent(name string) (*udir, string, error) {
	dir, rel := u.root, ""
	var above []*udir    // the directories from the root to dir, without dir
	var missing []string // what is to be made in dir, one in the other
	hops := 0
	for rest := strings.Trim(name, "/"); rest != ""; {
		var elem string
		elem, rest, _ = strings.Cut(rest, "/")
		switch {
		case elem == "" || elem == ".":
			continue
		case elem == ".." && len(missing) > 0:
			missing = missing[:len(missing)-1]
			continue
		case elem == "..":
			if len(above) > 0 {
				dir, above = above[len(above)-1], above[:len(above)-1]
				rel = rel[:max(strings.LastIndexByte(rel, '/'), 0)]
			}
			continue
		case len(missing) > 0:
			missing = append(missing, elem)
			continue
		}
		switch e, ok := dir.entries[elem]; {
		case ok && e.dir != nil:
			above = append(above, dir)
			dir, rel = e.dir, joinRel(rel, elem)
		case ok && e.node.Kind == tree.Symlink:
			if hops++; hops > maxHops || len(rest)+len(e.node.Link) > 2*maxPath {
				return nil, "", fmt.Errorf("too many links: %w", ErrBadTar)
			}
			if strings.HasPrefix(e.node.Link, "/") {
				dir, rel, above = u.root, "", above[:0]
			}
			rest = e.node.Link + "/" + rest
		case ok && e.node.Kind != tree.Whiteout:
			return nil, "", fmt.Errorf("/%.300s is no directory: %w", joinRel(rel, elem), ErrBadTar)
		default:
			missing = append(missing, elem)
		}
	}
	for _, elem := range missing {
		rel = joinRel(rel, elem)
		if len(elem) > maxName || len(rel) > maxPath || reservedName(elem) {
			return nil, "", fmt.Errorf("below %.300q: %w", rel, ErrBadTar)
		}
		if u.count++; u.count > maxEntries {
			return nil, "", fmt.Errorf("more than %d entries: %w", maxEntries, ErrBadTar)
		}
		if err := u.putDir(dir, elem, rel, tree.Meta{Mode: 0o755}); err != nil {
			return nil, "", err
		}
		dir = dir.entries[elem].dir
		dir.implied = true
	}
	return dir, rel, nil
}

func (u *unpacker) putDir(parent *udir, base, rel string, meta tree.Meta) error {
	if e, ok := parent.entries[base]; ok && e.dir != nil {
		meta.Xattrs = mergeXattrs(e.dir.meta.Xattrs, meta.Xattrs)
		e.dir.meta, e.dir.implied = meta, false
		return nil
	}
	opaque, err := u.clear(parent, base, rel)
	if err != nil {
		return err
	}
	if err := unix.Mkdirat(u.disk.rootfd, rel, 0o700); err != nil {
		return os.NewSyscallError("mkdir", err)
	}
	d := newUdir(meta)
	d.opaque = opaque
	parent.entries[base] = uentry{dir: d}
	return nil
}

// putLink makes a hard link. Its header describes the one object that both names stand for, as with other builders.
func (u *unpacker) putLink(parent *udir, base, rel string, hdr *tar.Header) error {
	name, err := cleanName(hdr.Linkname)
	if err != nil {
		return err
	}
	dirName, targetBase := path.Split(name)
	targetDir, targetRel, err := u.parent(dirName)
	if err != nil {
		return err
	}
	targetRel = joinRel(targetRel, targetBase)
	target, ok := targetDir.entries[targetBase]
	if !ok || target.node == nil || target.node.Kind == tree.Whiteout {
		return fmt.Errorf("hard link to %.300q, which is no file of the layer: %w", hdr.Linkname, ErrBadTar)
	}
	if targetRel == rel {
		return nil
	}
	if strings.HasPrefix(targetRel, rel+"/") {
		return fmt.Errorf("hard link to %.300q, which it replaces: %w", hdr.Linkname, ErrBadTar)
	}
	hides, err := u.clear(parent, base, rel)
	if err != nil {
		return err
	}
	if err := u.disk.settle(target.seq); err != nil {
		return err
	}
	if err := unix.Linkat(u.disk.rootfd, targetRel, u.disk.rootfd, rel, 0); err != nil {
		return os.NewSyscallError("link", err)
	}
	n := target.node
	meta, err := headerMeta(hdr, n.Kind)
	if err != nil {
		return err
	}
	meta.Xattrs = mergeXattrs(n.Xattrs, meta.Xattrs)
	if n.Group == 0 {
		n.Group = tree.NewGroup()
	}
	if !sameMeta(&n.Meta, &meta) {
		n.Meta = meta
		if err := setPath(u.disk.rootfd, rel, n.Kind, &meta); err != nil {
			return err
		}
	}
	parent.entries[base] = uentry{node: n, seq: target.seq, hides: hides}
	return nil
}

func sameMeta(a, b *tree.Meta) bool {
	if a.Mode != b.Mode || a.UID != b.UID || a.GID != b.GID || a.MTime != b.MTime || len(a.Xattrs) != len(b.Xattrs) {
		return false
	}
	for i := range a.Xattrs {
		if a.Xattrs[i].Name != b.Xattrs[i].Name || string(a.Xattrs[i].Value) != string(b.Xattrs[i].Value) {
			return false
		}
	}
	return true
}

// whiteout notes what a .wh. name says. It speaks of lower layers only, so what this one has under the name stays; a
// directory then hides what is below it. On disk whiteouts are made at the end.
func (u *unpacker) whiteout(parent *udir, name string) error {
	if name == "" || name == "." || name == ".." {
		return fmt.Errorf("whiteout of %q: %w", name, ErrBadTar)
	}
	e, ok := parent.entries[name]
	switch {
	case !ok:
		e.node = &tree.Node{Kind: tree.Whiteout}
	case e.dir != nil:
		e.dir.opaque = true
	default:
		e.hides = true
	}
	parent.entries[name] = e
	return nil
}

// clear takes away what has the name so far. hides says that it was a whiteout, or there was one: a directory in its
// place must be opaque.
func (u *unpacker) clear(parent *udir, base, rel string) (hides bool, err error) {
	e, ok := parent.entries[base]
	if !ok {
		return false, nil
	}
	delete(parent.entries, base)
	if e.node != nil && e.node.Kind == tree.Whiteout {
		return true, nil
	}
	if err := u.disk.settle(u.disk.seq); err != nil {
		return false, err
	}
	if e.dir != nil {
		return e.dir.opaque, u.disk.removeAll(rel)
	}
	return e.hides, os.NewSyscallError("unlink", unix.Unlinkat(u.disk.rootfd, rel, 0))
}

// finish makes the whiteouts, gives directories their metadata, children first because they change their parent's mtime,
// and builds the tree.
func (u *unpacker) finish(ctx context.Context, d *udir, rel string) (*tree.Node, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	entries := make([]tree.Entry, 0, len(d.entries))
	for name, e := range d.entries {
		n := e.node
		var err error
		switch {
		case e.dir != nil:
			n, err = u.finish(ctx, e.dir, joinRel(rel, name))
		case n.Kind == tree.Whiteout:
			err = create(u.disk.rootfd, joinRel(rel, name), n)
		}
		if err != nil {
			return nil, err
		}
		entries = append(entries, tree.Entry{Name: name, Node: n})
	}
	if d.opaque {
		if err := markOpaque(u.disk.rootfd, rel); err != nil {
			return nil, fmt.Errorf("/%s: %w", rel, err)
		}
	}
	if err := setPath(u.disk.rootfd, rel, tree.Dir, &d.meta); err != nil {
		return nil, fmt.Errorf("/%s: %w", rel, err)
	}
	n, err := tree.NewDir(d.meta, d.opaque, entries)
	if errors.Is(err, tree.ErrName) {
		err = fmt.Errorf("%w: %w", ErrBadTar, err)
	}
	if err == nil {
		n.Implied = d.implied
	}
	return n, err
}

package frontend

import (
	"context"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/tonistiigi/fsutil"
	fstypes "github.com/tonistiigi/fsutil/types"
	"golang.org/x/sys/unix"

	"larder/internal/tree"
)

// base is the last component of a path, "/" for the root, as filepath.Base has it.
func base(p string) string { return path.Base("/" + p) }

// stat converts a node to what a gateway's clients get to see.
func stat(name string, n *tree.Node) *fstypes.Stat {
	st := &fstypes.Stat{
		Path:     name,
		Mode:     uint32(mode(n)),
		Uid:      n.UID,
		Gid:      n.GID,
		ModTime:  n.MTime,
		Linkname: n.Link,
	}
	switch n.Kind {
	case tree.File:
		st.Size = n.Size
	case tree.Symlink:
		st.Size = int64(len(n.Link))
	case tree.Char, tree.Block:
		st.Devmajor, st.Devminor = int64(unix.Major(n.Rdev)), int64(unix.Minor(n.Rdev))
	}
	for _, x := range n.Xattrs {
		if st.Xattrs == nil {
			st.Xattrs = map[string][]byte{}
		}
		st.Xattrs[x.Name] = x.Value
	}
	return st
}

func mode(n *tree.Node) fs.FileMode {
	m := fs.FileMode(n.Mode & 0o777)
	for bit, flag := range map[uint32]fs.FileMode{unix.S_ISUID: fs.ModeSetuid, unix.S_ISGID: fs.ModeSetgid, unix.S_ISVTX: fs.ModeSticky} {
		if n.Mode&bit != 0 {
			m |= flag
		}
	}
	switch n.Kind {
	case tree.Dir:
		m |= fs.ModeDir
	case tree.Symlink:
		m |= fs.ModeSymlink
	case tree.Char:
		m |= fs.ModeDevice | fs.ModeCharDevice
	case tree.Block:
		m |= fs.ModeDevice
	case tree.Fifo:
		m |= fs.ModeNamedPipe
	}
	return m
}

// listing gives the entries of a directory. With a pattern it is fsutil's filter that decides, on a view of the tree.
func listing(ctx context.Context, dir *tree.Node, pattern string) ([]*fstypes.Stat, error) {
	var opt fsutil.FilterOpt
	if pattern != "" {
		opt.IncludePatterns = []string{pattern}
	}
	filtered, err := fsutil.NewFilterFS(view{dir}, &opt)
	if err != nil {
		return nil, err
	}
	var out []*fstypes.Stat
	err = filtered.Walk(ctx, "/", func(_ string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		out = append(out, info.Sys().(*fstypes.Stat))
		if info.IsDir() {
			return filepath.SkipDir
		}
		return nil
	})
	return out, err
}

// view is a tree as fsutil walks it. Its contents cannot be opened.
type view struct{ root *tree.Node }

// Walk implements fsutil.FS for the root only, which is all that a filter without links to follow asks for.
func (v view) Walk(ctx context.Context, target string, fn fs.WalkDirFunc) error {
	if strings.Trim(target, "/.") != "" {
		return &fs.PathError{Op: "walk", Path: target, Err: syscall.EINVAL}
	}
	return walk(ctx, "", v.root, fn)
}

// walk visits what is below dir, with fs.WalkDir's meaning of SkipDir: said of a file it ends the directory.
func walk(ctx context.Context, path string, dir *tree.Node, fn fs.WalkDirFunc) error {
	entries, err := dir.Entries()
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := ctx.Err(); err != nil {
			return err
		}
		path := tree.Join(path, e.Name)
		err := fn(path, &fsutil.DirEntryInfo{Stat: stat(path, e.Node)}, nil)
		if err == fs.SkipDir && e.Node.Kind != tree.Dir {
			return nil
		}
		if err == nil {
			err = walk(ctx, path, e.Node, fn)
		}
		if err != nil && err != fs.SkipDir {
			return err
		}
	}
	return nil
}

// Open implements fsutil.FS.
func (v view) Open(name string) (io.ReadCloser, error) {
	return nil, &fs.PathError{Op: opOpen, Path: name, Err: os.ErrInvalid}
}

package runstep

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// view is the file system of a container whose command has ended, as the command saw it: its root with the binds and cache
// mounts over it. What was in memory is gone, and secrets are nobody's result. Nothing outside of these can be reached
// through it, whatever links the command has left and other steps change in a cache mount meanwhile.
type view struct {
	mounts map[string]mounted // by their place in the container
	opened []*os.Root
}

// mounted is a part of a view; a nil root is one that shows nothing.
type mounted struct {
	root *os.Root
	at   string // in root: "." for a directory, a file's name
}

// view opens a view. The mounts are in an order in which a mount point's own mount comes first.
func (p *prepared) view() (_ *view, err error) {
	v := &view{mounts: map[string]mounted{}}
	defer func() {
		if err != nil {
			v.close()
		}
	}()
	if v.mounts["/"], err = v.open(p.root); err != nil {
		return nil, err
	}
	for _, m := range p.list {
		dest, err := v.resolve(m.Dest, true)
		if err != nil {
			return nil, fmt.Errorf("mount %s: %w", m.Dest, err)
		}
		secret := p.secrets != nil && filepath.Dir(m.Source) == p.secrets.Path
		if m.Type != "bind" || secret {
			v.mounts[dest] = mounted{}
			continue
		}
		if v.mounts[dest], err = v.open(m.Source); err != nil {
			return nil, fmt.Errorf("mount %s: %w", m.Dest, err)
		}
	}
	return v, nil
}

func (v *view) open(source string) (mounted, error) {
	source, err := filepath.EvalSymlinks(source)
	if err != nil {
		return mounted{}, err
	}
	st, err := os.Stat(source)
	if err != nil {
		return mounted{}, err
	}
	dir, at := source, "."
	if !st.IsDir() {
		dir, at = filepath.Split(source)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return mounted{}, err
	}
	v.opened = append(v.opened, root)
	return mounted{root, at}, nil
}

func (v *view) close() {
	for _, r := range v.opened {
		r.Close()
	}
}

// find gives the root that a path without links lies in, and its name there.
func (v *view) find(p string) (*os.Root, string, error) {
	for at := p; ; at = path.Dir(at) {
		m, ok := v.mounts[at]
		if !ok {
			continue
		}
		if m.root == nil {
			return nil, "", &fs.PathError{Op: "open", Path: p, Err: fs.ErrNotExist}
		}
		return m.root, path.Join(m.at, strings.TrimPrefix(p[len(at):], "/")), nil
	}
}

func (v *view) lstat(p string) (fs.FileInfo, error) {
	root, name, err := v.find(p)
	if err != nil {
		return nil, err
	}
	return root.Lstat(name)
}

// maxLinks is how many links a path may lead through; the kernel's number.
const maxLinks = 40

// resolve follows the links in a path as the container's kernel does. Where missing is set, what is not there is left as it
// stands.
func (v *view) resolve(p string, missing bool) (string, error) {
	at, links := "/", 0
	rest := strings.Split(p, "/")
	for len(rest) > 0 {
		name := rest[0]
		rest = rest[1:]
		switch name {
		case "", ".":
			continue
		case "..":
			at = path.Dir(at)
			continue
		}
		next := path.Join(at, name)
		st, err := v.lstat(next)
		switch {
		case err != nil && !(missing && errors.Is(err, fs.ErrNotExist)):
			return "", &fs.PathError{Op: "open", Path: p, Err: cause(err)}
		case err != nil || st.Mode().Type() != fs.ModeSymlink:
			at = next
			continue
		}
		if links++; links > maxLinks {
			return "", &fs.PathError{Op: "open", Path: p, Err: unix.ELOOP}
		}
		root, in, err := v.find(next)
		if err != nil {
			return "", err
		}
		target, err := root.Readlink(in)
		if err != nil {
			return "", &fs.PathError{Op: "open", Path: p, Err: cause(err)}
		}
		if path.IsAbs(target) {
			at = "/"
		}
		rest = append(strings.Split(target, "/"), rest...)
	}
	return at, nil
}

// cause is an error without the path, which is one of this machine.
func cause(err error) error {
	var perr *fs.PathError
	if errors.As(err, &perr) {
		return perr.Err
	}
	return err
}

package tree

import (
	"io/fs"
	"path"
	"strings"
	"syscall"
)

// Names is a file system of any sort, as the functions that follow paths in it need to see it. T is a handle of an
// object in it.
type Names[T any] interface {
	Root() T
	// Child finds a name in dir. It is only asked about directories.
	Child(dir T, name string) (child T, found bool, err error)
	// Inspect gives the kind of an object and, of a Symlink, the target.
	Inspect(n T) (kind Kind, link string)
}

// Limits of following links: the kernel's for one look-up, and the customary one for resolving under a root.
const (
	maxLinks     = 40
	maxRootLinks = 255
)

// Lstat finds what name stands for as the kernel would in a process whose root is fsys: links on the way are followed, one at
// the end is not. The error is an *fs.PathError with ENOENT, ENOTDIR or ELOOP, or what Child returned.
func Lstat[T any](fsys Names[T], name string) (T, error) { return find(fsys, name, false) }

// Stat is Lstat that follows a link at the end as well.
func Stat[T any](fsys Names[T], name string) (T, error) { return find(fsys, name, true) }

func find[T any](fsys Names[T], name string, followLast bool) (n T, err error) {
	var zero T
	fail := func(errno syscall.Errno) (T, error) {
		return zero, &fs.PathError{Op: "lstat", Path: name, Err: errno}
	}
	above := []T{}
	n = fsys.Root()
	links := 0
	for rest := name; rest != ""; {
		var c string
		c, rest, _ = strings.Cut(rest, "/")
		if c == "" || c == "." {
			continue
		}
		if kind, _ := fsys.Inspect(n); kind != Dir {
			return fail(syscall.ENOTDIR)
		}
		if c == ".." {
			if len(above) > 0 {
				n, above = above[len(above)-1], above[:len(above)-1]
			}
			continue
		}
		child, found, err := fsys.Child(n, c)
		if err != nil {
			return zero, err
		}
		if !found {
			return fail(syscall.ENOENT)
		}
		kind, link := fsys.Inspect(child)
		if kind == Symlink && (followLast || strings.Trim(rest, "/") != "") {
			if links++; links > maxLinks {
				return fail(syscall.ELOOP)
			}
			if strings.HasPrefix(link, "/") {
				n, above = fsys.Root(), above[:0]
			}
			rest = link + "/" + rest
			continue
		}
		above = append(above, n)
		n = child
	}
	return n, nil
}

// Rooted gives the path, absolute and clean, that name stands for when links, also one at the end, are resolved without
// ever leaving the root. What does not exist resolves to itself. It agrees with containerd's RootPath, which BuildKit
// uses, in what it makes of ".." and of links that point into nothing: a link's relative target is cleaned before it
// is followed. Errors are as for Lstat, ELOOP beyond 255 links.
func Rooted[T any](fsys Names[T], name string) (string, error) {
	links := 0
	for {
		before := links
		cur := "/"
		for c := range strings.SplitSeq(name, "/") {
			if c == "" {
				continue
			}
			dir := cur
			cur = path.Join("/", dir, c)
			if cur == "/" {
				continue
			}
			n, err := Lstat(fsys, cur)
			if err != nil {
				if isNotExist(err) {
					continue
				}
				return "", err
			}
			kind, link := fsys.Inspect(n)
			if kind != Symlink {
				continue
			}
			if links++; links > maxRootLinks {
				return "", &fs.PathError{Op: "resolve", Path: name, Err: syscall.ELOOP}
			}
			if strings.HasPrefix(link, "/") {
				cur = link
			} else {
				cur = path.Join("/", dir, link)
			}
		}
		if links == before {
			return path.Join("/", cur), nil
		}
		name = cur
	}
}

func isNotExist(err error) bool {
	pe, ok := err.(*fs.PathError)
	return ok && pe.Err == syscall.ENOENT
}

type nodeNames struct{ root *Node }

func (t nodeNames) Root() *Node { return t.root }

func (t nodeNames) Child(dir *Node, name string) (*Node, bool, error) {
	n, err := dir.Lookup(name)
	return n, n != nil, err
}

func (t nodeNames) Inspect(n *Node) (Kind, string) { return n.Kind, n.Link }

// Resolve follows path in root without ever leaving it. clean is where it leads, absolute and without links (but for the
// last component when followLast is false); n is what is there, nil for nothing. A path through something that is no
// directory, and one of more than 255 links, is an *fs.PathError.
func Resolve(root *Node, name string, followLast bool) (clean string, n *Node, err error) {
	names := nodeNames{root}
	dir, base := path.Split(strings.TrimRight(name, "/"))
	if followLast || base == "" || base == "." || base == ".." {
		clean, err = Rooted(names, name)
	} else if clean, err = Rooted(names, dir); err == nil {
		clean = path.Join(clean, base)
	}
	if err != nil {
		return "", nil, err
	}
	n, err = Lstat(names, clean)
	if err != nil {
		if isNotExist(err) {
			return clean, nil, nil
		}
		return "", nil, err
	}
	return clean, n, nil
}

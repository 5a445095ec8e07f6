package fileop

import (
	"io/fs"
	"path"
	"path/filepath"
	"strings"
	"syscall"

	"larder/internal/tree"
)

// lister is a file system whose directories can be listed.
type lister[T any] interface {
	tree.Names[T]
	list(dir T) ([]string, error)
}

// treeFS is a tree as a lister.
type treeFS struct{ root *tree.Node }

func (t treeFS) Root() *tree.Node { return t.root }

func (t treeFS) Child(dir *tree.Node, name string) (*tree.Node, bool, error) {
	n, err := dir.Lookup(name)
	return n, n != nil, err
}

func (t treeFS) Inspect(n *tree.Node) (tree.Kind, string) { return n.Kind, n.Link }

func (t treeFS) list(dir *tree.Node) ([]string, error) {
	entries, err := dir.Entries()
	names := make([]string, len(entries))
	for i, e := range entries {
		names[i] = e.Name
	}
	return names, err
}

func (p place) list(dir *inode) ([]string, error) { return p.w.names(dir) }

func hasWildcards(s string) bool {
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case '\\':
			i++
		case '*', '?', '[':
			return true
		}
	}
	return false
}

// resolveWildcards expands a pattern of filepath.Match. Links are followed in the part before the first component with a
// wildcard (and at its end, if followLast), never in the rest. Matches come back relative to the root, in the order
// of a walk; a directory that matches is not looked into. Without wildcards the path is its own match.
func resolveWildcards[T any](fsys lister[T], pattern string, followLast bool) ([]string, error) {
	pattern = filepath.Join("/", pattern)
	parts := strings.Split(pattern[1:], "/")
	first := 0
	for first < len(parts) && !hasWildcards(parts[first]) {
		first++
	}
	prefix := path.Join("/", path.Join(parts[:first]...))
	if first == len(parts) {
		return []string{prefix}, nil
	}
	comp := strings.Join(parts[first:], "/")
	clean, err := resolvePrefix(fsys, prefix, followLast)
	if err != nil {
		return nil, err
	}
	top, err := tree.Lstat(fsys, clean)
	if err != nil {
		return nil, err
	}
	// No wildcard but a character class matches a slash, so nothing deeper than the pattern can match.
	depth := len(parts) - first
	if strings.Contains(comp, "[") {
		depth = 1 << 30
	}
	m := &matcher[T]{fsys: fsys, pattern: comp, prefix: strings.TrimPrefix(clean, "/")}
	err = m.walk(top, "", depth)
	return m.found, err
}

func resolvePrefix[T any](fsys lister[T], name string, followLast bool) (string, error) {
	if followLast || name == "/" {
		return tree.Rooted(fsys, name)
	}
	dir, base := path.Split(name)
	clean, err := tree.Rooted(fsys, dir)
	return path.Join(clean, base), err
}

type matcher[T any] struct {
	fsys            lister[T]
	pattern, prefix string
	found           []string
}

func (m *matcher[T]) walk(dir T, rel string, depth int) error {
	if kind, _ := m.fsys.Inspect(dir); kind != tree.Dir || depth == 0 {
		return nil
	}
	names, err := m.fsys.list(dir)
	if err != nil {
		return err
	}
	for _, name := range names {
		at := tree.Join(rel, name)
		// A pattern that Match cannot read matches nothing.
		if ok, _ := filepath.Match(m.pattern, at); ok {
			m.found = append(m.found, tree.Join(m.prefix, at))
			continue
		}
		if depth == 1 {
			continue
		}
		child, found, err := m.fsys.Child(dir, name)
		if err != nil {
			return err
		}
		if !found {
			return &fs.PathError{Op: "lstat", Path: at, Err: syscall.ENOENT}
		}
		if err := m.walk(child, at, depth-1); err != nil {
			return err
		}
	}
	return nil
}

package tree

import "io/fs"

// SkipDir, returned by a Walk's function for a directory, leaves out what is in it.
var SkipDir = fs.SkipDir

// Walk calls fn for root and everything below it, a directory before what it holds, names in bytewise order. Paths are
// relative to root, without a leading slash; root's own is "". An error of fn other than SkipDir, or of fetching a
// directory, ends the walk and is returned.
func Walk(root *Node, fn func(path string, n *Node) error) error {
	return walk("", root, fn)
}

func walk(path string, n *Node, fn func(string, *Node) error) error {
	err := fn(path, n)
	if err == SkipDir && n.Kind == Dir {
		return nil
	}
	if err != nil {
		return err
	}
	entries, err := n.Entries()
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := walk(Join(path, e.Name), e.Node, fn); err != nil {
			return err
		}
	}
	return nil
}

// Join puts a name behind the path of its directory as Walk reports paths.
func Join(dir, name string) string {
	if dir == "" {
		return name
	}
	return dir + "/" + name
}

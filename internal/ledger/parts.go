package ledger

import (
	"net/url"

	"larder/internal/key"
	"larder/internal/tree"
)

// Parts joins what a step sees at several places into one tree to Show and Merge: by where it is mounted, the observed files of what
// is mounted there. Part finds one again.
func Parts(at map[string]*tree.Node) (*tree.Node, error) {
	var entries []tree.Entry
	for dest, root := range at {
		n := *root
		n.Implied = true // what is mounted has no time of its own
		entries = append(entries, tree.Entry{Name: partName(dest), Node: &n})
	}
	return tree.NewDir(tree.Meta{Mode: 0o755}, false, entries)
}

// Part gives what Parts put there for dest, nil for nothing.
func Part(parts *tree.Node, dest string) (*tree.Node, error) { return parts.Lookup(partName(dest)) }

// partName makes a file name of a path.
func partName(dest string) string {
	name := url.PathEscape(dest)
	if name == "" || name == "." || name == ".." || len(name) > 200 {
		return key.Bytes([]byte(dest)).Hex()
	}
	return name
}

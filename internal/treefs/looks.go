package treefs

import (
	"slices"
	"strings"

	"larder/internal/observation"
	"larder/internal/tree"
)

// Looks gives all that was looked at in a part so far, sorted by path, as it was asked: nothing is put together. The root's entry
// is always there: mounting looks at it.
func (fs *FS) Looks(i int) []observation.Look {
	var looks []observation.Look
	collect(&looks, "", fs.parts[i].root)
	slices.SortFunc(looks, func(a, b observation.Look) int { return strings.Compare(a.Path, b.Path) })
	return looks
}

// collect adds an object and what is below it. Names of one file each have all that was looked at in it: which of them it was
// opened by is not known, and they cannot differ without their entries doing so.
func collect(looks *[]observation.Look, path string, n *inode) {
	*looks = append(*looks, observation.Look{Path: path, Kind: observation.Entry | observation.Kind(n.looks.Load())})
	if n.dir == nil {
		return
	}
	d := n.dir
	d.mu.Lock()
	known := slices.Clone(d.known)
	for name := range d.absent {
		*looks = append(*looks, observation.Look{Path: tree.Join(path, name), Kind: observation.Entry})
	}
	d.mu.Unlock()
	for i, k := range known {
		if k != nil {
			collect(looks, tree.Join(path, d.entries[i].Name), k)
		}
	}
}

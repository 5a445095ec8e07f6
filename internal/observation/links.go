package observation

import (
	"slices"
	"strings"

	"larder/internal/key"
	"larder/internal/tree"
)

const linksDomain = "larder.observation.links.v1"

// links are the sets of names in a tree that are hard links of each other. Where a tree has one name of a file there is no set.
type links struct {
	names   []key.Digest   // of each set's paths; sets are in the order of their first path
	sizes   []int          // how many paths each has
	byGroup map[uint64]int // Group -> set
	paths   []linked       // of all sets, sorted
}

type linked struct {
	path string
	set  int
}

func findLinks(root *tree.Node) (*links, error) {
	paths := map[uint64][]string{}
	var order []uint64
	err := tree.Walk(root, func(path string, n *tree.Node) error {
		if !n.HasGroups() && n.Kind == tree.Dir {
			return tree.SkipDir
		}
		if n.Group != 0 {
			if paths[n.Group] == nil {
				order = append(order, n.Group)
			}
			paths[n.Group] = append(paths[n.Group], path)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	l := &links{byGroup: map[uint64]int{}}
	order = slices.DeleteFunc(order, func(g uint64) bool { return len(paths[g]) < 2 })
	for _, g := range order {
		slices.Sort(paths[g])
	}
	slices.SortFunc(order, func(a, b uint64) int { return strings.Compare(paths[a][0], paths[b][0]) })
	for set, g := range order {
		l.byGroup[g] = set
		l.names = append(l.names, key.New(linksDomain).Strs(paths[g]).Sum())
		l.sizes = append(l.sizes, len(paths[g]))
		for _, p := range paths[g] {
			l.paths = append(l.paths, linked{p, set})
		}
	}
	slices.SortFunc(l.paths, func(a, b linked) int { return strings.Compare(a.path, b.path) })
	return l, nil
}

// leaving gives those sets, in order, that have a name at or below a path and one elsewhere. n is what is there.
func (l *links) leaving(path string, n *tree.Node) []int {
	if path == "" {
		return nil
	}
	if n.Kind != tree.Dir {
		if set, ok := l.byGroup[n.Group]; ok {
			return []int{set}
		}
		return nil
	}
	inside := map[int]int{}
	for _, m := range l.paths[l.from(path+"/"):l.from(path+"0")] { // "0" comes after "/"
		inside[m.set]++
	}
	var out []int
	for set, count := range inside {
		if count < l.sizes[set] {
			out = append(out, set)
		}
	}
	slices.Sort(out)
	return out
}

// from is where the first path that is not before p stands.
func (l *links) from(p string) int {
	i, _ := slices.BinarySearchFunc(l.paths, p, func(m linked, p string) int { return strings.Compare(m.path, p) })
	return i
}

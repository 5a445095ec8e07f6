package tree

import (
	"slices"
	"strings"
)

// SortXattrs puts a list in the order that Meta asks for.
func SortXattrs(list []Xattr) {
	slices.SortFunc(list, func(a, b Xattr) int { return strings.Compare(a.Name, b.Name) })
}

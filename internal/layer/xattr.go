package layer

import (
	"fmt"
	"strings"

	"larder/internal/disk"
	"larder/internal/tree"
)

// Overlay's marks on directories and files of an upper directory.
const (
	overlayOpaque   = disk.OverlayPrefix + "opaque"
	overlayRedirect = disk.OverlayPrefix + "redirect"
	overlayMetacopy = disk.OverlayPrefix + "metacopy"
)

// layerXattr says whether an attribute that a tar names belongs in a layer: as disk.Kept has it, if the kernel could hold the name.
func layerXattr(name string, kind tree.Kind) bool {
	return len(name) <= 255 && !strings.ContainsRune(name, 0) && disk.Kept(name, kind)
}

// newXattrReader reads what objects of an upper directory have, overlay's marks included.
func newXattrReader() *disk.XattrReader { return &disk.XattrReader{Overlay: true, Vanished: true} }

// takeMarks takes what overlay noted out of what newXattrReader's reader gave, and says whether that marks a directory as opaque.
func takeMarks(list []tree.Xattr, err error) (rest []tree.Xattr, opaque bool, _ error) {
	if err != nil {
		return nil, false, err
	}
	for _, x := range list {
		switch {
		case x.Name == overlayRedirect, x.Name == overlayMetacopy:
			return nil, false, fmt.Errorf("has %s: the overlay was mounted without redirect_dir=off,metacopy=off", x.Name)
		case x.Name == overlayOpaque:
			opaque = string(x.Value) == "y"
		case !strings.HasPrefix(x.Name, disk.OverlayPrefix):
			rest = append(rest, x)
		}
	}
	return rest, opaque, nil
}

package layer

import "strings"

// How a tar says that something below is gone (OCI image spec, layer.md, "Whiteouts").
const (
	whiteoutPrefix = ".wh."
	whiteoutMeta   = ".wh..wh." // names that AUFS kept for itself; but for the opaque mark they mean nothing
	whiteoutOpaque = ".wh..wh..opq"
)

// reservedName says whether a file of this name cannot be told from a whiteout in a tar.
func reservedName(name string) bool { return strings.HasPrefix(name, whiteoutPrefix) }

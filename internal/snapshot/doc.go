// Package snapshot keeps layers as directories that overlay can stack, and makes and unmakes the mounts that a step
// runs on.
//
// Everything lives under one directory, the base (the local root, or a place beside it where the root cannot hold
// overlay's upper directories):
//
//	layers/<short>/fs    a layer in overlay's own form: whiteouts are 0:0 character devices, opaque directories an xattr
//	layers/<short>/tree  its tree, encoded
//	layers/<short>/meta  what it is, and under which boot of the kernel it was written
//	layers/<short>/tree.new, meta.new  on their way to stand for those, see Adopt
//	layers/<short>/synced  present once all of it is known to be on the disk
//	layers/id/<hex>      identity -> <short>, a symbolic link; making it is what publishes a layer
//	locks/<hex>          held by the process that makes the layer of this identity
//	mounts/<proc>/       everything that one process has open: mounts, uppers, half-made layers, the runtime's files
//	mounts/<proc>.lock   held for as long as that process lives
//
// A layer is stored once, whatever its parents are. It is made in its process's directory, renamed into layers and
// then published; the first that is published wins. A process holds a shared lock on the directory of each layer that
// it uses, and the collector deletes only what it can lock alone.
//
// The times of a stored layer's files, which are no part of its identity, can be replaced (Adopt); nothing else of it ever
// changes.
//
// Nothing is synced on the way. A layer without the mark "synced" counts only under the boot that wrote it: a killed
// process loses nothing, a power failure costs the layers since the last Sync.
package snapshot

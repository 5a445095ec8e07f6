// Package fileop does the file operations of LLB (copy, mkdir, mkfile, rm, symlink) as algebra on trees. No file is copied
// and nothing is mounted: a copied directory is the same subtree in another place.
//
// What an operation does is what BuildKit's file backend does with system calls on a mounted snapshot, to the letter;
// the property test runs both on the same cases. To that end a work (work.go) is a small file system in memory that
// lies over the tree of the operation's base and answers the same calls.
//
// A work looks at its base only through look-ups that are recorded: these probes, with their answers, are the
// destination resolution of DESIGN section 3. Two things follow. The content key of an operation holds the
// selected sources and the probes, so that a COPY onto another base that looks the same at those places is a hit. And an
// operation can be done again without the base's tree, from the recorded answers alone (Replay).
//
// Where a name is created in or removed from a directory, the directory's mtime becomes the action's time stamp, or the
// time at which the operation ran, as a kernel does it.
package fileop

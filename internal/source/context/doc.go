// Package context reads a build context: a directory of the user's, filtered by .dockerignore and by what the Dockerfile
// copies, becomes one observed layer.
//
// The filter is fsutil's, to the letter: BuildKit's clients walk a context with it, so a Dockerfile sees the same files
// here as there. Owners are reset to root as those clients do, everything else is kept. Directories are read and files hashed
// by a few workers (walk.go); what a file hashed to is remembered with the stat that it had (statcache.go), so that a second
// build opens only what changed. The files stay where they are: the layer's contents (files.go) open them again when a
// step reads them, and whoever copies them compares digests meanwhile (DESIGN invariant 10).
package context

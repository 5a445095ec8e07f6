// Package key holds the names by which larder knows things: digests, and the keys of steps.
//
// It is the lowest room: values only, no files, no network.
package key

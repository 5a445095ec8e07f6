// Package testregistry is a real image registry (distribution/v3) inside the process, for tests, benches and the demo.
// It counts what travels, so that a test can say "this build moved no layer".
//
// What the world does to a registry is done by handlers for Options.Wrap, which can be put into each other: Faults makes
// requests fail, Guard wants tokens, Elsewhere keeps the blobs at another origin. A Proxy puts the registry further away, and
// DeleteBlobs takes blobs out of it.
//
// Nothing that ships imports it.
package testregistry

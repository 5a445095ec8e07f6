// Package testregistry is a real image registry (distribution/v3) inside the process, for tests, benches and the demo.
// It counts what travels, so that a test can say "this build moved no layer".
//
// Nothing that ships imports it.
package testregistry

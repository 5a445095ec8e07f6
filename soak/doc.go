// Package soak treats the larder program badly and looks at what is left: killed at random moments, run many times at
// once over one local root. `go test` does a short part of each; LARDER_SOAK=1 (make soak) does all of it.
package soak

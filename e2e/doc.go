// Package e2e runs the larder program as its users do: real registries, runtimes and package managers, other tools that
// read what it wrote, and bad treatment. The Soak tests do a short part in `go test` and all of it under LARDER_SOAK=1
// (make soak).
package e2e

// Package runtime runs a command in a root file system with runc or crun. It knows nothing of layers or stores.
//
// The container itself is BuildKit's runcexecutor. What it hands to the runtime is adapted at go-runc's process monitor
// (see monitor.go): containers are kept in a state directory of this process, so that those of a dead process can be
// found, and "--keep", which crun knows since 1.9 only, is left out along with the "delete" that would follow.
package runtime

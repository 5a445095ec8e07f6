// Package runstep executes RUN steps: it mounts the step's inputs, runs its command in a container and makes layers of
// what was written.
//
// A failed or cancelled step leaves no mount, process, cgroup or file behind. What a killed larder leaves is found by
// the next one (snapshot.Store.Recover with runtime.Reap).
package runstep

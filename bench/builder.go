package main

import (
	"context"
	"fmt"
	"path/filepath"
)

// Builder is one way to turn a workload into an image in the registry. The methods are called one at a time.
type Builder interface {
	// Start makes the builder ready, with whatever local state there is. A daemon runs from here on.
	Start(ctx context.Context) error
	// Build builds and pushes. This call is what is timed, together with Start where a scenario says so.
	Build(ctx context.Context, j job) error
	// CacheRepository names where the remote cache of images in a repository is kept: the same repository where the
	// builder can, else one beside it.
	CacheRepository(repository string) string
	// Ran tells which RUN steps the last build ran.
	Ran() []ranStep
	// PeakRSS is the highest resident memory, in bytes, of the process that builds, since the last ResetPeak.
	PeakRSS() int64
	// ResetPeak starts a new measurement of PeakRSS. A process that Start makes later starts its own.
	ResetPeak() error
	// Stop ends what Start started and removes all local state, as a new machine would have none.
	Stop() error
}

// Runner is a Builder that can run a command in what it builds, with the cache mounts of the build.
type Runner interface {
	// Run builds a stage as Build does, but for the push, and runs the command on top of it.
	Run(ctx context.Context, j job, target string, command []string) error
}

// MountKeeper is a Builder whose cache mounts are in the remote cache.
type MountKeeper interface {
	// MountTimes tells how long the last call of Build or Run was busy with them.
	MountTimes() mountTimes
}

// job is one build.
type job struct {
	dir   string // context and Dockerfile
	image string // the reference that the image is pushed to; empty for a build that is not pushed
	cache string // the repository of the remote cache, read and written; empty for a build without one
	proxy string // the URL of the proxy that RUN steps are told of; empty for none
}

// proxyArgs are the build arguments that tell RUN steps of a proxy. They are in no cache key.
func (j job) proxyArgs() []string {
	if j.proxy == "" {
		return nil
	}
	return []string{"HTTP_PROXY=" + j.proxy, "HTTPS_PROXY=" + j.proxy}
}

// env is what builders are given.
type env struct {
	state    string // a directory of the builder's own, empty
	registry string // host:port
	binDir   string // where larder is
	peerDir  string // where buildkitd and buildctl are
}

// newBuilder makes a builder by name.
func newBuilder(name string, e env) (Builder, error) {
	e.state = filepath.Join(e.state, name)
	switch name {
	case "larder":
		return newLarder(e)
	case "buildkit":
		return newBuildKit(e)
	}
	return nil, fmt.Errorf("no builder %q; there are larder and buildkit", name)
}

package main

import (
	"context"
	"fmt"
	"path/filepath"
)

// Builder is one way to turn a workload into an image in the registry. The methods are called one at a time.
type Builder interface {
	// Start makes the builder ready: what it starts here (a daemon) is not part of any measurement.
	Start(ctx context.Context) error
	// Build builds the directory and pushes the image to ref. This call is what is timed.
	Build(ctx context.Context, dir, ref string) error
	// Reset removes all local state, as a new machine would have none. The builder is ready again afterwards.
	Reset(ctx context.Context) error
	// PeakRSS is the highest resident memory, in bytes, of the process that builds, since the last ResetPeak.
	PeakRSS() int64
	// ResetPeak starts a new measurement of PeakRSS.
	ResetPeak() error
	// Stop ends what Start started and removes the local state.
	Stop() error
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

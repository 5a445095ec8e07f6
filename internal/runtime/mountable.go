package runtime

import (
	"context"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/moby/buildkit/executor"
	"github.com/moby/sys/user"
)

// mountable is a Mount in the form in which the executor takes it.
type mountable struct{ m Mount }

func (m Mount) mountable() executor.Mountable { return mountable{m} }

func (m mountable) Mount(context.Context, bool) (executor.MountableRef, error) {
	return mountRef(m), nil
}

type mountRef struct{ m Mount }

func (r mountRef) Mount() ([]mount.Mount, func() error, error) {
	m := mount.Mount{Type: r.m.Type, Source: r.m.Source, Options: r.m.Options}
	return []mount.Mount{m}, func() error { return nil }, nil
}

func (mountRef) IdentityMapping() *user.IdentityMapping { return nil }

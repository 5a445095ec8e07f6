package runstep

import (
	"context"
	"slices"
	"strings"

	"github.com/moby/buildkit/solver/pb"
	"github.com/moby/buildkit/util/system"

	"larder/internal/runtime"
)

// spec is the container of the step.
func (p *prepared) spec(ctx context.Context) (runtime.Spec, error) {
	op, meta := p.step.Op, p.step.Op.Meta
	env := append(slices.Clone(meta.Env), proxyEnv(meta.ProxyEnv)...)
	env = withDefault(env, "PATH", system.DefaultPathEnvUnix)
	ca, err := p.hostCA(&env)
	if err != nil {
		return runtime.Spec{}, err
	}
	secret, err := p.secretEnv(ctx)
	if err != nil {
		return runtime.Spec{}, err
	}
	spec := runtime.Spec{
		Root: p.root, ReadOnly: p.readOnly, Mounts: append(p.list, ca...),
		Args: meta.Args, Env: append(env, secret...), Cwd: meta.Cwd, User: meta.User,
		Hostname: meta.Hostname, ExtraHosts: meta.ExtraHosts, Ulimits: meta.Ulimit, CgroupParent: meta.CgroupParent,
		Network: op.Network, Security: op.Security, RemoveStubs: meta.RemoveMountStubsRecursive,
		Stdout: p.step.Stdout, Stderr: p.step.Stderr,
	}
	for _, c := range meta.ValidExitCodes {
		spec.ValidExitCodes = append(spec.ValidExitCodes, int(c))
	}
	if spec.Cwd == "" {
		spec.Cwd = "/"
	}
	return spec, p.guard()
}

// guard tells the step's cache mounts which secrets it gets.
func (p *prepared) guard() error {
	if len(p.given) == 0 {
		return nil
	}
	for _, c := range p.caches {
		if err := c.Guard(p.given); err != nil {
			return err
		}
	}
	return nil
}

// proxyEnv are the variables of a proxy, which are set for the run and recorded nowhere.
func proxyEnv(p *pb.ProxyEnv) []string {
	if p == nil {
		return nil
	}
	var env []string
	for _, v := range []struct{ name, value string }{
		{"HTTP_PROXY", p.HttpProxy}, {"HTTPS_PROXY", p.HttpsProxy}, {"FTP_PROXY", p.FtpProxy},
		{"NO_PROXY", p.NoProxy}, {"ALL_PROXY", p.AllProxy},
	} {
		if v.value != "" {
			env = append(env, v.name+"="+v.value, strings.ToLower(v.name)+"="+v.value)
		}
	}
	return env
}

// withDefault sets a variable that is not set.
func withDefault(env []string, name, value string) []string {
	if slices.ContainsFunc(env, func(e string) bool { return strings.HasPrefix(e, name+"=") }) {
		return env
	}
	return append(env, name+"="+value)
}

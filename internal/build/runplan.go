package build

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/buildkit/client/llb"
	"github.com/moby/buildkit/solver/pb"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"larder/internal/fault"
	"larder/internal/layer"
	"larder/internal/runstep"
	"larder/internal/solve"
)

// Mount is a mount that a command is given. Its fields are those of --mount.
type Mount struct {
	Type   string // "cache", "bind", "tmpfs" or "secret"
	Target string // relative to the working directory
	Source string // of a bind: a path of this machine, absolute
	ID     string // of a cache, where empty its target; of a secret
	Env    string // of a secret: the variable that holds it, instead of a file
	// Sharing is that of a cache: "shared", "private", "locked", empty for shared.
	Sharing  string
	UID, GID *int    // of a cache or secret
	Mode     *uint32 // of a cache or secret
	Size     int64   // of a tmpfs, in bytes, 0 for no bound
	ReadOnly bool
}

// plan makes a step of a command.
type plan struct {
	b   *building
	cmd *Command
	dir string // working directory

	platform string
	inputs   []*layer.State
	mounts   []placed
	env      []*pb.SecretEnv
}

// placed is a mount in the form of a step: an op's, or a bind.
type placed struct {
	dest  string
	mount *pb.Mount
	bind  *runstep.Bind
}

// command plans the command on a state.
func (p *plan) command(ctx context.Context, state *layer.State, image *ocispecs.ImageConfig) (runstep.Command, error) {
	c := p.cmd
	user := c.User
	if user == "" {
		user = image.User
	}
	op := &pb.ExecOp{Meta: &pb.Meta{
		Args: c.Args, Env: environment(image.Env, c.Env), Cwd: p.dir, User: user, CgroupParent: p.b.req.CgroupParent,
	}}
	if c.NoNetwork {
		op.Network = pb.NetMode_NONE
	}
	if err := p.limits(op.Meta); err != nil {
		return runstep.Command{}, err
	}
	p.inputs = []*layer.State{state}
	if err := p.caches(ctx); err != nil {
		return runstep.Command{}, err
	}
	p.memory()
	p.secrets()
	for _, m := range c.Mounts {
		if err := p.mount(ctx, m); err != nil {
			return runstep.Command{}, err
		}
	}
	run := runstep.Command{Stdin: c.Stdin, Tty: c.Tty, Resize: c.Resize, Signal: c.Signal}
	op.Mounts, op.Secretenv = []*pb.Mount{{Dest: pb.RootMount, Output: int64(pb.SkipOutput)}}, p.env
	for _, m := range p.mounts {
		if m.bind != nil {
			run.Binds = append(run.Binds, *m.bind)
		} else {
			op.Mounts = append(op.Mounts, m.mount)
		}
	}
	run.Step = runstep.Step{
		Op: op, Inputs: p.inputs, Platform: p.platform, Caches: p.b.mounts.store, Secrets: p.b.secrets.value,
		Stdout: c.Stdout, Stderr: c.Stderr,
	}
	return run, nil
}

// environment sets variables; a later value takes the place of an earlier one.
func environment(lists ...[]string) []string {
	var out []string
	at := map[string]int{}
	for _, v := range slices.Concat(lists...) {
		name, _, _ := strings.Cut(v, "=")
		if n, ok := at[name]; ok {
			out[n] = v
			continue
		}
		at[name] = len(out)
		out = append(out, v)
	}
	return out
}

// limits gives the command what the flags give to RUN steps.
func (p *plan) limits(meta *pb.Meta) error {
	for _, h := range p.b.req.AddHosts {
		name, ip, _ := strings.Cut(h, "=")
		meta.ExtraHosts = append(meta.ExtraHosts, &pb.HostIP{Host: name, IP: ip})
	}
	for _, u := range p.b.req.Ulimits {
		name, values, _ := strings.Cut(u, "=")
		soft, hard, _ := strings.Cut(values, ":")
		s, err := strconv.ParseInt(soft, 10, 64)
		h, herr := strconv.ParseInt(hard, 10, 64)
		if err != nil || herr != nil {
			return fault.Errorf(fault.Usage, "--ulimit %s: NAME=SOFT:HARD is expected", u)
		}
		meta.Ulimit = append(meta.Ulimit, &pb.Ulimit{Name: name, Soft: s, Hard: h})
	}
	return nil
}

// memory is what --shm-size gives.
func (p *plan) memory() {
	if size := p.b.req.ShmSize; size > 0 {
		p.put("/dev/shm", memory(size))
	}
}

// caches adds the cache mounts of the target's RUN instructions.
func (p *plan) caches(ctx context.Context) error {
	found, err := declaredCaches(p.b.front.Outputs[0].Def)
	if err != nil {
		return err
	}
	of := p.b.front.Outputs[0].Platform
	p.platform = solve.PlatformName(&pb.Platform{OS: of.OS, Architecture: of.Architecture, Variant: of.Variant})
	for _, d := range found {
		m := d.mount
		p.platform = solve.PlatformName(d.platform) // one for all: stages upon each other have the same
		m.Output = int64(pb.SkipOutput)
		if m.Input, err = p.input(ctx, d.input); err != nil {
			return err
		}
		p.put(m.Dest, m)
	}
	return nil
}

// input evaluates what a mount is made from and gives its number.
func (p *plan) input(ctx context.Context, def *pb.Definition) (int64, error) {
	if def == nil {
		return int64(pb.Empty), nil
	}
	state, err := p.b.solver.Evaluate(ctx, def)
	if err != nil {
		return 0, err
	}
	p.inputs = append(p.inputs, state)
	return int64(len(p.inputs) - 1), nil
}

// secrets shows the build's secrets where a RUN would have them.
func (p *plan) secrets() {
	for _, id := range slices.Sorted(maps.Keys(p.b.req.Secrets)) {
		p.put(secretPath(id), secretMount(id, 0, 0, secretMode))
	}
}

const secretMode = 0o400

func secretPath(id string) string { return path.Join("/run/secrets", path.Base("/"+id)) }

func secretMount(id string, uid, gid int, mode uint32) *pb.Mount {
	return &pb.Mount{
		MountType: pb.MountType_SECRET, Input: int64(pb.Empty), Output: int64(pb.SkipOutput),
		SecretOpt: &pb.SecretOpt{ID: id, Uid: uint32(uid), Gid: uint32(gid), Mode: mode},
	}
}

func memory(size int64) *pb.Mount {
	return &pb.Mount{
		MountType: pb.MountType_TMPFS, Input: int64(pb.Empty), Output: int64(pb.SkipOutput), TmpfsOpt: &pb.TmpfsOpt{Size: size},
	}
}

// put adds a mount, instead of what was to be at the same place.
func (p *plan) put(dest string, m *pb.Mount) {
	m.Dest = dest
	p.place(placed{dest: dest, mount: m})
}

func (p *plan) place(m placed) {
	p.mounts = slices.DeleteFunc(p.mounts, func(o placed) bool { return o.dest == m.dest })
	p.mounts = append(p.mounts, m)
}

// mount adds one that was asked for.
func (p *plan) mount(ctx context.Context, m Mount) error {
	dest := m.Target
	if m.Type == "secret" {
		p.mounts = slices.DeleteFunc(p.mounts, func(o placed) bool { // it is not to be in two places
			return o.dest == secretPath(m.ID) && o.mount.GetSecretOpt().GetID() == m.ID
		})
		if m.Env != "" {
			p.env = append(p.env, &pb.SecretEnv{ID: m.ID, Name: m.Env})
			if dest == "" {
				return nil
			}
		}
		if dest == "" {
			dest = secretPath(m.ID)
		}
	}
	if !path.IsAbs(dest) {
		dest = path.Join(p.dir, dest)
	}
	if dest = path.Clean(dest); dest == "/" {
		return fault.Errorf(fault.Usage, "a mount cannot take the place of the whole file system")
	}
	switch m.Type {
	case "bind":
		p.place(placed{dest: dest, bind: &runstep.Bind{Source: m.Source, Dest: dest, ReadOnly: m.ReadOnly}})
	case "tmpfs":
		p.put(dest, memory(m.Size))
	case "secret":
		p.put(dest, secretMount(m.ID, or(m.UID, 0), or(m.GID, 0), or(m.Mode, uint32(secretMode))))
	case "cache":
		mount, err := p.cache(ctx, m)
		if err != nil {
			return err
		}
		p.put(dest, mount)
	default:
		return fault.Errorf(fault.Usage, "mounts of type %q are not known: cache, bind, tmpfs and secret are", m.Type)
	}
	return nil
}

// cache makes the cache mount that a RUN would have with the same fields: the frontend's, so that both are one.
func (p *plan) cache(ctx context.Context, m Mount) (_ *pb.Mount, err error) {
	id := m.ID
	if id == "" {
		id = path.Clean(m.Target)
	}
	mount := &pb.Mount{
		MountType: pb.MountType_CACHE, Output: int64(pb.SkipOutput), Readonly: m.ReadOnly,
		CacheOpt: &pb.CacheOpt{ID: p.b.req.Args["BUILDKIT_CACHE_MOUNT_NS"] + "/" + id},
	}
	switch m.Sharing {
	case "", "shared":
	case "private":
		mount.CacheOpt.Sharing = pb.CacheSharingOpt_PRIVATE
	case "locked":
		mount.CacheOpt.Sharing = pb.CacheSharingOpt_LOCKED
	default:
		return nil, fault.Errorf(fault.Usage, "cache mount %s: sharing=%s is not known: shared, private and locked are", id, m.Sharing)
	}
	var initial *pb.Definition
	if m.UID != nil || m.GID != nil || m.Mode != nil {
		mkdir := llb.Mkdir("/cache", os.FileMode(or(m.Mode, 0o755)), llb.WithUIDGID(or(m.UID, 0), or(m.GID, 0)))
		def, err := llb.Scratch().File(mkdir, llb.WithCustomName("[internal] setting cache mount permissions")).Marshal(ctx)
		if err != nil {
			return nil, fmt.Errorf("cache mount %s: %w", id, err)
		}
		mount.Selector, initial = "/cache", def.ToPB()
	}
	mount.Input, err = p.input(ctx, initial)
	return mount, err
}

// or gives what was said, or else the default.
func or[T any](v *T, without T) T {
	if v == nil {
		return without
	}
	return *v
}

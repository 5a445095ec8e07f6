package runstep

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"
	"sync"

	"github.com/moby/buildkit/solver/pb"
	"golang.org/x/sync/errgroup"

	"larder/internal/cachemount"
	"larder/internal/layer"
	"larder/internal/runtime"
	"larder/internal/tree"
)

// acquireCaches takes hold of the step's cache mounts. Where one of them is locked, that is done in an order that is the same for all steps: two
// that want the same must not each hold one and wait for the other. A locked one waits for those who share it, too.
func (p *prepared) acquireCaches(ctx context.Context) error {
	type want struct {
		name    string
		key     cachemount.Key
		sharing cachemount.Sharing
		state   *layer.State
	}
	var wanted []want
	for _, m := range p.step.Op.Mounts {
		if m.MountType != pb.MountType_CACHE || m.CacheOpt == nil || m.Input >= int64(len(p.step.Inputs)) {
			continue // what is wrong with it is said when it is mounted
		}
		w := want{}
		if m.Input >= 0 {
			w.state = p.step.Inputs[m.Input]
		}
		var err error
		if w.sharing, err = sharingOf(m.CacheOpt.Sharing); err != nil {
			return err
		}
		w.key, w.name = p.cacheKey(m, w.state)
		wanted = append(wanted, w)
	}
	slices.SortStableFunc(wanted, func(a, b want) int { return strings.Compare(a.name, b.name) })
	wanted = slices.CompactFunc(wanted, func(a, b want) bool { return a.name == b.name })
	store := p.step.Caches
	if store == nil {
		store = p.r.caches
	}
	var mu sync.Mutex
	acquire := func(ctx context.Context, w want) error {
		c, err := store.Acquire(ctx, w.key, w.sharing, func(ctx context.Context, dir string) error {
			return p.r.fill(ctx, w.state, w.key.Selector, dir)
		})
		if err != nil {
			return err
		}
		mu.Lock()
		defer mu.Unlock()
		p.caches[w.name] = c
		return nil
	}
	if slices.ContainsFunc(wanted, func(w want) bool { return w.sharing == cachemount.Locked }) {
		for _, w := range wanted {
			if err := acquire(ctx, w); err != nil {
				return err
			}
		}
		return nil
	}
	// Nobody waits for another step here: they are restored beside each other.
	eg, ctx := errgroup.WithContext(ctx)
	for _, w := range wanted {
		eg.Go(func() error { return acquire(ctx, w) })
	}
	return eg.Wait()
}

func sharingOf(opt pb.CacheSharingOpt) (cachemount.Sharing, error) {
	switch opt {
	case pb.CacheSharingOpt_SHARED:
		return cachemount.Shared, nil
	case pb.CacheSharingOpt_PRIVATE:
		return cachemount.Private, nil
	case pb.CacheSharingOpt_LOCKED:
		return cachemount.Locked, nil
	}
	return 0, fmt.Errorf("unknown sharing mode %d", opt)
}

// cacheKey gives what tells a cache mount apart, and the same as text.
func (p *prepared) cacheKey(m *pb.Mount, state *layer.State) (cachemount.Key, string) {
	k := cachemount.Key{ID: m.CacheOpt.ID, Platform: p.step.Platform, Base: state.Identities(), Selector: path.Clean("/" + m.Selector)}
	return k, fmt.Sprintf("%q %s %s", k.ID, k.Base, k.Selector)
}

// cache mounts one that acquireCaches got.
func (p *prepared) cache(m *pb.Mount, input int, state *layer.State) error {
	if m.CacheOpt == nil {
		return errors.New("a cache mount without an id")
	}
	if m.Output != int64(pb.SkipOutput) {
		if input < 0 || m.Output < 0 || m.Output >= int64(len(p.step.Op.Mounts)) || p.outputs[m.Output] != nil {
			return fmt.Errorf("invalid output %d", m.Output)
		}
		p.outputs[m.Output] = &output{input: input}
	}
	_, name := p.cacheKey(m, state)
	// What the step reads is seen by its access times, however this machine's file systems are mounted.
	options := []string{"rbind", "strictatime"}
	if m.Readonly {
		options = append(options, "ro")
	}
	p.list = append(p.list, runtime.Mount{Dest: p.dest(m), Type: "bind", Source: p.caches[name].Dir(), Options: options})
	return nil
}

// fill writes a directory of a state into a new cache mount; as a rule it is an empty one that only has the mode and
// owner that the mount shall have.
func (r *Runner) fill(ctx context.Context, state *layer.State, selector, dir string) error {
	if state == nil {
		return nil
	}
	root, err := state.Merged(ctx)
	if err != nil {
		return err
	}
	_, n, err := tree.Resolve(root, selector, true)
	if err != nil {
		return err
	}
	if n == nil {
		return fmt.Errorf("%s: not found", selector)
	}
	if n.Kind != tree.Dir {
		return fmt.Errorf("%s: not a directory", selector)
	}
	var sources []layer.Source
	for _, l := range state.Layers() {
		sources = append(sources, r.snapshots.Contents(l))
	}
	return layer.Materialise(ctx, n, layer.Union(sources...), dir)
}

// secret shows a secret as a file that lives in memory.
func (p *prepared) secret(ctx context.Context, m *pb.Mount) error {
	opt := m.SecretOpt
	if opt == nil || opt.ID == "" {
		return errors.New("a secret mount without an id")
	}
	data, err := p.secretValue(ctx, opt.ID)
	if errors.Is(err, ErrNoSecret) && opt.Optional {
		return nil
	}
	if err != nil {
		return err
	}
	if p.secrets == nil {
		if p.secrets, err = p.r.snapshots.Memory(); err != nil {
			return err
		}
	}
	file, err := p.secrets.File(data)
	if err != nil {
		return err
	}
	if err := os.Chown(file, int(opt.Uid), int(opt.Gid)); err != nil {
		return err
	}
	if err := os.Chmod(file, os.FileMode(opt.Mode&0o777)); err != nil {
		return err
	}
	options := []string{"ro", "rbind", "nodev", "nosuid"}
	if opt.Mode&0o111 == 0 {
		options = append(options, "noexec")
	}
	p.list = append(p.list, runtime.Mount{Dest: p.dest(m), Type: "bind", Source: file, Options: options})
	return nil
}

func (p *prepared) secretValue(ctx context.Context, id string) ([]byte, error) {
	if p.step.Secrets == nil {
		return nil, fmt.Errorf("secret %s: %w: give it with --secret id=%s,src=FILE", id, ErrNoSecret, id)
	}
	data, err := p.step.Secrets(ctx, id)
	if err == nil {
		p.given = append(p.given, data)
	}
	if errors.Is(err, ErrNoSecret) {
		return nil, fmt.Errorf("secret %s: %w: give it with --secret id=%s,src=FILE", id, ErrNoSecret, id)
	}
	return data, err
}

// secretEnv gives the environment variables that hold secrets.
func (p *prepared) secretEnv(ctx context.Context) ([]string, error) {
	var env []string
	for _, s := range p.step.Op.Secretenv {
		if s.ID == "" {
			return nil, fmt.Errorf("the secret for the variable %s has no id", s.Name)
		}
		data, err := p.secretValue(ctx, s.ID)
		if errors.Is(err, ErrNoSecret) && s.Optional {
			continue
		}
		if err != nil {
			return nil, err
		}
		if strings.ContainsRune(string(data), 0) {
			return nil, fmt.Errorf("secret %s holds a NUL byte, which no environment variable can", s.ID)
		}
		env = append(env, s.Name+"="+string(data))
	}
	return env, nil
}

package cli

import (
	"context"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"larder/internal/cacheref"
	"larder/internal/catalog"
	"larder/internal/fault"
)

// withStores lets a command that builds nothing open remote caches: what is opened is closed when do returns. options says how their
// catalogs are read and written.
type withStores func(cmd *cobra.Command, insecure []string, do func(ctx context.Context, open openStore, options func(*catalog.Keys) catalog.Options) error) error

// remoteFlags say which remote cache a command means.
type remoteFlags struct {
	cacheFlags
	insecureRegistries []string
}

func (f *remoteFlags) register(fl *pflag.FlagSet) {
	fl.StringVar(&f.cache, "cache", "", "The remote cache: a repository (REGISTRY/NAME), a directory, or type=...")
	fl.StringArrayVar(&f.verifyKey, "cache-verify-key", nil, "Believe only what one of these ed25519 public keys signed: a PEM file, or env:VARIABLE")
	fl.StringArrayVar(&f.insecureRegistries, "insecure-registry", nil, "Registry (HOST[:PORT]) to speak to without checking certificates, or in plain HTTP")
}

func (f *remoteFlags) registerScope(fl *pflag.FlagSet) {
	fl.StringVar(&f.scope, "cache-scope", "", "One scope only; tag:TAG is what --cache-to wrote under a tag (default: all scopes)")
}

// with opens what the flags name.
func (f *remoteFlags) with(e *env, stores withStores, cmd *cobra.Command, do func(ctx context.Context, r *remoteCache) error) error {
	if err := e.settings.fill(cmd.Flags(), lookupEnv); err != nil {
		return err
	}
	if f.cache == "" {
		return fault.Errorf(fault.Usage, "--cache is missing: which remote cache? 'larder cache du' shows the local root")
	}
	ref, err := cacheref.ParseCache(f.cache)
	if err != nil {
		return err
	}
	keys, err := f.keys()
	if err != nil {
		return err
	}
	return stores(cmd, f.insecureRegistries, func(ctx context.Context, open openStore, options func(*catalog.Keys) catalog.Options) error {
		return do(ctx, &remoteCache{ref: ref, scope: f.scope, open: open, opt: options(keys), out: e.out, err: e.err, now: time.Now()})
	})
}

// remoteCommands are the commands for remote caches alone.
func remoteCommands(e *env, stores withStores) []*cobra.Command {
	return []*cobra.Command{lsCommand(e, stores), inspectCommand(e, stores), verifyCommand(e, stores)}
}

func lsCommand(e *env, stores withStores) *cobra.Command {
	var f remoteFlags
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "ls",
		Short: "List the scopes of a remote cache and their cache mounts",
		Args:  exactArgs(0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return f.with(e, stores, cmd, func(ctx context.Context, r *remoteCache) error { return r.list(ctx, asJSON) })
		},
	}
	f.register(cmd.Flags())
	cmd.Flags().BoolVar(&asJSON, "json", false, "Print a JSON list of {scope, tag, records, blobs, size (bytes), written, signed_by, problem, cache_mounts: {id, platform, files, size, stored (bytes), saved, last_used, builds, hits (0 to 1), united}}")
	return cmd
}

func inspectCommand(e *env, stores withStores) *cobra.Command {
	var f remoteFlags
	var asJSON, verbose bool
	cmd := &cobra.Command{
		Use:   "inspect",
		Short: "Show the steps that a remote cache knows",
		Args:  exactArgs(0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return f.with(e, stores, cmd, func(ctx context.Context, r *remoteCache) error { return r.inspect(ctx, verbose, asJSON) })
		},
	}
	f.register(cmd.Flags())
	f.registerScope(cmd.Flags())
	cmd.Flags().BoolVar(&asJSON, "json", false, "Print a JSON list of {scope, key, name, made, last_used, duration, data, layers, size}")
	cmd.Flags().BoolVarP(&verbose, "verbose", "v", false, "Print the records about layers and destinations too")
	return cmd
}

func verifyCommand(e *env, stores withStores) *cobra.Command {
	var f remoteFlags
	var full bool
	cmd := &cobra.Command{
		Use:   "verify",
		Short: "Check that a remote cache has every blob that its records need",
		Args:  exactArgs(0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return f.with(e, stores, cmd, func(ctx context.Context, r *remoteCache) error { return r.verify(ctx, full) })
		},
	}
	f.register(cmd.Flags())
	f.registerScope(cmd.Flags())
	cmd.Flags().BoolVar(&full, "full", false, "Read every blob and compare its bytes")
	return cmd
}

// registerPrune adds the flags that make prune clean up a remote cache. No variable and no file may name it: who has LARDER_CACHE set
// for his builds means the local root here.
func (f *remoteFlags) registerPrune(fl *pflag.FlagSet) {
	f.register(fl)
	f.registerScope(fl)
	fl.StringVar(&f.signKey, "cache-sign-key", "", "Sign what is written with this ed25519 private key: a PEM file, or env:VARIABLE")
	fl.SetAnnotation("cache", commandLineOnly, []string{"true"})
}

// prunes tells whether prune was asked to clean up a remote cache, and whether its flags go together.
func (f *remoteFlags) prunes(cmd *cobra.Command) (bool, error) {
	isRemote := cmd.Flags().Changed("cache")
	for _, name := range []string{"cache-scope", "cache-verify-key", "cache-sign-key", "insecure-registry"} {
		if !isRemote && cmd.Flags().Changed(name) {
			return false, usage("--%s goes with --cache", name)
		}
	}
	if isRemote && cmd.Flags().Changed("max-size") {
		return true, usage("--max-size does not go with --cache; --unused and --all do")
	}
	return isRemote, nil
}

// remoteUnused is how long a record of a remote cache lies before prune without flags takes it out.
const remoteUnused = 30 * 24 * time.Hour

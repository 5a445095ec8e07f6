package cli

import (
	"context"
	"fmt"
	"text/tabwriter"
	"time"

	"github.com/docker/go-units"
	"github.com/spf13/cobra"

	"larder/internal/build"
	"larder/internal/cacheref"
	"larder/internal/catalog"
	"larder/internal/fault"
	"larder/internal/remote"
)

func cacheCommand(e *env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "cache",
		Short: "Look at the local root and at remote caches, and clean them up",
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return fault.Errorf(fault.Usage, "unknown command %q\nSee 'larder cache --help'.", "cache "+args[0])
			}
			return cmd.Help()
		},
	}
	cmd.AddCommand(duCommand(e), pruneCommand(e, e.withStores))
	cmd.AddCommand(remoteCommands(e, e.withStores)...)
	return cmd
}

// withEngine opens the local root for a command that builds nothing.
func (e *env) withEngine(cmd *cobra.Command, do func(ctx context.Context, engine *build.Engine) error) error {
	if err := e.settings.fill(cmd.Flags(), lookupEnv); err != nil {
		return err
	}
	root, _ := cmd.Flags().GetString("root")
	engine, err := build.Open(cmd.Context(), build.Config{Root: root, Idle: true, Version: Version(), Warnings: e.err})
	if err != nil {
		return err
	}
	defer engine.Close()
	return do(cmd.Context(), engine)
}

// withStores is a withStores: the local root remembers which catalogs it has seen.
func (e *env) withStores(cmd *cobra.Command, insecure []string, do func(ctx context.Context, open openStore, options func(*catalog.Keys) catalog.Options) error) error {
	root, _ := cmd.Flags().GetString("root")
	engine, err := build.Open(cmd.Context(), build.Config{
		Root: root, Idle: true, Registries: e.settings.registries, InsecureRegistries: insecure, Version: Version(), Warnings: e.err,
	})
	if err != nil {
		return err
	}
	defer engine.Close()
	remotes := engine.Remotes()
	defer remotes.Close()
	open := func(_ context.Context, ref cacheref.Ref) (remote.Store, error) { return remotes.Open(ref) }
	return do(cmd.Context(), open, remotes.Options)
}

func duCommand(e *env) *cobra.Command {
	var asJSON, verbose bool
	cmd := &cobra.Command{
		Use:   "du",
		Short: "Show what the local root holds",
		Args:  exactArgs(0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return e.withEngine(cmd, func(ctx context.Context, engine *build.Engine) error {
				uses, err := engine.Usage(ctx)
				if err != nil {
					return err
				}
				if asJSON {
					return printJSON(e.out, append([]build.Use{}, uses...))
				}
				return printUsage(e, uses, verbose)
			})
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "Print a JSON list of {kind, name, size (bytes), last_used, in_use}")
	cmd.Flags().BoolVarP(&verbose, "verbose", "v", false, "Print a line for each thing, the least recently used first")
	return cmd
}

func printUsage(e *env, uses []build.Use, verbose bool) error {
	w := tabwriter.NewWriter(e.out, 0, 8, 2, ' ', 0)
	if verbose {
		fmt.Fprintln(w, "KIND\tNAME\tSIZE\tLAST USED")
		for _, u := range uses {
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", u.Kind, u.Name, size(u.Size), ago(u.Used, u.InUse))
		}
		fmt.Fprintln(w)
	}
	type sum struct {
		count int
		bytes int64
	}
	sums := map[string]*sum{}
	var total int64
	for _, u := range uses {
		s := sums[u.Kind]
		if s == nil {
			s = new(sum)
			sums[u.Kind] = s
		}
		s.count++
		s.bytes += u.Size
		total += u.Size
	}
	fmt.Fprintln(w, "KIND\tCOUNT\tSIZE")
	for _, kind := range []string{"layer", "cache mount", "image", "blob", "tree", "record", "ledger", "build"} {
		if s := sums[kind]; s != nil {
			fmt.Fprintf(w, "%s\t%d\t%s\n", kind, s.count, size(s.bytes))
		}
	}
	fmt.Fprintf(w, "total\t%d\t%s\n", len(uses), size(total))
	return w.Flush()
}

func size(bytes int64) string {
	return units.CustomSize("%.3g %s", float64(bytes), 1000, []string{"B", "kB", "MB", "GB", "TB"})
}

func ago(t time.Time, inUse bool) string {
	if inUse {
		return "in use"
	}
	return units.HumanDuration(time.Since(t)) + " ago"
}

func pruneCommand(e *env, stores withStores) *cobra.Command {
	var f remoteFlags
	var all bool
	var unused time.Duration
	var maxSize string
	cmd := &cobra.Command{
		Use:   "prune",
		Short: "Remove what was not used for long",
		Long: "Remove what was not used for long from the local root, or with --cache from a remote cache. What a running build uses\n" +
			"stays. Without --all, --unused and --max-size, what was not used for a week goes, from a remote cache what was not used\n" +
			"for thirty days. A remote cache notes a use about once a week only: a shorter --unused takes out what is in use, too.",
		Args: exactArgs(0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if unused < 0 {
				return usage("--unused %s: how long something has not been used cannot be negative", unused)
			}
			if isRemote, err := f.prunes(cmd); err != nil {
				return err
			} else if isRemote {
				return f.with(e, stores, cmd, func(ctx context.Context, r *remoteCache) error {
					age := remoteUnused
					if cmd.Flags().Changed("unused") {
						age = unused
					}
					if all {
						age = 0
					}
					return r.prune(ctx, age)
				})
			}
			given := cmd.Flags().Changed("unused")
			return e.withEngine(cmd, func(ctx context.Context, engine *build.Engine) error {
				p := build.Prune{Unused: unused, MaxSize: -1}
				if all {
					p.Unused = 0
				}
				if maxSize != "" {
					n, err := units.FromHumanSize(maxSize)
					if err != nil || n < 0 {
						return usage("--max-size %s: a size such as 10GB is expected", maxSize)
					}
					p.MaxSize = n
					if !given {
						p.Unused = 0
					}
				}
				freed, err := engine.Prune(ctx, p, time.Now())
				if err != nil {
					return err
				}
				_, err = fmt.Fprintf(e.out, "Removed %d things, %s\n", freed.Things, size(freed.Bytes))
				return err
			})
		},
	}
	f.registerPrune(cmd.Flags())
	cmd.Flags().BoolVar(&all, "all", false, "Remove everything that no running build uses; with --cache the catalogs of all scopes, or of one")
	cmd.Flags().SetAnnotation("all", commandLineOnly, []string{"true"})
	cmd.Flags().DurationVar(&unused, "unused", 7*24*time.Hour, "Remove what was not used for this long")
	cmd.Flags().StringVar(&maxSize, "max-size", "", "Remove the least recently used until no more than this is left, such as 10GB; not with --cache")
	return cmd
}

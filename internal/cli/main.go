// Package cli is the command line (DESIGN section 8): commands, flags, settings, exit codes. It is the only place that
// chooses implementations of the interfaces that lower rooms declare.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"larder/internal/export"
	"larder/internal/fault"
)

// env is what a command sees of the world.
type env struct {
	in       io.Reader
	out      io.Writer
	err      *os.File
	settings *settings
	signals  *interrupts
}

// Main runs one command and gives the exit code of the process.
func Main(args []string, in io.Reader, out io.Writer, stderr *os.File) int {
	export.TakeUmask(0o022)
	ctx, signals, stop := interruptible()
	defer stop()
	e := &env{in: in, out: out, err: stderr, signals: signals}
	root := newRoot(e)
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	var ended *exitStatus
	if errors.As(err, &ended) && ctx.Err() == nil {
		if ended.err != nil {
			printError(stderr, ended.err)
		}
		return ended.code
	}
	kind := fault.Of(err)
	if errors.Is(context.Cause(ctx), errInterrupted) {
		kind = fault.Interrupted
		err = errInterrupted
	}
	printError(stderr, err)
	return int(kind)
}

func newRoot(e *env) *cobra.Command {
	root := &cobra.Command{
		Use:           "larder",
		Short:         "Build container images on machines that remember nothing, as fast as on one that remembers everything",
		SilenceErrors: true,
		SilenceUsage:  true,
		PersistentPreRunE: func(*cobra.Command, []string) error {
			var err error
			e.settings, err = loadSettings(os.Getenv)
			return err
		},
	}
	root.PersistentFlags().String("root", "", "Directory of the local root (default /var/lib/larder for root, $XDG_DATA_HOME/larder else)")
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return fault.Errorf(fault.Usage, "%w\nSee '%s --help'.", err, cmd.CommandPath())
	})
	root.AddCommand(buildCommand(e), runCommand(e), explainCommand(e, e.withPast), cacheCommand(e), versionCommand(e))
	root.CompletionOptions.HiddenDefaultCmd = true
	root.Args = func(cmd *cobra.Command, args []string) error {
		if len(args) > 0 {
			return fault.Errorf(fault.Usage, "unknown command %q\nSee 'larder --help'.", args[0])
		}
		return nil
	}
	root.RunE = func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
	root.SetOut(e.out)
	root.SetErr(e.err)
	return root
}

// exactArgs checks the number of arguments.
func exactArgs(n int, what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) == n {
			return nil
		}
		return fault.Errorf(fault.Usage, "%s takes %s, not %d arguments\nSee '%s --help'.", cmd.CommandPath(), what, len(args), cmd.CommandPath())
	}
}

func versionCommand(e *env) *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  exactArgs(0, "no arguments"),
		RunE: func(*cobra.Command, []string) error {
			_, err := fmt.Fprintln(e.out, "larder", Version())
			return err
		},
	}
}

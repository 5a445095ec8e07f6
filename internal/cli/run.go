package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"larder/internal/build"
	"larder/internal/fault"
)

// exitStatus is how a command in a container ended; err, where it is set, says more.
type exitStatus struct {
	code int
	err  error
}

func (e *exitStatus) Error() string { return fmt.Sprintf("exit code: %d", e.code) }
func (e *exitStatus) Unwrap() error { return e.err }

// runFlags are the flags of larder run beside those of a build.
type runFlags struct {
	build                 buildFlags
	env, mounts, volumes  []string
	results               []string
	workdir, user, net    string
	interactive, terminal bool // pass standard input on; never make a terminal
}

// sharedFlags are flags about RUN steps that count for the command too.
var sharedFlags = []string{"add-host", "ulimit", "shm-size", "cgroup-parent", "host-ca"}

// imageFlags are flags of a build that are about an image, or about something else than building: larder run makes no image.
var imageFlags = []string{
	"tag", "push", "load", "label", "annotation", "iidfile", "metadata-file", "check", "call", "cache-verify",
}

func runCommand(e *env) *cobra.Command {
	f := new(runFlags)
	cmd := &cobra.Command{
		Use:   "run [flags] PATH -- COMMAND...",
		Short: "Run a command in a target's file system, with its cache mounts",
		Long: "Build the target of the Dockerfile in PATH, export nothing, and run COMMAND in its file system: tests, linters, tools.\n\n" +
			"COMMAND sees the cache mounts that the target's RUN instructions declare, in their places, and the build's secrets in\n" +
			"/run/secrets, which root may read; --mount type=secret,id=NAME,uid=UID is for others. What it writes into a cache mount\n" +
			"is saved as what a RUN writes there is, unless a signal ended it. What it writes elsewhere goes with it, but for volumes\n" +
			"and what --output copies. It has the image's environment, user and working directory, but it is not put behind the\n" +
			"image's ENTRYPOINT, and there is no shell but one that it names: -- sh -c 'a && b'.\n\n" +
			"Where standard input and output are terminals it gets one. Otherwise it has no standard input, unless -i gives it larder's.\n" +
			"^C, SIGTERM, SIGHUP and SIGQUIT are passed on to it; the third ^C kills it, and ends larder. larder's exit code is that of\n" +
			"COMMAND: 126 where it cannot be run, 127 where there is none of this name; 130 where larder was interrupted, which one ^C\n" +
			"does before COMMAND runs and after it, while results are copied and saved.\n\n" +
			"The flags of larder build are those of the build. Those about what RUN steps see and may have (--secret, --add-host,\n" +
			"--ulimit, --shm-size, --cgroup-parent, --host-ca) count for COMMAND too.",
		Example: "  larder run --target build . -- go test ./...\n" +
			"  larder run --target test --output reports:/src/reports . -- npm test",
		Args: func(cmd *cobra.Command, args []string) error {
			dash := cmd.ArgsLenAtDash()
			if dash == 1 && len(args) > 1 {
				return nil
			}
			what := "the command is missing"
			if dash > 1 || dash < 0 && len(args) > 1 {
				what = "the command stands behind --"
			} else if dash == 0 || len(args) == 0 {
				what = "the build context is missing"
			}
			return usage("%s: larder run [flags] PATH -- COMMAND...\nSee 'larder run --help'.", what)
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := f.fromBuild(e, cmd); err != nil {
				return err
			}
			if err := e.projectSettings(cmd, args[0]); err != nil {
				return err
			}
			return f.run(cmd.Context(), e, cmd, args[0], args[1:])
		},
	}
	f.register(cmd.Flags())
	return cmd
}

func (f *runFlags) register(fl *pflag.FlagSet) {
	fl.SortFlags = false
	fl.StringArrayVarP(&f.env, "env", "e", nil, "Variable of the command, NAME=VALUE; NAME alone takes the variable's")
	fl.StringVarP(&f.workdir, "workdir", "w", "", "Working directory of the command (default the image's)")
	fl.StringVarP(&f.user, "user", "u", "", "User that the command runs as, NAME|UID[:GROUP|GID] (default the image's)")
	fl.StringArrayVarP(&f.volumes, "volume", "v", nil, "Directory or file of this machine for the command, SOURCE:TARGET[:ro]")
	fl.StringArrayVar(&f.mounts, "mount", nil, "Mount for the command, type=cache|bind|tmpfs|secret,target=PATH[,source=PATH][,id=NAME][,...]")
	fl.StringArrayVarP(&f.results, "output", "o", nil, "Copy a result out when the command has ended, DIR:PATH: PATH is the container's, DIR this machine's")
	fl.StringVar(&f.net, "network", "default", "Network of the command: default, host or none; --build-network is about RUN steps")
	fl.BoolVarP(&f.interactive, "interactive", "i", false, "Pass standard input on to the command where it is no terminal")
	fl.BoolVarP(&f.terminal, "no-tty", "T", false, "Give the command no terminal")

	building := pflag.NewFlagSet("", pflag.ContinueOnError)
	building.SortFlags = false
	f.build.register(building)
	building.VisitAll(func(b *pflag.Flag) {
		switch {
		case fl.Lookup(b.Name) != nil:
			return
		case slices.Contains(imageFlags, b.Name):
			b.Hidden = true
			ownOnly(b)
		case b.Name == "quiet":
			b.Usage = "Show nothing of the build"
		case b.Name == "secret":
			b.Usage = "Secret for RUN --mount=type=secret and, in /run/secrets, for the command, id=NAME[,src=FILE|,env=VARIABLE]"
		case slices.Contains(sharedFlags, b.Name):
			b.Usage = strings.Replace(b.Usage, "RUN steps", "RUN steps and the command", 1)
		}
		fl.AddFlag(b)
	})
	fl.StringVar(&f.build.network, "build-network", "default", "Network of RUN steps: default, host or none")
	// They mean something else here than in a build, whose settings are not for them.
	ownOnly(fl.Lookup("output"))
	ownOnly(fl.Lookup("network"))
}

// ownOnly keeps variables and settings files from a flag.
func ownOnly(f *pflag.Flag) { f.Annotations = map[string][]string{commandLineOnly: {}} }

// fromBuild refuses what makes no sense without an image, and takes the network of RUN steps from the settings of builds.
func (f *runFlags) fromBuild(e *env, cmd *cobra.Command) error {
	for _, name := range imageFlags {
		if cmd.Flags().Changed(name) {
			return usage("--%s: larder run makes no image and checks none; give it to larder build", name)
		}
	}
	if cmd.Flags().Changed("build-network") {
		return nil
	}
	settings := pflag.NewFlagSet("", pflag.ContinueOnError)
	settings.StringVar(&f.build.network, "network", "default", "")
	return e.settings.fill(settings, lookupEnv)
}

func (f *runFlags) run(ctx context.Context, e *env, cmd *cobra.Command, dir string, args []string) error {
	c, err := f.command(args)
	if err != nil {
		return err
	}
	if f.build.file == "-" && f.interactive {
		return usage("-f - and -i both want standard input")
	}
	req, err := f.build.checked(e, cmd, dir)
	if err != nil {
		return err
	}
	if len(req.Platforms) > 1 {
		return usage("--platform: a command runs on one platform, not on %d", len(req.Platforms))
	}
	for _, m := range c.Mounts {
		if _, ok := req.Secrets[m.ID]; m.Type == "secret" && !ok {
			return usage("--mount type=secret,id=%s: give the secret with --secret id=%s,src=FILE", m.ID, m.ID)
		}
	}
	con, err := f.console(e, c)
	if err != nil {
		return err
	}
	defer con.close()
	engine, err := f.build.engine(ctx, e, cmd, req)
	if err != nil {
		return err
	}
	defer engine.Close()
	target, err := withDisplay(e, &f.build, func(s *stream) (*build.Target, error) { return engine.Target(ctx, req, c, s) })
	if err != nil {
		return err
	}
	defer target.Close()
	code, err := f.attended(ctx, e, con, target)
	if err == nil {
		err = target.Results(ctx)
	}
	if ctx.Err() != nil {
		return cmp.Or(err, context.Cause(ctx))
	}
	saved := f.save(ctx, e, target)
	switch {
	case ctx.Err() != nil:
		return cmp.Or(saved, context.Cause(ctx))
	case code == 0:
		return errors.Join(err, saved)
	case saved != nil:
		printError(e.err, saved) // the command's own exit code tells more
	}
	return &exitStatus{code, err}
}

// errClosed ends a command whose output nobody reads any more.
var errClosed = errors.New("nobody reads standard output any more")

// attended runs the command with the signals and the terminal handed over to it; what comes after is larder's own again.
func (f *runFlags) attended(ctx context.Context, e *env, con *console, target *build.Target) (int, error) {
	running, end := context.WithCancelCause(ctx)
	defer end(nil)
	// Without this a pipe that is closed would end larder, and not the command.
	broken := make(chan os.Signal, 1)
	signal.Notify(broken, syscall.SIGPIPE)
	defer signal.Stop(broken)
	if err := con.begin(func() { end(errClosed) }); err != nil {
		return 0, err
	}
	defer con.restore()
	defer e.signals.handOver(con.signals, con.restore)()
	code, err := target.Run(running)
	if errors.Is(err, errClosed) {
		return 128 + int(syscall.SIGPIPE), nil
	}
	return code, err
}

// save ends the use of the cache mounts. Where something is sent somewhere, that is shown.
func (f *runFlags) save(ctx context.Context, e *env, target *build.Target) error {
	shown := f.build
	if !target.Writes() {
		shown.progress = "quiet"
	}
	_, err := withDisplay(e, &shown, func(s *stream) (struct{}, error) { return struct{}{}, target.Save(ctx, s) })
	return err
}

// command makes what is run of the flags.
func (f *runFlags) command(args []string) (*build.Command, error) {
	c := &build.Command{Args: args, Dir: f.workdir, User: f.user}
	if args[0] == "" {
		return nil, usage("the command is empty")
	}
	switch f.net {
	case "", "default", "host": // RUN steps and commands share this machine's network
	case "none":
		c.NoNetwork = true
	default:
		return nil, usage("--network %s: only default, host and none are known", f.net)
	}
	for _, v := range f.env {
		name, _, ok := strings.Cut(v, "=")
		if name == "" {
			return nil, usage("--env %s: a name is missing, NAME=VALUE is expected", v)
		}
		if !ok {
			value, set := os.LookupEnv(name)
			if !set {
				continue // as docker does
			}
			v += "=" + value
		}
		c.Env = append(c.Env, v)
	}
	for _, v := range f.volumes {
		m, err := parseVolume(v)
		if err != nil {
			return nil, fault.Errorf(fault.Usage, "--volume %s: %w", v, err)
		}
		c.Mounts = append(c.Mounts, m)
	}
	for _, v := range f.mounts {
		m, err := parseMount(v)
		if err != nil {
			return nil, fault.Errorf(fault.Usage, "--mount %s: %w", v, err)
		}
		c.Mounts = append(c.Mounts, m)
	}
	for _, v := range f.results {
		r, err := parseResult(v)
		if err != nil {
			return nil, fault.Errorf(fault.Usage, "--output %s: %w", v, err)
		}
		c.Results = append(c.Results, r)
	}
	return c, nil
}

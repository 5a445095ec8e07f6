package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"larder/internal/build"
	"larder/internal/export"
	"larder/internal/fault"
	"larder/internal/progress"
	"larder/internal/runstep"
)

// buildFlags are the flags of larder build as the command line has them. buildRequest turns them into a request.
type buildFlags struct {
	file, target, network, cgroupParent, shmSize    string
	iidFile, metadataFile, progress, runtime        string
	observe                                         string
	provenance, sbom, call                          string
	tags, args, labels, annotations, contexts       []string
	platforms, outputs, secrets, addHosts, ulimits  []string
	noCacheFilter, allow, insecureRegistries        []string
	noCache, pull, push, load, quiet, check, hostCA bool
	parallel                                        int
	ssh                                             string
	attest                                          []string
	remote                                          cacheFlags
	mounts                                          mountFlags
}

func buildCommand(e *env) *cobra.Command {
	f := new(buildFlags)
	cmd := &cobra.Command{
		Use:   "build [flags] PATH",
		Short: "Build an image from a Dockerfile",
		Long: "Build an image from the Dockerfile in PATH, a directory that is the build context.\n\n" +
			"The flags are those of docker buildx build. Each can be set by a variable, LARDER_ and its name in capitals\n" +
			"(a list has one item per line), by larder.yaml in PATH, or in [larder] of the settings file.",
		Args: exactArgs(1, "the build context"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := e.projectSettings(cmd, args[0]); err != nil {
				return err
			}
			return runBuild(cmd.Context(), e, cmd, f, args[0])
		},
	}
	cmd.Flags().SortFlags = false
	f.register(cmd.Flags())
	return cmd
}

func (f *buildFlags) register(fl *pflag.FlagSet) {
	fl.StringVarP(&f.file, "file", "f", "", "Name of the Dockerfile (default PATH/Dockerfile); - reads it from standard input")
	fl.StringArrayVarP(&f.tags, "tag", "t", nil, "Name of the image, [registry/]repository[:tag]")
	fl.StringVar(&f.target, "target", "", "Stage to build")
	fl.StringArrayVar(&f.args, "build-arg", nil, "Value of an ARG, NAME=VALUE; NAME alone takes the variable's")
	fl.StringArrayVar(&f.contexts, "build-context", nil, "Named context, NAME=PATH, NAME=docker-image://REF or NAME=oci-layout://DIR[:TAG|@DIGEST]")
	fl.StringArrayVar(&f.secrets, "secret", nil, "Secret for RUN --mount=type=secret, id=NAME[,src=FILE|,env=VARIABLE]")
	fl.StringArrayVar(&f.platforms, "platform", nil, "Platform to build for, such as linux/amd64")
	fl.BoolVar(&f.push, "push", false, "Push the image: short for --output=type=registry")
	fl.BoolVar(&f.load, "load", false, "Load the image into a Docker engine: short for --output=type=docker")
	fl.StringArrayVarP(&f.outputs, "output", "o", nil, "Where the result goes: type=registry|image|oci|docker|local|tar[,dest=PATH][,name=REF][,...], or a directory")
	fl.StringArrayVar(&f.labels, "label", nil, "Label of the image, NAME=VALUE")
	fl.StringArrayVar(&f.annotations, "annotation", nil, "Annotation of the image, [manifest:|index:|manifest-descriptor:|index-descriptor:]NAME=VALUE")
	fl.BoolVar(&f.noCache, "no-cache", false, "Do every step again")
	fl.StringArrayVar(&f.noCacheFilter, "no-cache-filter", nil, "Do the steps of these stages again")
	fl.BoolVar(&f.pull, "pull", false, "Ask the registry for every image (larder always asks for what a tag means today)")
	fl.StringVar(&f.network, "network", "default", "Network of RUN steps: default, host or none")
	fl.StringArrayVar(&f.addHosts, "add-host", nil, "Name for an address in RUN steps, NAME:IP")
	fl.StringArrayVar(&f.ulimits, "ulimit", nil, "Limit of RUN steps, NAME=SOFT[:HARD]")
	fl.StringVar(&f.shmSize, "shm-size", "", "Size of /dev/shm in RUN steps, such as 128m")
	fl.StringVar(&f.cgroupParent, "cgroup-parent", "", "Parent cgroup of RUN steps")
	fl.StringArrayVar(&f.allow, "allow", nil, "Allow what is dangerous: network.host, security.insecure")
	fl.StringVar(&f.iidFile, "iidfile", "", "Write the image's ID to this file")
	fl.StringVar(&f.metadataFile, "metadata-file", "", "Write what was built to this file, as JSON")
	fl.StringVar(&f.progress, "progress", "auto", "Display: auto, plain, tty, quiet, none or rawjson")
	fl.BoolVarP(&f.quiet, "quiet", "q", false, "Print the image's ID only")
	fl.BoolVar(&f.check, "check", false, "Check the Dockerfile and build nothing: short for --call=check")
	fl.StringVar(&f.call, "call", "build", "What to do with the Dockerfile: build, check, outline or targets")
	fl.StringVar(&f.runtime, "runtime", "", "Container runtime: runc, crun or the path of one (default: the first of these that works)")
	fl.StringVar(&f.observe, "observe", "auto", "Whether the inputs of RUN steps are observed: auto, copy (every read goes through larder) or off (any change of an input counts)")
	fl.BoolVar(&f.hostCA, "host-ca", false, "Show this machine's certificate authorities to RUN steps, without leaving them in the image")
	fl.StringArrayVar(&f.insecureRegistries, "insecure-registry", nil, "Registry (HOST[:PORT]) to speak to without checking certificates, or in plain HTTP")
	fl.IntVar(&f.parallel, "parallel", 0, "RUN steps at once (default: twice the number of CPUs, at least 4)")

	f.remote.register(fl)
	f.mounts.register(fl)

	// Known to buildx, and to come: to name them is an error that says so, see unready.
	fl.StringVar(&f.ssh, "ssh", "", "")
	fl.StringArrayVar(&f.attest, "attest", nil, "")
	fl.StringVar(&f.sbom, "sbom", "", "")
	fl.StringVar(&f.provenance, "provenance", "", "")
	for _, name := range unready {
		fl.MarkHidden(name)
	}
}

// unready lists flags of docker buildx build that this version refuses.
var unready = []string{"ssh", "attest", "sbom", "provenance"}

func refuseUnready(cmd *cobra.Command) error {
	for _, name := range unready {
		fl := cmd.Flags().Lookup(name)
		if !fl.Changed || (name == "provenance" || name == "sbom") && fl.Value.String() == "false" {
			continue
		}
		return fault.Errorf(fault.Usage, "--%s: this version of larder cannot do that yet; leave the flag out", name)
	}
	return nil
}

// projectSettings adds larder.yaml of the context to the settings and fills the flags.
func (e *env) projectSettings(cmd *cobra.Command, dir string) error {
	if st, err := os.Stat(dir); err == nil && st.IsDir() {
		if err := e.settings.addProject(dir); err != nil {
			return err
		}
	}
	if err := e.settings.check(func(name string) bool { return knownFlag(cmd.Root(), name) }); err != nil {
		return err
	}
	return e.settings.fill(cmd.Flags(), lookupEnv)
}

// context checks PATH.
func contextDir(arg string) (string, error) {
	switch {
	case arg == "-":
		return "", fault.Errorf(fault.Usage, "a context from standard input is not possible in this version; unpack it and name the directory")
	case strings.Contains(arg, "://"), strings.HasPrefix(arg, "git@"), strings.HasPrefix(arg, "github.com/"):
		return "", fault.Errorf(fault.Usage, "%s: a context from a URL is not possible in this version; clone it and name the directory", arg)
	}
	st, err := os.Stat(arg)
	if err != nil {
		return "", fault.Errorf(fault.Usage, "build context: %w", err)
	}
	if !st.IsDir() {
		return "", fault.Errorf(fault.Usage, "build context %s is no directory", arg)
	}
	return filepath.Abs(arg)
}

func runBuild(ctx context.Context, e *env, cmd *cobra.Command, f *buildFlags, arg string) error {
	req, err := f.checked(e, cmd, arg)
	if err != nil {
		return err
	}
	for _, path := range []string{f.iidFile, f.metadataFile} {
		// What an earlier build wrote must not be taken for this one's.
		if err := os.Remove(path); path != "" && err != nil && !errors.Is(err, os.ErrNotExist) {
			return fault.New(fault.Usage, err)
		}
	}
	engine, err := f.engine(ctx, e, cmd, req)
	if err != nil {
		return err
	}
	defer engine.Close()
	res, err := withDisplay(e, f, func(s *stream) (*build.Result, error) { return engine.Build(ctx, req, s) })
	if err != nil {
		return err
	}
	return f.finish(e, res)
}

// checked makes a request of the flags, and finds what is wrong with it as far as that can be told before anything is opened or
// written.
func (f *buildFlags) checked(e *env, cmd *cobra.Command, arg string) (*build.Request, error) {
	if err := refuseUnready(cmd); err != nil {
		return nil, err
	}
	if err := f.remote.check(cmd.Flags()); err != nil {
		return nil, err
	}
	dir, err := contextDir(arg)
	if err != nil {
		return nil, err
	}
	req, err := f.request(dir, e.in, e.out)
	if err != nil {
		return nil, err
	}
	if err := req.Check(); err != nil {
		return nil, err
	}
	if !slices.Contains(progress.Modes, f.progress) {
		return nil, usage("--progress=%s: %s are known", f.progress, strings.Join(progress.Modes, ", "))
	}
	if _, ok := observes[f.observe]; !ok {
		return nil, usage("--observe=%s: auto, copy and off are known", f.observe)
	}
	return req, nil
}

// observes has what --observe may say.
var observes = map[string]runstep.Observe{"auto": runstep.Auto, "copy": runstep.Copy, "off": runstep.Off}

// engine opens the local root for a request.
func (f *buildFlags) engine(ctx context.Context, e *env, cmd *cobra.Command, req *build.Request) (*build.Engine, error) {
	root, _ := cmd.Flags().GetString("root")
	return build.Open(ctx, build.Config{
		Root: root, Checkout: req.Context, Runtime: f.runtime, HostCA: f.hostCA, Parallel: f.parallel, Observe: observes[f.observe],
		Insecure: req.Insecure, HostNetwork: req.HostNetwork,
		Registries: e.settings.registries, InsecureRegistries: f.insecureRegistries, Version: Version(), Warnings: e.err,
	})
}

// finish writes what the user asked to be told about a build.
func (f *buildFlags) finish(e *env, res *build.Result) error {
	if res.Text != "" {
		fmt.Fprint(e.out, res.Text)
	}
	if f.iidFile != "" && res.ID != "" {
		if err := export.WriteFile(f.iidFile, []byte(res.ID)); err != nil {
			return fmt.Errorf("--iidfile: %w", err)
		}
	}
	if f.metadataFile != "" {
		if err := export.WriteFile(f.metadataFile, res.MetadataJSON()); err != nil {
			return fmt.Errorf("--metadata-file: %w", err)
		}
	}
	if f.quiet && res.ID != "" {
		fmt.Fprintln(e.out, res.ID)
	}
	if err := differences(res); err != nil {
		return err
	}
	if res.Failed {
		return fault.Errorf(fault.Build, "the Dockerfile has warnings or errors, see above")
	}
	return nil
}

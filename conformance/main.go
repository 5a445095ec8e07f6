package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

type options struct {
	larder, buildkit, registry, corpus, work string
	run                                      *regexp.Regexp
	edits                                    int
	jobs                                     int
	all, once, keep, verbose, show           bool
}

func main() {
	var o options
	var run string
	flag.StringVar(&o.larder, "larder", "bin/larder", "the larder `binary`; empty compares BuildKit with itself")
	flag.StringVar(&o.buildkit, "buildkit", "bin/peers", "`directory` of buildkitd and buildctl")
	flag.StringVar(&o.registry, "registry", "", "`address` of a registry to take busybox:latest from; empty for the one that is made of this machine's static busybox")
	flag.StringVar(&o.corpus, "corpus", "conformance/testdata", "`directory` of the cases")
	flag.StringVar(&o.work, "work", "", "`directory` to work in; empty for a temporary one")
	flag.StringVar(&run, "run", "", "only cases whose name matches this `regexp`")
	flag.IntVar(&o.jobs, "j", 2, "cases at once")
	flag.IntVar(&o.edits, "edits", 0, "after that, edit so many files of each context in turn, build with --cache-verify, and look for wrong hits")
	flag.BoolVar(&o.all, "all", false, "also cases that wait for a later issue")
	flag.BoolVar(&o.once, "once", false, "build each case only once with larder, not again from its cache")
	flag.BoolVar(&o.keep, "keep", false, "keep the working directory")
	flag.BoolVar(&o.verbose, "v", false, "name each case, and show the output of builds that failed")
	flag.BoolVar(&o.show, "show", false, "print what BuildKit made of each case")
	flag.Parse()
	var err error
	if o.run, err = regexp.Compile(run); err != nil {
		fmt.Fprintln(os.Stderr, "conformance: -run:", err)
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	ok, err := compare(ctx, o, os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "conformance:", err)
		os.Exit(2)
	}
	if !ok {
		os.Exit(1)
	}
}

// compare runs the corpus and reports whether all counted cases agree and larder has left nothing mounted.
func compare(ctx context.Context, o options, out io.Writer) (ok bool, err error) {
	if os.Geteuid() != 0 {
		return false, errors.New("needs root: buildkitd's overlay worker, and device nodes in contexts")
	}
	cases, err := parseCases(o.corpus, o.run)
	if err != nil {
		return false, err
	}
	unix.Umask(0)
	if o.work == "" {
		if o.work, err = os.MkdirTemp("", "conformance-"); err != nil {
			return false, err
		}
	} else if o.work, err = filepath.Abs(o.work); err != nil {
		return false, err
	}
	if o.keep {
		fmt.Fprintln(out, "working in", o.work)
	} else {
		defer func() { err = errors.Join(err, cleanUp(o.work, out)) }()
	}
	if o.buildkit, err = filepath.Abs(o.buildkit); err != nil {
		return false, err
	}
	reg, err := baseRegistry(ctx, o.registry)
	if err != nil {
		return false, err
	}
	if err := reg.addSources(ctx, filepath.Join(o.work, "sources")); err != nil {
		return false, err
	}
	addr, err := reg.start()
	if err != nil {
		return false, err
	}
	defer reg.stop()
	d, err := startBuildkit(ctx, o.buildkit, filepath.Join(o.work, "buildkit"), addr)
	if err != nil {
		return false, err
	}
	defer d.stop()
	reference := buildkit{label: "BuildKit", buildctl: filepath.Join(o.buildkit, "buildctl"), addr: d.addr}
	var subject, empty builder
	if o.larder == "" {
		o.once = true
		for _, c := range cases {
			c.bug = ""
		}
		subject = buildkit{label: "BuildKit again", buildctl: reference.buildctl, addr: d.addr, noCache: true}
		empty = subject
	} else {
		path, err := filepath.Abs(o.larder)
		if err != nil {
			return false, err
		}
		if _, err := os.Stat(path); err != nil {
			return false, fmt.Errorf("%w (make build makes it; -larder names another)", err)
		}
		l := larder{path: path, root: filepath.Join(o.work, "larder")}
		subject = l
		l.empty = true
		empty = l
	}
	r := runner{o: o, out: out, registry: addr, reference: reference, subject: subject, empty: empty}
	if ok, err = r.run(ctx, cases); err != nil {
		return false, err
	}
	left, err := mountsBelow(filepath.Join(o.work, "larder"))
	if len(left) > 0 {
		fmt.Fprintf(out, "larder left mounted: %s\n", strings.Join(left, " "))
	}
	return ok && len(left) == 0, err
}

// baseRegistry holds the base images: busybox from the registry at addr if there is one, all others made here.
func baseRegistry(ctx context.Context, addr string) (*registry, error) {
	busybox, err := findBusybox()
	if err != nil {
		return nil, err
	}
	reg := newRegistry()
	if addr != "" {
		if err := reg.pull(ctx, addr, "busybox"); err != nil {
			return nil, fmt.Errorf("base image busybox: %w", err)
		}
	}
	return reg, reg.addBases(busybox)
}

package runtime

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"

	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/moby/buildkit/executor"
	"github.com/moby/buildkit/executor/oci"
	"github.com/moby/buildkit/executor/resources"
	"github.com/moby/buildkit/executor/runcexecutor"
	gatewaypb "github.com/moby/buildkit/frontend/gateway/pb"
	"github.com/moby/buildkit/solver/pb"
	"github.com/moby/buildkit/util/bklog"
	"github.com/moby/buildkit/util/network"
	"github.com/sirupsen/logrus"
)

// hostname is what a step sees unless it is told another; BuildKit's name, so that images come out the same.
const hostname = "buildkitsandbox"

// Options of an Executor.
type Options struct {
	// DNS replaces parts of the host's resolv.conf; nil leaves it as it is.
	DNS *oci.DNSConfig
}

// Executor runs containers of one process. It is safe for concurrent use.
type Executor struct {
	rt   Runtime
	dir  string
	hide bool // the runtime must not see cgroup v2
	exec executor.Executor

	mu        sync.Mutex
	terminals map[string]*terminal // of running containers that have one
}

// New makes an executor that keeps its files in dir, which it makes and which belongs to this process alone. Should the
// process die, Reap of that directory ends what it left running.
func New(rt Runtime, dir string, opts Options) (*Executor, error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("running a step needs root: run larder with sudo")
	}
	e := &Executor{rt: rt, dir: dir, hide: rt.Name == "crun" && hybrid()}
	for _, d := range []string{dir, e.root(), e.state()} {
		if err := os.MkdirAll(d, 0o711); err != nil {
			return nil, fmt.Errorf("container runtime: %w", err)
		}
	}
	real, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return nil, fmt.Errorf("container runtime: %w", err)
	}
	if e.dir, err = filepath.Abs(real); err != nil {
		return nil, err
	}
	if err := os.Symlink(rt.Path, e.link()); err != nil {
		return nil, fmt.Errorf("container runtime: %w", err)
	}
	mon, err := resources.NewMonitor()
	if err != nil {
		return nil, fmt.Errorf("container runtime: %w", err)
	}
	// A closed monitor samples nothing, and lets Run return after the container is deleted, not before.
	mon.Close()
	host := network.NewHostProvider()
	e.exec, err = runcexecutor.New(runcexecutor.Opt{
		Root:              e.root(),
		CommandCandidates: []string{e.link()},
		DNS:               opts.DNS,
		ResourceMonitor:   mon,
	}, map[pb.NetMode]network.Provider{
		pb.NetMode_UNSET: host,
		pb.NetMode_HOST:  host,
		pb.NetMode_NONE:  network.NewNoneProvider(),
	})
	if err != nil {
		return nil, fmt.Errorf("container runtime: %w", err)
	}
	hook.add(e)
	return e, nil
}

// Runtime tells which runtime is in use.
func (e *Executor) Runtime() Runtime { return e.rt }

func (e *Executor) link() string             { return filepath.Join(e.dir, e.rt.Name) }
func (e *Executor) root() string             { return filepath.Join(e.dir, "exec") }
func (e *Executor) state() string            { return filepath.Join(e.dir, "state") }
func (e *Executor) logFile(id string) string { return filepath.Join(e.dir, id+".log") }

// globalArgs are what the runtime gets before its subcommand.
func (e *Executor) globalArgs(id string) []string {
	args := []string{"--root", e.state()}
	if e.rt.Name == "crun" && !hasCgroup(id) {
		// A step that asked for no cgroup parent belongs into larder's own cgroup as well as into a new one, and runc's
		// way of always making one is most of what starting a container costs.
		args = append(args, "--cgroup-manager=disabled")
	}
	return args
}

// newID names a container, in letters and digits only as the executor demands. One that was given a cgroup parent is
// known by its last letter, so that every later command for it tells crun the same about cgroups.
func newID(cgroup bool) string {
	b := make([]byte, 8)
	rand.Read(b) // never fails
	id := "larder" + hex.EncodeToString(b)
	if cgroup {
		id += cgroupSuffix
	}
	return id
}

// cgroupName is the parent of the cgroups of one executor's containers. It is the executor's own, so that it can be
// removed without getting in the way of another larder that makes one at that moment.
func cgroupName(dir string) string {
	sum := sha256.Sum256([]byte(dir))
	return "larder" + hex.EncodeToString(sum[:5])
}

const cgroupSuffix = "g" // no hexadecimal digit

func hasCgroup(id string) bool { return strings.HasSuffix(id, cgroupSuffix) }

// Mount is a mount of the container beside its root, as the OCI spec has them.
type Mount struct {
	Dest    string
	Type    string // "bind", "tmpfs"
	Source  string
	Options []string
}

// Spec is one container.
type Spec struct {
	// Root is the mounted root file system. It is written to even with ReadOnly: mount points are made there, and
	// removed again.
	Root     string
	ReadOnly bool
	// Mounts are made in this order.
	Mounts []Mount

	Args         []string
	Env          []string
	Cwd          string // made if missing
	User         string // name or number, with or without a group
	Hostname     string // empty for the usual one
	ExtraHosts   []*pb.HostIP
	Ulimits      []*pb.Ulimit
	CgroupParent string
	// Network UNSET and HOST are the host's, NONE has a loopback device only.
	Network  pb.NetMode
	Security pb.SecurityMode
	// ValidExitCodes are those that are no error; empty for 0 alone.
	ValidExitCodes []int
	// RemoveStubs takes away parents too that were made for mount points.
	RemoveStubs bool

	// Stdin may be nil. Run closes it, perhaps more than once, and that has to end a Read. Stdout and Stderr get the output
	// as it comes; with Tty all of it goes to Stdout.
	Stdin          io.ReadCloser
	Stdout, Stderr io.Writer
	Tty            bool
	// Resize brings sizes for the terminal; one that waits there already is the first.
	Resize <-chan executor.WinSize
	// Signal brings signals for the command. One that it has no handler for ends it, as it would end any other process,
	// with the exit code of a shell: 128 and the signal's number.
	Signal <-chan syscall.Signal
}

// ExitError is a command's own failure.
type ExitError struct {
	Code int
}

func (e *ExitError) Error() string {
	if e.Code == 137 {
		return "exit code: 137 (killed; running out of memory is the usual reason)"
	}
	return fmt.Sprintf("exit code: %d", e.Code)
}

// StartError says that the runtime could not start the command.
type StartError struct {
	Runtime string
	Reason  string
}

func (e *StartError) Error() string { return e.Runtime + ": " + e.Reason }

// Run runs a container to its end, and returns when nothing of it is left. The error is an *ExitError when the command
// failed, a *StartError when it could not be started, and ctx's cause after a cancellation, which kills it.
func (e *Executor) Run(ctx context.Context, spec Spec) error {
	if err := ctx.Err(); err != nil {
		return context.Cause(ctx)
	}
	if spec.Stdin != nil {
		defer spec.Stdin.Close()
	}
	id := newID(spec.CgroupParent != "")
	if e.rt.Name == "crun" {
		if err := makeMountPoints(spec); err != nil {
			return err
		}
		spec.Env = withHome(spec)
	}
	info := executor.ProcessInfo{
		Meta: executor.Meta{
			Args: spec.Args, Env: spec.Env, Cwd: spec.Cwd, User: spec.User,
			Hostname: spec.Hostname, ReadonlyRootFS: spec.ReadOnly,
			Ulimit: spec.Ulimits, CgroupParent: spec.CgroupParent, SecurityMode: spec.Security,
			NetMode: spec.Network, Tty: spec.Tty, ValidExitCodes: spec.ValidExitCodes,
			RemoveMountStubsRecursive: spec.RemoveStubs,
		},
		Stdin: spec.Stdin, Stdout: sink(spec.Stdout), Stderr: sink(spec.Stderr),
	}
	meta := &info.Meta
	if meta.Hostname == "" {
		meta.Hostname = hostname
	}
	if meta.NetMode == pb.NetMode_UNSET {
		meta.NetMode = pb.NetMode_HOST // decides which resolv.conf is right, too
	}
	for _, h := range spec.ExtraHosts {
		ip := net.ParseIP(h.IP)
		if ip == nil {
			return fmt.Errorf("extra host %s: %q is no IP address", h.Host, h.IP)
		}
		meta.ExtraHosts = append(meta.ExtraHosts, executor.HostIP{Host: h.Host, IP: ip})
	}
	ctx = namespaces.WithNamespace(quiet(ctx), cgroupName(e.dir)) // which names the cgroup
	var mounts []executor.Mount
	for _, m := range spec.Mounts {
		mounts = append(mounts, executor.Mount{Src: m.mountable(), Dest: m.Dest})
	}
	root := executor.Mount{Src: Mount{Type: "bind", Source: spec.Root, Options: []string{"rbind"}}.mountable()}

	log := e.logFile(id)
	defer os.Remove(log)
	during, ended := context.WithCancel(ctx)
	defer ended()
	var term *terminal
	if spec.Tty {
		var err error
		if term, err = openTerminal(spec.Resize); err != nil {
			return err
		}
		term.inner = e.rt.Name == "crun"
		e.setTerminal(id, term)
		defer e.setTerminal(id, nil)
		term.connect(spec.Stdin, spec.Stdout)
		info.Stdin, info.Stdout, info.Stderr = nil, nil, nil
		info.Signal = term.resizes(during, spec.Resize)
	}
	signals := e.passSignals(during, id, spec.Signal)
	_, err := e.exec.Run(ctx, id, root, mounts, info, nil)
	fatal := signals.finish()
	if term != nil {
		term.finish()
	}
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	var exit *gatewaypb.ExitError
	if !errors.As(err, &exit) {
		return fmt.Errorf("start the container: %w", err)
	}
	if fatal != 0 {
		return &ExitError{Code: 128 + int(fatal)}
	}
	if reason := loggedError(log); reason != "" {
		return &StartError{Runtime: e.rt.Name, Reason: reason}
	}
	return &ExitError{Code: int(exit.ExitCode)}
}

// setTerminal says which terminal a container's runtime gets.
func (e *Executor) setTerminal(id string, t *terminal) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if t == nil {
		delete(e.terminals, id)
		return
	}
	if e.terminals == nil {
		e.terminals = map[string]*terminal{}
	}
	e.terminals[id] = t
}

func (e *Executor) terminal(id string) *terminal {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.terminals[id]
}

// Close removes what the executor keeps outside of its directory. No container may be running.
func (e *Executor) Close() error {
	hook.remove(e)
	return removeCgroups(cgroupName(e.dir))
}

// quiet keeps the executor's log lines off the terminal.
func quiet(ctx context.Context) context.Context {
	l := logrus.New()
	l.SetOutput(io.Discard)
	l.SetLevel(logrus.PanicLevel)
	return bklog.WithLogger(ctx, logrus.NewEntry(l))
}

type nopCloser struct{ io.Writer }

func (nopCloser) Close() error { return nil }

func sink(w io.Writer) io.WriteCloser {
	if w == nil {
		w = io.Discard
	}
	return nopCloser{w}
}

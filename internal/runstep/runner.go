package runstep

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"

	"github.com/moby/buildkit/solver/pb"

	"larder/internal/cachemount"
	"larder/internal/fault"
	"larder/internal/layer"
	"larder/internal/runtime"
	"larder/internal/snapshot"
	"larder/internal/treefs"
)

// Options of a Runner.
type Options struct {
	// Runtime is "runc", "crun", a path to one of them, or empty for what is there.
	Runtime string
	// RuntimeOptions go to the runtime's executor.
	RuntimeOptions runtime.Options
	// HostCA is a file of CA certificates on this machine that steps shall trust, see hostca.go. Empty for none.
	HostCA string
	// AllowInsecure admits steps with --security=insecure, AllowHostNetwork those with --network=host.
	AllowInsecure, AllowHostNetwork bool
	// Observe says whether the inputs of RUN steps are observed. Those of commands that are run for their own sake (Open) are not.
	Observe Observe
	// Execute runs a step's container in place of a Runtime, for tests that have thousands of steps to run. Nil for the Runtime.
	Execute func(ctx context.Context, spec runtime.Spec) error
}

// Runner runs steps. It is safe for concurrent use.
type Runner struct {
	snapshots *snapshot.Store
	caches    cachemount.Store
	opts      Options

	mu    sync.Mutex
	exec  *runtime.Executor
	blind string // why this machine cannot observe
}

// New makes a runner over the local stores. The runtime is looked for when the first step runs, so that a build that
// finds all its steps in the cache needs none.
func New(snapshots *snapshot.Store, caches cachemount.Store, opts Options) *Runner {
	return &Runner{snapshots: snapshots, caches: caches, opts: opts}
}

// Close ends the use of the runtime. No step may be running; the stores stay open.
func (r *Runner) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.exec == nil {
		return nil
	}
	return r.exec.Close()
}

func (r *Runner) executor(ctx context.Context) (*runtime.Executor, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.exec != nil {
		return r.exec, nil
	}
	rt, err := runtime.Find(ctx, r.opts.Runtime)
	if err != nil {
		return nil, err
	}
	exec, err := runtime.New(rt, r.snapshots.RuntimeDir(), r.opts.RuntimeOptions)
	if err != nil {
		return nil, fault.New(fault.Machine, err)
	}
	r.exec = exec
	return exec, nil
}

// Step is one RUN.
type Step struct {
	Op *pb.ExecOp
	// Inputs are the states that the op's mounts refer to by number; nil is the empty file system.
	Inputs []*layer.State
	// Stdout and Stderr get the output as it comes, from one goroutine each.
	Stdout, Stderr io.Writer
	// Platform is what the step runs on, as "linux/amd64".
	Platform string
	// Caches gives the step its cache mounts; nil for the Runner's own store.
	Caches cachemount.Store
	// Secrets gives a secret's value. An error that wraps ErrNoSecret says that there is none of this name.
	Secrets func(ctx context.Context, id string) ([]byte, error)
}

// ErrNoSecret is wrapped by Step.Secrets' errors for a secret that was not given to the build.
var ErrNoSecret = errors.New("no such secret")

// Result is what a step made.
type Result struct {
	// Outputs has one element for each output of the op, in order.
	Outputs []Output
	// Looks has what the step looked at, one element for each of Observed(Inputs(...)); none where it was not observed.
	Looks []Looks
	// Unobserved says why it was not, though there was something to observe.
	Unobserved string
}

// Output is one file system that a step hands on.
type Output struct {
	State *layer.State
	// Base is the input that Layers lie upon, -1 for the empty file system.
	Base int
	// Layers are new, the lowest first. None: the output is the input itself.
	Layers []*layer.Layer
}

// ProcessError is a step whose command failed.
type ProcessError struct {
	Args []string
	Err  error // a *runtime.ExitError or *runtime.StartError
}

func (e *ProcessError) Error() string {
	return fmt.Sprintf("process %q did not complete successfully: %v", strings.Join(e.Args, " "), e.Err)
}

func (e *ProcessError) Unwrap() error { return e.Err }

// Run runs a step. An error is a *ProcessError when the step's own command failed.
func (r *Runner) Run(ctx context.Context, step Step) (*Result, error) {
	op := step.Op
	if op == nil || op.Meta == nil || len(op.Meta.Args) == 0 {
		return nil, errors.New("a RUN step without a command")
	}
	if err := r.allowed(op); err != nil {
		return nil, err
	}
	execute := r.opts.Execute
	if execute == nil {
		exec, err := r.executor(ctx)
		if err != nil {
			return nil, err
		}
		execute = exec.Run
	}
	if observe, _ := r.observes(); observe {
		res, err := r.run(ctx, step, execute, true)
		if !errors.Is(err, treefs.ErrUnavailable) {
			return res, err
		}
		r.mu.Lock()
		r.blind = err.Error()
		r.mu.Unlock()
	}
	return r.run(ctx, step, execute, false)
}

func (r *Runner) run(ctx context.Context, step Step, execute func(context.Context, runtime.Spec) error, observe bool) (_ *Result, err error) {
	op := step.Op
	inputs, err := Inputs(ctx, op, step.Inputs)
	if err != nil {
		return nil, err
	}
	p := newPrepared(r, step)
	res := &Result{}
	if observed := len(Observed(inputs)) > 0; observed && observe {
		p.inputs = inputs
	} else if observed {
		_, res.Unobserved = r.observes()
	}
	for _, in := range inputs {
		for _, g := range in.Groups {
			if g.Why != "" {
				res.Unobserved = g.Why
			}
		}
	}
	defer func() {
		err = errors.Join(err, p.release(ended(ctx, err)))
	}()
	if err := p.mounts(ctx); err != nil {
		return nil, err
	}
	spec, err := p.spec(ctx)
	if err != nil {
		return nil, err
	}
	err = processError(op.Meta.Args, execute(ctx, spec))
	var shown error
	if res.Looks, shown = p.looked(ctx); shown != nil {
		return nil, shown // the command saw an error where a file was to be
	}
	if err != nil {
		return nil, err
	}
	res.Outputs, err = p.commit(ctx)
	return res, err
}

// ended tells whether a command came to its end by itself, so that what it left in cache mounts is worth saving: a test that fails has
// compiled just as well.
func ended(ctx context.Context, err error) bool {
	var exit *runtime.ExitError
	return ctx.Err() == nil && (err == nil || errors.Is(err, treefs.ErrUnavailable) || errors.As(err, &exit) && !Killed(exit.Code))
}

// Killed tells by its exit code whether a signal ended a command, which may have left half of something: 128 and the signal's number then.
// 128 itself, 255 and the like are what commands choose.
func Killed(code int) bool { return code > 128 && code <= 165 }

// processError tells a command's own failure from the machine's.
func processError(args []string, err error) error {
	var exit *runtime.ExitError
	var start *runtime.StartError
	if errors.As(err, &exit) || errors.As(err, &start) {
		return &ProcessError{Args: args, Err: err}
	}
	return err
}

// allowed checks what a step asks for against what this build and machine give.
func (r *Runner) allowed(op *pb.ExecOp) error {
	switch op.Security {
	case pb.SecurityMode_SANDBOX:
	case pb.SecurityMode_INSECURE:
		if !r.opts.AllowInsecure {
			return fault.Errorf(fault.Usage, "RUN --security=insecure is not allowed: add --allow security.insecure")
		}
	default:
		return fmt.Errorf("unknown security mode %d", op.Security)
	}
	switch op.Network {
	case pb.NetMode_UNSET, pb.NetMode_NONE:
	case pb.NetMode_HOST:
		if !r.opts.AllowHostNetwork {
			return fault.Errorf(fault.Usage, "RUN --network=host is not allowed: add --allow network.host")
		}
	default:
		return fmt.Errorf("unknown network mode %d", op.Network)
	}
	if len(op.CdiDevices) > 0 {
		return fault.Errorf(fault.Machine, "RUN --device: larder has no support for CDI devices")
	}
	return nil
}

package runstep

import (
	"context"
	"errors"
	"io"
	"syscall"

	"github.com/moby/buildkit/executor"

	"larder/internal/fault"
	"larder/internal/runtime"
)

// Command is a command that is run for its own sake. What it writes goes with it, but for what it writes into cache mounts
// and binds. Its Op has no outputs.
type Command struct {
	Step
	// Binds show directories and files of this machine.
	Binds []Bind
	// Stdin may be nil; Run closes it, which has to end a Read. With Tty all of the output goes to Stdout.
	Stdin  io.ReadCloser
	Tty    bool
	Resize <-chan executor.WinSize // one that waits there already is the terminal's first size
	Signal <-chan syscall.Signal   // those for the command
}

// Bind is a directory or file of this machine at a place in the container.
type Bind struct {
	Source, Dest string // absolute
	ReadOnly     bool
}

// Container is a command with everything that it sees mounted. It is not safe for concurrent use.
type Container struct {
	p    *prepared
	cmd  Command
	exec *runtime.Executor
	spec runtime.Spec
}

// Open mounts what a command sees, and takes hold of its cache mounts. Close has to be called.
func (r *Runner) Open(ctx context.Context, cmd Command) (_ *Container, err error) {
	op := cmd.Op
	if op == nil || op.Meta == nil || len(op.Meta.Args) == 0 {
		return nil, fault.Errorf(fault.Usage, "there is no command to run")
	}
	if err := r.allowed(op); err != nil {
		return nil, err
	}
	exec, err := r.executor(ctx)
	if err != nil {
		return nil, err
	}
	p := newPrepared(r, cmd.Step)
	defer func() {
		if err != nil {
			err = errors.Join(err, p.release(false))
		}
	}()
	for _, b := range cmd.Binds {
		options := []string{"rbind"}
		if b.ReadOnly {
			options = append(options, "ro")
		}
		p.list = append(p.list, runtime.Mount{Dest: b.Dest, Type: "bind", Source: b.Source, Options: options})
	}
	if err := p.mounts(ctx); err != nil {
		return nil, err
	}
	c := &Container{p: p, cmd: cmd, exec: exec}
	if c.spec, err = p.spec(ctx); err != nil {
		return nil, err
	}
	c.spec.Stdin, c.spec.Tty, c.spec.Resize, c.spec.Signal = cmd.Stdin, cmd.Tty, cmd.Resize, cmd.Signal
	return c, nil
}

// Run runs the command, once. An error is a *ProcessError when the command failed or could not be started.
func (c *Container) Run(ctx context.Context) error {
	return processError(c.cmd.Op.Meta.Args, c.exec.Run(ctx, c.spec))
}

// Copy copies a file or what is in a directory of the container, as the command left it, into dir, which is made where it is
// missing. path is absolute. An error wraps fs.ErrNotExist where it is not there. When ctx ends, Copy does: what it has copied stays.
func (c *Container) Copy(ctx context.Context, path, dir string) error {
	v, err := c.p.view()
	if err != nil {
		return err
	}
	defer v.close()
	return v.copy(ctx, path, dir)
}

// Close takes away what was mounted and gives back the cache mounts. keep tells whether what the command left in those is
// worth saving. A second call does nothing.
func (c *Container) Close(keep bool) error {
	if c.p == nil {
		return nil
	}
	p := c.p
	c.p = nil
	return p.release(keep)
}

package build

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strings"
	"syscall"

	"github.com/moby/buildkit/executor"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"larder/internal/export"
	"larder/internal/fault"
	"larder/internal/layer"
	"larder/internal/progress"
	"larder/internal/runstep"
	"larder/internal/runtime"
)

// Command is what is run in a target.
type Command struct {
	Args      []string
	Env       []string // NAME=VALUE, beside the image's
	Dir       string   // working directory; empty for the image's, relative to that
	User      string   // empty for the image's
	NoNetwork bool     // nothing but a loopback device
	// Mounts come beside the cache mounts of the target's RUN instructions and the build's secrets. Of two at one place the
	// later one counts.
	Mounts  []Mount
	Results []Copy

	Stdin          io.ReadCloser // may be nil; its Close has to end a Read
	Stdout, Stderr io.Writer
	Tty            bool                    // all of the output goes to Stdout
	Resize         <-chan executor.WinSize // one that waits there already is the terminal's first size
	Signal         <-chan syscall.Signal
}

// Copy is a result of a command: a file, or what is in a directory.
type Copy struct {
	Path string // in the container; relative to the command's working directory
	Dir  string // on this machine
}

// Target is a target that was built, mounted for a command. Its methods are called one after the other: Run, Results, Save, Close.
type Target struct {
	b   *building
	r   *relay
	cmd *Command
	c   container
	dir string // working directory

	passed bool // the command's exit code was 0
	keep   bool // what the command left in cache mounts is worth saving
}

// container is a *runstep.Container but in tests.
type container interface {
	Run(ctx context.Context) error
	Copy(ctx context.Context, path, dir string) error
	Close(keep bool) error
}

// Target builds a target for a command, reporting into stream, and mounts what the command will see. Nothing is exported,
// whatever the request says of outputs.
func (e *Engine) Target(ctx context.Context, req *Request, cmd *Command, stream *progress.Stream) (_ *Target, err error) {
	r := *req
	r.Outputs, r.Tags, r.Call = []map[string]string{{"type": export.CacheOnly}}, nil, ""
	t := &Target{r: newRelay(), cmd: cmd}
	t.r.show(stream)
	defer func() {
		t.r.hide()
		if err != nil {
			t.r.close()
		}
	}()
	if t.b, err = e.begin(ctx, &r, t.r.stream); err != nil {
		return nil, err
	}
	if err := t.build(ctx); err != nil {
		if ctx.Err() == nil {
			err = errors.Join(err, t.b.save(ctx)) // as for a build that fails
		}
		t.b.close()
		return nil, err
	}
	return t, nil
}

// build makes the target's state and mounts it. A layer that a cache promised and does not have is made again.
func (t *Target) build(ctx context.Context) error {
	if n := len(t.b.front.Outputs); n != 1 {
		return fault.Errorf(fault.Usage, "a command runs on one platform, not on %d: give one --platform", n)
	}
	for try := 0; ; try++ {
		err := t.open(ctx)
		var gone *layer.GoneError
		if err == nil || !errors.As(err, &gone) || try == maxRewinds || !t.b.solver.Rewind(ctx, gone) {
			return err
		}
	}
}

func (t *Target) open(ctx context.Context) (err error) {
	parts, err := evaluate(ctx, t.b.solver, t.b.front)
	if err != nil {
		return err
	}
	var image ocispecs.Image
	if err := json.Unmarshal(parts[0].Config, &image); err != nil {
		return fmt.Errorf("the target's config: %w", err)
	}
	line := t.b.stream.Begin("preparing to run " + strings.Join(t.cmd.Args, " "))
	defer func() { line.Done(err) }()
	ctx = progress.With(ctx, line)
	t.dir = path.Join("/", image.Config.WorkingDir, t.cmd.Dir)
	if path.IsAbs(t.cmd.Dir) {
		t.dir = path.Clean(t.cmd.Dir)
	}
	p := &plan{b: t.b, cmd: t.cmd, dir: t.dir}
	run, err := p.command(ctx, parts[0].State, &image.Config)
	if err != nil {
		return err
	}
	t.c, err = t.b.e.open(ctx, run)
	return err
}

// Exit codes of a command that could not be started; those of a shell.
const (
	cannotRun = 126
	notFound  = 127
)

// Run runs the command and gives its exit code; with an error as well where it could not be started. When ctx ends, the command is
// killed, and the error is ctx's cause.
func (t *Target) Run(ctx context.Context) (code int, err error) {
	err = t.c.Run(ctx)
	if ctx.Err() != nil {
		return 0, context.Cause(ctx)
	}
	var exit *runtime.ExitError
	var start *runtime.StartError
	switch {
	case errors.As(err, &exit):
		code = exit.Code
	case errors.As(err, &start):
		return startCode(start), err
	case err != nil:
		return 0, err
	}
	t.passed, t.keep = code == 0, !runstep.Killed(code)
	return code, nil
}

// Results copies what the command left, however it ended. What is missing is an error after a command that passed, and a warning after
// another. When ctx ends, the error is its cause.
func (t *Target) Results(ctx context.Context) error {
	var errs []error
	for _, r := range t.cmd.Results {
		from := r.Path
		if !path.IsAbs(from) {
			from = path.Join(t.dir, from)
		}
		err := t.c.Copy(ctx, from, r.Dir)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if errors.Is(err, fs.ErrNotExist) {
			err = fmt.Errorf("the command left no %s", from)
		}
		switch {
		case err == nil:
		case !t.passed:
			t.b.e.warn("%s:%s: %v", r.Dir, r.Path, err) // it has failed, and that is why
		default:
			errs = append(errs, fmt.Errorf("%s:%s: %w", r.Dir, r.Path, err))
		}
	}
	return errors.Join(errs...)
}

func startCode(err *runtime.StartError) int {
	reason := strings.ToLower(err.Reason)
	if strings.Contains(reason, "not found") || strings.Contains(reason, "no such file") {
		return notFound
	}
	return cannotRun
}

// Save gives the cache mounts back, saves what build and command leave to caches, and reports into stream. It is called when
// the command has ended, however it did.
func (t *Target) Save(ctx context.Context, stream *progress.Stream) error {
	t.r.show(stream)
	defer t.r.hide()
	if err := t.c.Close(t.keep); err != nil {
		return err
	}
	return t.b.save(ctx)
}

// Writes tells whether there is a cache to save to.
func (t *Target) Writes() bool { return t.b.session.Writes() }

// Close ends the use of the target. Without Save, nothing is saved.
func (t *Target) Close() error {
	err := t.c.Close(t.keep)
	t.b.close()
	t.r.close()
	return err
}

// opener is how an engine opens containers: runstep's way, but in tests.
func opener(r *runstep.Runner) func(context.Context, runstep.Command) (container, error) {
	return func(ctx context.Context, cmd runstep.Command) (container, error) {
		c, err := r.Open(ctx, cmd)
		if err != nil {
			return nil, err
		}
		return c, nil
	}
}

package solve_test

import (
	"bytes"
	"context"
	"errors"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"

	"larder/internal/runtime"
)

// executor runs the commands of one build without containers.
type executor struct {
	probe string

	mu   sync.Mutex
	said map[string]string // by the names of steps
}

// patience is how long a script may take before its scenario is given up: some copy a directory into itself.
const patience = 10 * time.Second

var errStuck = errors.New("the script does not end")

func (x *executor) result(step string) (said string, ran bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	said, ran = x.said[step]
	return said, ran
}

// run is a runstep.Options.Execute.
func (x *executor) run(ctx context.Context, spec runtime.Spec) error {
	ctx, cancel := context.WithTimeoutCause(ctx, patience, errStuck)
	defer cancel()
	user := spec.User
	if user == "" {
		user = "0"
	}
	args := []string{"run", spec.Root, user, spec.Cwd}
	for _, m := range spec.Mounts {
		mode := "rw"
		for _, o := range m.Options {
			if o == "ro" {
				mode = o
			}
		}
		args = append(args, m.Source, m.Dest, mode)
	}
	var said bytes.Buffer
	cmd := exec.CommandContext(ctx, x.probe, append(append(args, "--"), spec.Args...)...)
	// Mounts of its own, and processes that end with the first of them.
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS, Cloneflags: syscall.CLONE_NEWPID}
	cmd.WaitDelay = time.Second
	cmd.Env, cmd.Stdout, cmd.Stderr = spec.Env, &said, &said
	err := cmd.Run()
	for _, e := range spec.Env {
		if name, ok := strings.CutPrefix(e, "STEP="); ok {
			x.mu.Lock()
			x.said[name] = said.String()
			x.mu.Unlock()
		}
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.Exited() {
		return &runtime.ExitError{Code: exit.ExitCode()}
	}
	return err
}

package runtime

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	runc "github.com/containerd/go-runc"
	"golang.org/x/sys/unix"
)

// signals passes signals on to the command of one container. The kernel keeps from the first process of a container what it
// has no handler for; a command that is ended by SIGTERM anywhere else shall be here.
type signals struct {
	e      *Executor
	id     string
	done   sync.WaitGroup
	cancel context.CancelFunc
	fatal  syscall.Signal // ended the command for want of a handler
}

// passSignals begins to pass on what comes through ch, which may be nil. What comes before the command runs waits for it.
func (e *Executor) passSignals(ctx context.Context, id string, ch <-chan syscall.Signal) *signals {
	ctx, cancel := context.WithCancel(ctx)
	s := &signals{e: e, id: id, cancel: cancel}
	if ch == nil {
		return s
	}
	s.done.Go(func() {
		for ctx.Err() == nil {
			select {
			case sig := <-ch:
				s.pass(ctx, sig)
			case <-ctx.Done():
			}
		}
	})
	return s
}

// finish gives the signal that ended the command for want of a handler, 0 for none.
func (s *signals) finish() syscall.Signal {
	s.cancel()
	s.done.Wait()
	return s.fatal
}

func (s *signals) pass(ctx context.Context, sig syscall.Signal) {
	pid, ok := s.e.commandPID(ctx, s.id)
	if !ok {
		return
	}
	if endsCommand(sig) && !handles(pid, sig) {
		if unix.Kill(pid, unix.SIGKILL) == nil {
			s.fatal = sig
		}
		return
	}
	unix.Kill(pid, sig) // one that ended meanwhile needs no signal
}

// endsCommand tells whether a signal ends a process that does nothing about it.
func endsCommand(sig syscall.Signal) bool {
	switch sig {
	case unix.SIGHUP, unix.SIGINT, unix.SIGQUIT, unix.SIGTERM, unix.SIGUSR1, unix.SIGUSR2, unix.SIGPIPE, unix.SIGALRM:
		return true
	}
	return false
}

// handles tells whether a process catches, ignores or holds back a signal.
func handles(pid int, sig syscall.Signal) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return true // it is gone, or goes
	}
	for line := range strings.Lines(string(b)) {
		name, value, _ := strings.Cut(line, ":")
		switch name {
		case "SigBlk", "SigIgn", "SigCgt":
			mask, err := strconv.ParseUint(strings.TrimSpace(value), 16, 64)
			if err != nil || mask&(1<<(uint(sig)-1)) != 0 {
				return true
			}
		}
	}
	return false
}

// starting bounds how long a process is taken for the runtime on its way to become the command: one may bear its name.
const starting = time.Second

// commandPID waits until the command of a container runs, and gives its process.
func (e *Executor) commandPID(ctx context.Context, id string) (pid int, ok bool) {
	var seen time.Time
	for wait := time.Millisecond; ; wait = min(2*wait, 20*time.Millisecond) {
		if pid, ok := e.running(ctx, id); ok {
			if seen.IsZero() {
				seen = time.Now()
			}
			comm, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
			if err != nil {
				return 0, false
			}
			if !strings.HasPrefix(string(comm), e.rt.Name) || time.Since(seen) > starting {
				return pid, true
			}
		}
		t := time.NewTimer(wait)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return 0, false
		}
	}
}

// running asks the runtime for a container's first process.
func (e *Executor) running(ctx context.Context, id string) (pid int, ok bool) {
	if _, err := os.Lstat(filepath.Join(e.state(), id)); err != nil {
		return 0, false
	}
	var out strings.Builder
	if err := e.command(ctx, &out, "state", id); err != nil {
		return 0, false
	}
	var state struct {
		PID    int    `json:"pid"`
		Status string `json:"status"`
	}
	if json.Unmarshal([]byte(out.String()), &state) != nil || state.Status != "running" || state.PID <= 1 {
		return 0, false
	}
	return state.PID, true
}

// command has the runtime do something with a container, beside what the executor has it do.
func (e *Executor) command(ctx context.Context, out *strings.Builder, args ...string) error {
	cmd := exec.CommandContext(ctx, e.rt.Path, append(e.globalArgs(args[len(args)-1]), args...)...)
	cmd.Env = runtimeEnv()
	cmd.Stdout, cmd.Stderr = out, out
	start := runc.Monitor.Start
	if e.hide {
		start = startWithoutUnified
	}
	exit, err := start(cmd)
	if err == nil {
		<-exit
	}
	return err
}

package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// larder is the program of this repository. It has no daemon: each build is a process.
type larder struct {
	program string
	root    string
	arg     string
	peak    int64
	cpu     time.Duration // that the last build took, with what it ran
	said    events        // by the last build
}

func newLarder(e env) (*larder, error) {
	program, err := filepath.Abs(filepath.Join(e.binDir, "larder"))
	if err != nil {
		return nil, err
	}
	if _, err := os.Stat(program); err != nil {
		return nil, fmt.Errorf("larder is not built (make build): %w", err)
	}
	return &larder{program: program, root: e.state, arg: "REGISTRY=" + e.registry}, nil
}

func (l *larder) Start(context.Context) error { return os.MkdirAll(l.root, 0o700) }

func (l *larder) Build(ctx context.Context, j job) error {
	args := append([]string{"build"}, l.flags(j)...)
	if j.image != "" {
		args = append(args, "-t", j.image, "--push")
	}
	return l.do(ctx, append(args, j.dir))
}

func (l *larder) Run(ctx context.Context, j job, target string, command []string) error {
	args := append([]string{"run"}, l.flags(j)...)
	args = append(args, "--target", target, j.dir, "--")
	return l.do(ctx, append(args, command...))
}

// flags are those that build and run share.
func (l *larder) flags(j job) []string {
	args := []string{"--root", l.root, "--progress", "rawjson", "--build-arg", l.arg}
	for _, arg := range j.proxyArgs() {
		args = append(args, "--build-arg", arg)
	}
	if j.cache != "" {
		args = append(args, "--cache", j.cache)
	}
	return args
}

func (l *larder) do(ctx context.Context, args []string) error {
	cmd := exec.CommandContext(ctx, l.program, args...)
	out, err := runWatched(cmd, &l.peak)
	if p := cmd.ProcessState; p != nil {
		l.cpu = p.UserTime() + p.SystemTime()
	}
	if l.said = readEvents(out); err != nil {
		return fmt.Errorf("%w\n%s", err, lastBytes(l.said.text, 6000))
	}
	return nil
}

func (l *larder) MountTimes() mountTimes { return l.said.mounts }

func (l *larder) Ran() []ranStep { return l.said.ran }

// CacheRepository is the image's own.
func (l *larder) CacheRepository(repository string) string { return repository }

func (l *larder) PeakRSS() int64   { return l.peak }
func (l *larder) ResetPeak() error { l.peak = 0; return nil }

func (l *larder) Stop() error {
	if err := os.RemoveAll(l.root); err != nil {
		return fmt.Errorf("something of larder's last build is still mounted or open: %w", err)
	}
	return nil
}

// runWatched runs a command, keeps its peak memory where peak points if it is higher, and gives its output.
func runWatched(cmd *exec.Cmd, peak *int64) ([]byte, error) {
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 30 * time.Second
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	stop := watchPeak(cmd.Process.Pid)
	err := cmd.Wait()
	*peak = max(*peak, stop())
	if err != nil {
		err = fmt.Errorf("%s: %w", filepath.Base(cmd.Path), err)
	}
	return out.Bytes(), err
}

func lastBytes(b []byte, n int) []byte { return b[max(0, len(b)-n):] }

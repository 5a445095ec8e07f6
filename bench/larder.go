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
	args := []string{"build", "--root", l.root, "--progress", "plain", "--build-arg", l.arg, "-t", j.image, "--push"}
	if j.cache != "" {
		args = append(args, "--cache", j.cache)
	}
	return runWatched(exec.CommandContext(ctx, l.program, append(args, j.dir)...), &l.peak)
}

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

// runWatched runs a command, keeps its peak memory where peak points if it is higher, and shows its output in the
// error when it fails.
func runWatched(cmd *exec.Cmd, peak *int64) error {
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 30 * time.Second
	if err := cmd.Start(); err != nil {
		return err
	}
	stop := watchPeak(cmd.Process.Pid)
	err := cmd.Wait()
	*peak = max(*peak, stop())
	if err != nil {
		return fmt.Errorf("%s: %w\n%s", filepath.Base(cmd.Path), err, lastBytes(out.Bytes(), 6000))
	}
	return nil
}

func lastBytes(b []byte, n int) []byte { return b[max(0, len(b)-n):] }

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/moby/buildkit/client"
)

// buildKit is buildkitd with its overlayfs snapshotter and runc, as bench/peers builds it, driven by buildctl. The
// daemon runs while nothing is measured, as it does on a developer's machine, except in the fresh scenarios.
type buildKit struct {
	daemon, client string
	state          string
	registry       string
	cmd            *exec.Cmd
	log            *os.File
	said           events // by the last build
}

func newBuildKit(e env) (*buildKit, error) {
	b := &buildKit{
		daemon:   filepath.Join(e.peerDir, "buildkitd"),
		client:   filepath.Join(e.peerDir, "buildctl"),
		state:    e.state,
		registry: e.registry,
	}
	for _, p := range []string{b.daemon, b.client} {
		if _, err := os.Stat(p); err != nil {
			return nil, fmt.Errorf("BuildKit is not built (make peers): %w", err)
		}
	}
	return b, nil
}

func (b *buildKit) socket() string  { return filepath.Join(b.state, "buildkitd.sock") }
func (b *buildKit) address() string { return "unix://" + b.socket() }

func (b *buildKit) Start(ctx context.Context) error {
	if err := os.MkdirAll(b.state, 0o700); err != nil {
		return err
	}
	// No garbage collection: it would remove between two builds what the next one is to find.
	config := fmt.Sprintf("[worker.oci]\n  gc = false\n[registry.%q]\n  http = true\n", b.registry)
	configPath := filepath.Join(b.state, "buildkitd.toml")
	if err := os.WriteFile(configPath, []byte(config), 0o600); err != nil {
		return err
	}
	log, err := os.Create(b.state + ".log")
	if err != nil {
		return err
	}
	b.log = log
	b.cmd = exec.Command(b.daemon, "--config", configPath, "--root", filepath.Join(b.state, "root"), "--addr", b.address(),
		"--oci-worker=true", "--oci-worker-snapshotter=overlayfs", "--oci-worker-binary=runc", "--oci-worker-net=host",
		"--containerd-worker=false")
	b.cmd.Stdout, b.cmd.Stderr = log, log
	if err := b.cmd.Start(); err != nil {
		return errors.Join(err, log.Close())
	}
	if err := b.await(ctx); err != nil {
		text, _ := os.ReadFile(log.Name())
		return errors.Join(fmt.Errorf("buildkitd does not answer: %w\n%s", err, lastBytes(text, 4000)), b.stopDaemon())
	}
	return nil
}

// await returns as soon as the daemon answers. It looks often, because some scenarios count it.
func (b *buildKit) await(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	for {
		if c, err := net.Dial("unix", b.socket()); err == nil {
			c.Close()
			break
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(2 * time.Millisecond):
		}
	}
	c, err := client.New(ctx, b.address())
	if err != nil {
		return err
	}
	_, err = c.Info(ctx)
	return errors.Join(err, c.Close())
}

func (b *buildKit) Build(ctx context.Context, j job) error {
	args := []string{"--addr", b.address(), "build", "--progress", "rawjson",
		"--frontend", "dockerfile.v0", "--local", "context=" + j.dir, "--local", "dockerfile=" + j.dir,
		"--opt", "build-arg:REGISTRY=" + b.registry}
	for _, arg := range j.proxyArgs() {
		args = append(args, "--opt", "build-arg:"+arg)
	}
	if j.image != "" {
		args = append(args, "--output", "type=image,name="+j.image+",push=true")
	}
	if j.cache != "" {
		// What its documentation recommends; an OCI image manifest is the default of this version.
		args = append(args, "--import-cache", "type=registry,ref="+j.cache, "--export-cache", "type=registry,ref="+j.cache+",mode=max")
	}
	var peak int64 // the client's: the daemon's memory is what is compared
	out, err := runWatched(exec.CommandContext(ctx, b.client, args...), &peak)
	if b.said = readEvents(out); err != nil {
		return fmt.Errorf("%w\n%s", err, lastBytes(b.said.text, 6000))
	}
	return nil
}

// CacheRepository is one beside the image's: BuildKit's cache is an image of its own, under a tag of its own.
func (b *buildKit) CacheRepository(repository string) string { return repository + "-cache" }

func (b *buildKit) Ran() []ranStep { return b.said.ran }

func (b *buildKit) PeakRSS() int64 { return peakOf(b.cmd.Process.Pid) }

func (b *buildKit) ResetPeak() error {
	if b.cmd == nil {
		return nil
	}
	return resetPeakOf(b.cmd.Process.Pid)
}

func (b *buildKit) Stop() error {
	if err := b.stopDaemon(); err != nil {
		return err
	}
	return os.RemoveAll(b.state)
}

func (b *buildKit) stopDaemon() error {
	if b.cmd == nil {
		return nil
	}
	defer b.log.Close()
	if err := b.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	_ = b.cmd.Wait() // a daemon that was told to stop exits with an error
	b.cmd = nil
	return nil
}

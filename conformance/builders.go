package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// A builder builds one case and writes the image to dest. out is what it printed; an error means that it refused.
type builder interface {
	name() string
	build(ctx context.Context, c *testCase, w workdir, dest string) (out string, err error)
}

// buildTimeout bounds one build: no case needs more than seconds.
const buildTimeout = 5 * time.Minute

func runClient(ctx context.Context, c *testCase, w workdir, argv []string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, buildTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 10 * time.Second
	cmd.Env = append(os.Environ(), w.expandAll(c.env)...)
	cmd.Dir = w.dir
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	if ctx.Err() != nil {
		err = errors.Join(err, fmt.Errorf("gave up after %s", buildTimeout))
	}
	return out.String(), err
}

func (w workdir) contextDir(c *testCase) string { return filepath.Join(w.context(), c.context) }

func (w workdir) dockerfile(c *testCase) string { return filepath.Join(w.context(), c.dockerfile) }

// larder builds with the larder command, under a umask that no image may show.
type larder struct {
	path string
	root string
	// empty says that the root is one of its own, gone afterwards: all that is left of earlier builds is in the cache directory.
	empty bool
	// verify has what the caches have run again and compared.
	verify bool
}

func (larder) name() string { return "larder" }

func (l larder) build(ctx context.Context, c *testCase, w workdir, dest string) (string, error) {
	root := l.root
	if l.empty {
		var err error
		if root, err = os.MkdirTemp(filepath.Dir(l.root), "empty-"); err != nil {
			return "", err
		}
		defer os.RemoveAll(root)
	}
	argv := []string{"/bin/sh", "-c", `umask 077; exec "$0" "$@"`, l.path, "build", "--root", root, "--progress=plain", "-f", w.dockerfile(c), "-o", "type=oci,dest=" + dest,
		"--cache", filepath.Join(w.dir, "cache"), "--cache-strict"}
	if l.verify {
		argv = append(argv, "--cache-verify")
	}
	argv = append(argv, w.expandAll(c.args)...)
	return runClient(ctx, c, w, append(argv, w.contextDir(c)))
}

// buildkit builds with buildctl and a daemon that the comparison started.
type buildkit struct {
	label    string
	buildctl string
	addr     string
	noCache  bool
}

func (b buildkit) name() string { return b.label }

func (b buildkit) build(ctx context.Context, c *testCase, w workdir, dest string) (string, error) {
	flags, err := buildctlFlags(w.expandAll(c.args))
	if err != nil {
		return "", err
	}
	argv := []string{b.buildctl, "--addr", b.addr, "build", "--progress=plain", "--frontend=dockerfile.v0",
		"--local", "context=" + w.contextDir(c), "--local", "dockerfile=" + filepath.Dir(w.dockerfile(c)),
		"--opt", "filename=" + filepath.Base(w.dockerfile(c)), "--output", "type=oci,dest=" + dest}
	if b.noCache {
		argv = append(argv, "--no-cache")
	}
	return runClient(ctx, c, w, append(argv, flags...))
}

// buildctlFlags says with buildctl's flags what `docker buildx build` says with its own.
func buildctlFlags(args []string) ([]string, error) {
	var out, hosts, ulimits []string
	opt := func(k, v string) { out = append(out, "--opt", k+"="+v) }
	for i := 0; i < len(args); i++ {
		flag, value, ok := strings.Cut(args[i], "=")
		if flag == "--no-cache" {
			out = append(out, flag)
			continue
		}
		if !ok {
			if i++; i == len(args) {
				return nil, fmt.Errorf("%s wants a value", flag)
			}
			value = args[i]
		}
		key, rest, isPair := strings.Cut(value, "=")
		switch flag {
		case "--target", "--platform", "--shm-size", "--cgroup-parent":
			opt(strings.TrimPrefix(flag, "--"), value)
		case "--build-arg", "--label":
			if !isPair {
				rest = os.Getenv(key)
			}
			opt(strings.TrimPrefix(flag, "--")+":"+key, rest)
		case "--network":
			opt("force-network-mode", value)
		case "--no-cache-filter":
			opt("no-cache", value)
		case "--add-host":
			hosts = append(hosts, strings.Replace(value, ":", "=", 1))
		case "--ulimit":
			ulimits = append(ulimits, value)
		case "--build-context":
			if _, _, isURL := strings.Cut(rest, "://"); isURL {
				opt("context:"+key, rest)
				continue
			}
			out = append(out, "--local", key+"="+rest)
			opt("context:"+key, "local:"+key)
		case "--secret", "--ssh", "--allow":
			out = append(out, flag, value)
		default:
			return nil, fmt.Errorf("the comparison knows no translation of %s for buildctl", flag)
		}
	}
	if hosts != nil {
		opt("add-hosts", strings.Join(hosts, ","))
	}
	if ulimits != nil {
		opt("ulimit", strings.Join(ulimits, ","))
	}
	return out, nil
}

// A daemon is a buildkitd that this process started and stops.
type daemon struct {
	cmd  *exec.Cmd
	done chan error
	addr string
	log  string
}

// startBuildkit starts buildkitd from dir with its state below state and waits until it answers.
func startBuildkit(ctx context.Context, dir, state, registry string) (*daemon, error) {
	if err := os.MkdirAll(state, 0o700); err != nil {
		return nil, err
	}
	config := filepath.Join(state, "buildkitd.toml")
	if err := os.WriteFile(config, fmt.Appendf(nil, "[registry.%q]\n  http = true\n", registry), 0o600); err != nil {
		return nil, err
	}
	log, err := os.Create(filepath.Join(state, "log"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	d := &daemon{addr: "unix://" + filepath.Join(state, "sock"), log: log.Name(), done: make(chan error, 1)}
	d.cmd = exec.Command(filepath.Join(dir, "buildkitd"), "--root", filepath.Join(state, "root"), "--addr", d.addr,
		"--config", config, "--containerd-worker=false", "--oci-worker-snapshotter=overlayfs", "--oci-worker-net=host",
		"--allow-insecure-entitlement=network.host", "--allow-insecure-entitlement=security.insecure")
	d.cmd.Stdout, d.cmd.Stderr = log, log
	// Of a group of its own, so that an interrupt reaches the clients first and the daemon by stop.
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	if err := d.cmd.Start(); err != nil {
		return nil, err
	}
	go func() { d.done <- d.cmd.Wait() }()
	if err := d.wait(ctx, filepath.Join(dir, "buildctl")); err != nil {
		d.stop()
		tail, _ := os.ReadFile(d.log)
		return nil, fmt.Errorf("%w\n%s", err, tail)
	}
	return d, nil
}

func (d *daemon) wait(ctx context.Context, buildctl string) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for {
		if exec.CommandContext(ctx, buildctl, "--addr", d.addr, "debug", "workers").Run() == nil {
			return nil
		}
		select {
		case err := <-d.done:
			d.done <- err
			return fmt.Errorf("buildkitd ended: %v", err)
		case <-ctx.Done():
			return errors.New("buildkitd does not answer")
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// stop ends the daemon and waits for it; it kills one that does not end by itself.
func (d *daemon) stop() {
	d.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-d.done:
	case <-time.After(20 * time.Second):
		d.cmd.Process.Kill()
		<-d.done
	}
}

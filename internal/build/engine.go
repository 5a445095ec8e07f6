// Package build does one build: it opens the local root, lets the frontend read the Dockerfile, has the solver make what
// that asks for, and hands the result to the exports.
package build

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	goruntime "runtime"
	"sync"
	"time"

	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"larder/internal/cachemount"
	"larder/internal/content"
	"larder/internal/fault"
	"larder/internal/flock"
	"larder/internal/record"
	"larder/internal/registry"
	"larder/internal/remote"
	"larder/internal/runstep"
	"larder/internal/runtime"
	"larder/internal/snapshot"
	"larder/internal/solve"
	buildcontext "larder/internal/source/context"
)

// Config says where an Engine keeps things and what it works with. The zero value works.
type Config struct {
	Root     string // local root; empty for the default
	Checkout string // a directory whose file system may hold layers where the root's cannot
	Runtime  string // "runc", "crun", a path, or empty for what is there
	HostCA   bool   // show this machine's certificate authorities to RUN steps
	Parallel int    // RUN steps at once; 0 for the default

	Observe runstep.Observe // whether the inputs of RUN steps are observed

	Insecure, HostNetwork bool // what RUN steps may ask for

	// Idle opens the root to look at it or to clean it up. Otherwise Prune, of other processes, leaves records and trees alone
	// until Close.
	Idle bool

	Registries         registry.Table
	InsecureRegistries []string
	Version            string    // for the User-Agent
	Patience           Patience  // the zero value is the usual one
	Warnings           io.Writer // what went wrong without failing anything; nil drops it
}

// Patience says how failures of registries and remote caches that pass are borne.
type Patience struct {
	Registry func(d time.Duration, done <-chan struct{}) // waits between two tries of a request
	Remote   remote.Policy
}

// Engine is the local root, opened, with what runs steps on it. Several may have one root open, in one process or many.
type Engine struct {
	cfg      Config
	root     string
	blobs    *content.Store
	layers   *snapshot.Store
	records  *record.Store
	stats    *buildcontext.StatCache
	registry *registry.Client
	runner   runner
	open     func(context.Context, runstep.Command) (container, error) // mounts what a command is run in
	caches   *cachemount.Local

	using *flock.Lock // keeps collectors off records and trees

	stop  context.CancelFunc
	tasks sync.WaitGroup // background work
}

// runner runs the commands of RUN steps; a *runstep.Runner but in tests.
type runner interface {
	solve.Runner
	Close() error
}

// DefaultRoot is the local root of this user: /var/lib/larder for root, else $XDG_DATA_HOME/larder.
func DefaultRoot() (string, error) {
	if os.Geteuid() == 0 {
		return "/var/lib/larder", nil
	}
	dir := os.Getenv("XDG_DATA_HOME")
	if dir == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			return "", fault.Errorf(fault.Usage, "where is the local root? Say it with --root: %w", err)
		}
		dir = filepath.Join(home, ".local", "share")
	}
	return filepath.Join(dir, "larder"), nil
}

// Open opens the local root, makes it where it is missing, and cleans up after runs that were killed. Close ends it.
func Open(ctx context.Context, cfg Config) (_ *Engine, err error) {
	e := &Engine{cfg: cfg, root: cfg.Root}
	if e.root == "" {
		if e.root, err = DefaultRoot(); err != nil {
			return nil, err
		}
	}
	if e.root, err = filepath.Abs(e.root); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			e.Close()
		}
	}()
	if err := os.MkdirAll(e.root, 0o711); err != nil {
		return nil, fault.Errorf(fault.Machine, "local root: %w; choose another with --root", err)
	}
	if !cfg.Idle {
		if e.using, err = flock.Acquire(ctx, e.usingFile(), flock.Shared); err != nil {
			return nil, fault.New(fault.Machine, err)
		}
	}
	if e.blobs, err = content.Open(filepath.Join(e.root, "blobs")); err != nil {
		return nil, fault.New(fault.Machine, err)
	}
	var places []string
	if cfg.Checkout != "" {
		places = []string{cfg.Checkout}
	}
	e.layers, err = snapshot.Open(e.root, snapshot.Options{
		Blobs: func(ctx context.Context, desc ocispecs.Descriptor) (io.ReadCloser, error) {
			return e.blobs.Stream(ctx, desc.Digest)
		},
		Places: places,
		Reap:   runtime.Reap,
		Warn:   func(msg string) { e.warn("%s", msg) },
	})
	if err != nil {
		return nil, fault.New(fault.Machine, err)
	}
	if err := e.layers.Recover(ctx); err != nil {
		e.warn("%v", err)
	}
	if e.records, err = record.Open(e.root); err != nil {
		return nil, fault.New(fault.Machine, err)
	}
	e.stats = buildcontext.NewStatCache(filepath.Join(e.root, "cache", "context"))
	e.registry = e.newRegistry()
	e.caches = cachemount.Open(filepath.Join(e.layers.Base(), "cachemounts"))
	opt := runstep.Options{Runtime: cfg.Runtime, Observe: cfg.Observe, AllowInsecure: cfg.Insecure, AllowHostNetwork: cfg.HostNetwork}
	if cfg.HostCA {
		if opt.HostCA, err = hostCA(); err != nil {
			return nil, err
		}
	}
	steps := runstep.New(e.layers, e.caches, opt)
	e.runner, e.open = steps, opener(steps)
	e.background()
	return e, nil
}

// newRegistry makes a client; insecure names registries beside those of the configuration.
func (e *Engine) newRegistry(insecure ...string) *registry.Client {
	return registry.New(registry.Config{
		Registries: e.cfg.Registries, Insecure: append(insecure, e.cfg.InsecureRegistries...), UserAgent: "larder/" + e.cfg.Version,
		Sleep: e.cfg.Patience.Registry,
	})
}

func (e *Engine) warn(format string, args ...any) {
	if e.cfg.Warnings != nil {
		fmt.Fprintf(e.cfg.Warnings, "WARNING: "+format+"\n", args...)
	}
}

// settled is how long the kernel had time to write what an earlier run left, before this one writes the rest: by then it is
// little, and nobody waits for it.
const settled = 2 * time.Minute

// background makes what earlier runs stored durable (docs/design.md section 9), and removes what they left in cache mounts half done.
func (e *Engine) background() {
	ctx, stop := context.WithCancel(context.Background())
	e.stop = stop
	stamp := filepath.Join(e.root, "used")
	st, err := os.Stat(stamp)
	if err == nil && time.Since(st.ModTime()) > settled {
		e.tasks.Go(func() {
			if err := errors.Join(e.layers.Sync(ctx), e.blobs.Sync(ctx), e.caches.Sweep()); err != nil && ctx.Err() == nil {
				e.warn("%v", err)
			}
		})
	}
}

// Close ends background work, discards what is half done and lets go of the local root.
func (e *Engine) Close() error {
	if e.stop != nil {
		e.stop()
	}
	e.tasks.Wait()
	var errs []error
	if e.runner != nil {
		errs = append(errs, e.runner.Close())
	}
	if e.layers != nil {
		errs = append(errs, e.layers.Close())
	}
	if e.blobs != nil {
		errs = append(errs, e.blobs.Close())
	}
	if e.registry != nil {
		e.registry.Close()
	}
	if e.using != nil {
		errs = append(errs, e.using.Unlock())
	}
	if e.records != nil {
		os.WriteFile(filepath.Join(e.root, "used"), nil, 0o644) // its time is all that counts; without it nothing is lost
	}
	return errors.Join(errs...)
}

// usingFile is the lock that builds share and a collector of records and trees has alone.
func (e *Engine) usingFile() string { return filepath.Join(e.root, "using.lock") }

// Root is the local root's path.
func (e *Engine) Root() string { return e.root }

func (e *Engine) parallel() int {
	if e.cfg.Parallel > 0 {
		return e.cfg.Parallel
	}
	return max(4, 2*goruntime.NumCPU())
}

// hostCA finds the machine's bundle of certificate authorities.
func hostCA() (string, error) {
	candidates := []string{
		os.Getenv("SSL_CERT_FILE"),
		"/etc/ssl/certs/ca-certificates.crt", // Debian, Ubuntu, Alpine, Arch
		"/etc/pki/tls/certs/ca-bundle.crt",   // Fedora, RHEL
		"/etc/ssl/ca-bundle.pem",             // openSUSE
	}
	for _, path := range candidates {
		if st, err := os.Stat(path); path != "" && err == nil && st.Mode().IsRegular() {
			return path, nil
		}
	}
	return "", fault.Errorf(fault.Machine, "--host-ca: this machine has no bundle of certificate authorities: apt-get install ca-certificates, or set SSL_CERT_FILE")
}

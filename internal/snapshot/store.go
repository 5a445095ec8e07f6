package snapshot

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"larder/internal/fault"
	"larder/internal/flock"
	"larder/internal/key"
	"larder/internal/layer"
)

// ErrGone is wrapped where a layer's directory is not here and nothing that it could be made from is known either:
// the step that makes it has to run again.
var ErrGone = errors.New("layer is not stored here")

// Options of a Store. The zero value works.
type Options struct {
	// Blobs opens a blob of the local blob store, for layers whose Blob has no Fetch. It may be nil. The bytes are
	// verified here.
	Blobs func(ctx context.Context, desc ocispecs.Descriptor) (io.ReadCloser, error)
	// Places are directories to try, in order, where root's file system cannot hold overlay's upper directories; the
	// checkout is a good one. System-wide places follow them.
	Places []string
	// Reap ends what a dead process's container runtime left behind, before its mounts are released. dir is what that
	// process got from RuntimeDir. It may be nil.
	Reap func(ctx context.Context, dir string) error
	// Warn is told what went wrong without failing anything. It may be nil.
	Warn func(msg string)
}

// Store is the local store of layer directories and mounts. It is safe for concurrent use; several processes may have
// the same root open.
type Store struct {
	root, base string
	noUppers   error // why nothing can be mounted; a build that runs no step does not need it
	opts       Options
	boot       string

	proc     string // this process's directory under mounts
	procLock *flock.Lock
	seq      atomic.Uint64

	mu      sync.Mutex
	entries map[key.Digest]*entry
	retired []*entry // those that Adopt replaced: their trees are still in use
	flights map[key.Digest]*flight
	copies  map[key.Digest]*remoteCopy // what Stored heard of
	mounts  map[*Mount]struct{}
	closed  bool
}

// Open opens the store under root, which it makes where it is missing. Close releases it.
func Open(root string, opts Options) (*Store, error) {
	root, err := filepath.Abs(root)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(root, 0o711); err != nil {
		return nil, fmt.Errorf("local root: %w", err)
	}
	if root, err = filepath.EvalSymlinks(root); err != nil { // the mount table knows real paths only
		return nil, fmt.Errorf("local root: %w", err)
	}
	base, noUppers := findBase(root, opts.Places)
	s := &Store{
		root: root, base: base, noUppers: noUppers, opts: opts, boot: bootID(),
		entries: map[key.Digest]*entry{}, flights: map[key.Digest]*flight{},
		copies: map[key.Digest]*remoteCopy{}, mounts: map[*Mount]struct{}{},
	}
	for _, dir := range []string{"layers/id", "locks", "mounts"} {
		if err := os.MkdirAll(filepath.Join(base, dir), 0o711); err != nil {
			return nil, fmt.Errorf("local root: %w", err)
		}
	}
	// The lock is there before the directory and goes after it, so a directory whose lock can be had has no owner.
	s.proc = filepath.Join(base, "mounts", randomName(8))
	// (Another process that cleans up may be looking at the file this very moment, hence not Try.)
	if s.procLock, err = flock.Acquire(context.Background(), s.proc+".lock", flock.Exclusive); err != nil {
		return nil, fmt.Errorf("local root: %w", err)
	}
	if err := os.Mkdir(s.proc, 0o711); err != nil {
		s.procLock.Remove()
		return nil, fmt.Errorf("local root: %w", err)
	}
	return s, nil
}

// Base is the directory that holds layers and mounts: root, or the place that stands in for it.
func (s *Store) Base() string { return s.base }

// RuntimeDir is a directory of this process for its container runtime; Recover hands that of a dead process to
// Options.Reap. The caller makes it, Close removes it.
func (s *Store) RuntimeDir() string { return filepath.Join(s.proc, "run") }

// Close discards mounts that are still there, removes what the process had open and lets go of the layers it used.
func (s *Store) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	var open []*Mount
	for m := range s.mounts {
		open = append(open, m)
	}
	s.mu.Unlock()

	var errs []error
	for _, m := range open {
		errs = append(errs, m.Discard())
	}
	s.mu.Lock()
	for _, e := range s.entries {
		errs = append(errs, e.close())
	}
	for _, e := range s.retired {
		errs = append(errs, e.close())
	}
	s.entries, s.retired = map[key.Digest]*entry{}, nil
	s.mu.Unlock()
	if err := removeTree(s.proc); err != nil {
		// The lock goes with the process; whoever opens the store next cleans up.
		return errors.Join(append(errs, err, s.procLock.Unlock())...)
	}
	return errors.Join(append(errs, s.procLock.Remove())...)
}

// tempDir makes a fresh directory of this process.
func (s *Store) tempDir(kind string) (string, error) {
	dir := filepath.Join(s.proc, kind+strconv.FormatUint(s.seq.Add(1), 10))
	if err := os.Mkdir(dir, 0o711); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return "", fmt.Errorf("the local root was removed or the store closed: %w", err)
		}
		return "", err
	}
	return dir, nil
}

func (s *Store) warn(format string, args ...any) {
	if s.opts.Warn != nil {
		s.opts.Warn(fmt.Sprintf(format, args...))
	}
}

// explain says what to do about a full disk; other errors pass as they are.
func (s *Store) explain(err error) error {
	var said *explained
	var gone *layer.GoneError
	if err == nil || errors.As(err, &said) || errors.As(err, &gone) {
		return err // said by an inner call, or not about this machine
	}
	if errors.Is(err, unix.EPERM) && os.Geteuid() != 0 {
		return fault.New(fault.Machine, &explained{fmt.Errorf("%w: only root may do this here; run larder with sudo", err)})
	}
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		return fault.New(fault.Machine, &explained{fmt.Errorf("%w: the file system of %s is full; larder cache prune makes room, --root chooses another place", err, s.base)})
	}
	return err
}

// explained is an error that says the way out already.
type explained struct{ error }

func (e *explained) Unwrap() error { return e.error }

func randomName(n int) string {
	b := make([]byte, (n+1)/2)
	rand.Read(b) // never fails
	return hex.EncodeToString(b)[:n]
}

// bootID names this run of the kernel. Empty where it is unknown: then nothing counts before it is synced.
func bootID() string {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

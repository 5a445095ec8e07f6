package snapshot

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"larder/internal/flock"
)

// Recover cleans up after processes that died: their containers, mounts, uppers and half-made layers. A process whose
// lock can be had is dead. It costs a directory listing where nothing is to be done.
func (s *Store) Recover(ctx context.Context) error {
	dir := filepath.Join(s.base, "mounts")
	list, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("clean up after earlier runs: %w", err)
	}
	seen := map[string]bool{filepath.Base(s.proc): true}
	var errs []error
	for _, e := range list {
		name := strings.TrimSuffix(e.Name(), ".lock")
		if seen[name] {
			continue
		}
		seen[name] = true
		if err := s.recoverProcess(ctx, filepath.Join(dir, name)); err != nil {
			errs = append(errs, fmt.Errorf("clean up after an earlier run: %w", err))
		}
	}
	return errors.Join(errs...)
}

func (s *Store) recoverProcess(ctx context.Context, proc string) error {
	lock, err := flock.Try(proc+".lock", flock.Exclusive)
	if errors.Is(err, flock.ErrBusy) {
		return nil
	}
	if err != nil {
		return err
	}
	run := filepath.Join(proc, "run")
	if _, err := os.Stat(run); err == nil && s.opts.Reap != nil {
		if err := s.opts.Reap(ctx, run); err != nil {
			lock.Unlock()
			return err
		}
	}
	if err := removeTree(proc); err != nil {
		lock.Unlock()
		return err
	}
	return lock.Remove()
}

// Sync writes everything that was published so far to the disk and marks it, so that it counts after a power failure
// too. It is meant for the background: it waits for the disk.
func (s *Store) Sync(ctx context.Context) error {
	dir := filepath.Join(s.base, "layers")
	list, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("sync layers: %w", err)
	}
	var fresh []string
	for _, e := range list {
		path := filepath.Join(dir, e.Name())
		if !shortName.MatchString(e.Name()) {
			continue
		}
		if _, err := os.Lstat(filepath.Join(path, "synced")); !errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if m, err := readMeta(path); err == nil && s.trusted(m, path) {
			fresh = append(fresh, path)
		}
	}
	if len(fresh) == 0 || ctx.Err() != nil {
		return context.Cause(ctx)
	}
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("sync layers: %w", err)
	}
	defer d.Close()
	if err := unix.Syncfs(int(d.Fd())); err != nil {
		return fmt.Errorf("sync layers: %w", err)
	}
	for _, path := range fresh {
		err := os.WriteFile(filepath.Join(path, "synced"), nil, 0o644)
		if err != nil && !errors.Is(err, fs.ErrNotExist) { // the collector may have taken it
			return fmt.Errorf("sync layers: %w", err)
		}
	}
	return nil
}

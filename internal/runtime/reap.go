package runtime

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Reap kills and deletes the containers that a process left running when it died. dir is what it had given to New.
// The mounts that it made in dir are not touched.
func Reap(ctx context.Context, dir string) error {
	var e *Executor
	for _, name := range known {
		path, err := os.Readlink(filepath.Join(dir, name))
		if err == nil {
			e = &Executor{rt: Runtime{Name: name, Path: path}, dir: dir, hide: name == "crun" && hybrid()}
		} else if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	if e == nil {
		return nil
	}
	if real, err := filepath.EvalSymlinks(dir); err == nil {
		dir = real // as New does
	}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	if err := killWith(ctx, dir); err != nil {
		return err
	}
	list, err := os.ReadDir(e.state())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	var errs []error
	for _, entry := range list {
		errs = append(errs, e.kill(ctx, entry.Name()))
	}
	return errors.Join(append(errs, removeCgroups(cgroupName(dir)))...)
}

// kill deletes a container by force. A runtime that was killed itself in the middle of its work leaves states that it
// cannot read later; those without a living process are just removed.
func (e *Executor) kill(ctx context.Context, id string) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	state := filepath.Join(e.state(), id)
	var out strings.Builder
	err := e.command(ctx, &out, "delete", "--force", id)
	if _, serr := os.Lstat(state); serr != nil {
		return nil
	}
	if ctx.Err() != nil {
		return fmt.Errorf("delete container %s of an earlier run: %w", id, context.Cause(ctx))
	}
	pids, perr := processesWith(filepath.Join(e.root(), id))
	if perr != nil || len(pids) > 0 {
		return fmt.Errorf("delete container %s of an earlier run: %w: %s", id, errors.Join(err, perr), strings.TrimSpace(out.String()))
	}
	return os.RemoveAll(state)
}

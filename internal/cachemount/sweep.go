package cachemount

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"larder/internal/disk"
	"larder/internal/flock"
)

// Sweep removes what processes left that were killed: directories that were being made or removed, files that were being written. What is
// in use stays.
func (s *Local) Sweep() error {
	keys, err := os.ReadDir(s.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var errs []error
	for _, k := range keys {
		dir := filepath.Join(s.dir, k.Name())
		if !k.IsDir() {
			continue
		}
		adding, err := flock.Try(addLock(dir), flock.Exclusive)
		if errors.Is(err, flock.ErrBusy) {
			continue
		}
		if err != nil {
			errs = append(errs, err)
			continue
		}
		errs = append(errs, removeStale(dir), sweepSlots(dir), adding.Unlock())
	}
	return errors.Join(errs...)
}

func sweepSlots(dir string) error {
	numbers, err := slots(dir)
	if err != nil {
		return err
	}
	var errs []error
	for _, n := range numbers {
		slot := filepath.Join(dir, strconv.Itoa(n))
		lock, err := flock.TryDir(slot, flock.Exclusive)
		if err != nil {
			continue // a step has it, or it is just being removed
		}
		for _, pattern := range []string{disk.Temporary + "*", stampsFile + ".*"} {
			list, _ := filepath.Glob(filepath.Join(slot, pattern)) // fails for bad patterns only
			for _, f := range list {
				errs = append(errs, os.Remove(f))
			}
		}
		errs = append(errs, lock.Unlock())
	}
	return errors.Join(errs...)
}

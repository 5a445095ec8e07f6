package main

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"larder/internal/testregistry"
)

// stock keeps what a registry has in some repositories, to bring it back before each run. In distribution's storage a
// repository is a directory of links, which is small, and blobs lie outside it: one without a link is not there for a
// client, and a push sends it again.
type stock struct {
	registry *testregistry.Registry
	links    string // the registry's directory of repositories
	dir      string // the copies
}

func newStock(reg *testregistry.Registry, registryDir, dir string) *stock {
	return &stock{registry: reg, links: filepath.Join(registryDir, "docker/registry/v2/repositories"), dir: dir}
}

// keep notes what the repositories hold now.
func (s *stock) keep(repositories ...string) error {
	for _, r := range repositories {
		kept := filepath.Join(s.dir, filepath.FromSlash(r))
		if err := os.RemoveAll(kept); err != nil {
			return err
		}
		if err := copyDir(kept, filepath.Join(s.links, filepath.FromSlash(r))); err != nil {
			return err
		}
	}
	return nil
}

// restore makes the repositories what they were at the last keep.
func (s *stock) restore(repositories ...string) error {
	for _, r := range repositories {
		if err := s.registry.Forget(r); err != nil {
			return err
		}
		if err := copyDir(filepath.Join(s.links, filepath.FromSlash(r)), filepath.Join(s.dir, filepath.FromSlash(r))); err != nil {
			return err
		}
	}
	return nil
}

// copyDir copies a directory; none is copied as none.
func copyDir(to, from string) error {
	if _, err := os.Stat(from); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return os.CopyFS(to, os.DirFS(from))
}

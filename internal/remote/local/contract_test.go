package local

import (
	"path/filepath"
	"testing"

	"larder/internal/remote"
	"larder/internal/remote/storetest"
)

func open(t *testing.T) *Store {
	t.Helper()
	s, err := New(filepath.Join(t.TempDir(), "a", "cache"))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestContract(t *testing.T) {
	t.Run("Bare", func(t *testing.T) { storetest.Run(t, func(t *testing.T) remote.Store { return open(t) }) })
	t.Run("Wrapped", func(t *testing.T) {
		storetest.Run(t, func(t *testing.T) remote.Store { return remote.Wrap(open(t), remote.Options{}) })
	})
}

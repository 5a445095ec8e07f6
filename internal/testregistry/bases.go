package testregistry

import (
	"os"
	"path/filepath"
	"testing"
)

// CacheDir is where larder's own development keeps what is slow to make: LARDER_DEV_CACHE, else larder-dev below
// the user's cache directory.
func CacheDir() string {
	if dir := os.Getenv("LARDER_DEV_CACHE"); dir != "" {
		return dir
	}
	dir, err := os.UserCacheDir()
	if err != nil {
		dir = filepath.Join(os.TempDir(), "cache")
	}
	return filepath.Join(dir, "larder-dev")
}

// BasesDir holds the base images that hack/bases makes, an OCI layout each.
func BasesDir() string { return filepath.Join(CacheDir(), "bases") }

// BaseNames are the base images that hack/bases knows, each after its parent.
func BaseNames() []string {
	return []string{"busybox", "debian", "golang", "node", "python", "toolchain"}
}

// Base gives the layout of a base image and skips the test where nobody has made it.
func Base(t testing.TB, name string) string {
	t.Helper()
	dir := filepath.Join(BasesDir(), name)
	if _, err := os.Stat(filepath.Join(dir, "recipe.key")); err != nil {
		t.Skipf("base image %s is not there: make bases", name)
	}
	return dir
}

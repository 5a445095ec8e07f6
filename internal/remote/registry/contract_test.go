package registry

import (
	"strings"
	"testing"
	"time"

	"larder/internal/registry"
	"larder/internal/remote"
	"larder/internal/remote/storetest"
	"larder/internal/testregistry"
)

// quiet makes a client without credentials and pauses.
func quiet(t *testing.T) *registry.Client {
	c := registry.New(registry.Config{
		Credentials: func(string) (string, string, error) { return "", "", nil },
		Sleep:       func(time.Duration, <-chan struct{}) {},
	})
	t.Cleanup(c.Close)
	return c
}

func TestContract(t *testing.T) {
	reg := testregistry.Start(t)
	open := func(t *testing.T) *Store {
		ref, err := registry.ParseRef(reg.Ref("cache/" + strings.ToLower(strings.NewReplacer("/", "-").Replace(t.Name()))))
		if err != nil {
			t.Fatal(err)
		}
		return New(quiet(t), ref)
	}
	t.Run("Bare", func(t *testing.T) { storetest.Run(t, func(t *testing.T) remote.Store { return open(t) }) })
	t.Run("WrappedForWriting", func(t *testing.T) {
		storetest.Run(t, func(t *testing.T) remote.Store { return remote.Wrap(open(t).ForWriting(), remote.Options{}) })
	})
}

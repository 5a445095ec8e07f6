package testregistry

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/distribution/distribution/v3/configuration"
	"github.com/distribution/distribution/v3/registry/handlers"
	storagedriver "github.com/distribution/distribution/v3/registry/storage/driver"
	"github.com/sirupsen/logrus"
)

// Options choose how a registry runs. The zero value keeps everything in memory on a free loopback port.
type Options struct {
	// Addr is where to listen, "127.0.0.1:0" when empty.
	Addr string
	// Dir keeps the contents in files; empty keeps them in memory, where each 32 KiB that arrive copy the whole blob so far:
	// good for small images, hopeless for layers of more than some ten megabytes.
	Dir string
	// Wrap, where set, stands between the counters and the registry: a test refuses, delays or spoils answers with it.
	Wrap func(http.Handler) http.Handler
}

// Registry is a running registry. Its methods are safe for concurrent use.
type Registry struct {
	// Addr is host:port; image references start with it.
	Addr string

	driver storagedriver.StorageDriver
	app    *handlers.App
	server *server
	count  *counter
}

// Start runs a registry in memory until the test ends.
func Start(t testing.TB) *Registry { return StartWith(t, Options{}) }

// StartWith runs a registry until the test ends.
func StartWith(t testing.TB, opt Options) *Registry {
	t.Helper()
	r, err := Serve(opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Errorf("close the registry: %v", err)
		}
	})
	return r
}

// Serve runs a registry until Close.
func Serve(opt Options) (*Registry, error) {
	driver, err := openStorage(opt.Dir)
	if err != nil {
		return nil, fmt.Errorf("registry: %w", err)
	}
	storage := configuration.Storage{
		storageName: {"driver": driver},
		"delete":    {"enabled": true},
		// The purger is a goroutine without an owner that would wait for it.
		"maintenance": {"uploadpurging": map[any]any{"enabled": false}},
	}
	config := &configuration.Configuration{Version: "0.1", Storage: storage}
	config.Catalog.MaxEntries = 1000
	config.HTTP.Secret = rand.Text()
	config.Log.AccessLog.Disabled = true
	logrus.SetLevel(logrus.FatalLevel) // the registry has no logger of its own, and every 404 is an "error" to it
	r := &Registry{driver: driver, app: handlers.NewApp(context.Background(), config)}
	var h http.Handler = r.app
	if opt.Wrap != nil {
		h = opt.Wrap(h)
	}
	r.count = &counter{next: h}
	if r.server, err = listen(opt.Addr, r.count); err != nil {
		return nil, errors.Join(fmt.Errorf("registry: %w", err), r.app.Shutdown())
	}
	r.Addr = r.server.addr
	return r, nil
}

// Close stops the registry at once and waits until it listens no more.
func (r *Registry) Close() error {
	return errors.Join(r.server.close(), r.app.Shutdown())
}

// Ref gives the reference of an image in this registry; name is "repository:tag".
func (r *Registry) Ref(name string) string { return r.Addr + "/" + name }

// splitName cuts "repository:tag", with "latest" for a missing tag.
func splitName(name string) (repository, tag string) {
	repository, tag, ok := strings.Cut(name, ":")
	if !ok {
		tag = "latest"
	}
	return repository, tag
}

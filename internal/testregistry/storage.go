package testregistry

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path"
	"path/filepath"
	"slices"

	storagedriver "github.com/distribution/distribution/v3/registry/storage/driver"
	"github.com/distribution/distribution/v3/registry/storage/driver/factory"
	"github.com/distribution/distribution/v3/registry/storage/driver/filesystem"
	"github.com/distribution/distribution/v3/registry/storage/driver/inmemory"
	"github.com/opencontainers/go-digest"
)

// storageName is what the registry's configuration calls a storage that was made before it. That way, tests can reach
// below the registry.
const storageName = "testregistry"

func init() { factory.Register(storageName, given{}) }

// given hands over the driver that stands in the parameters.
type given struct{}

func (given) Create(_ context.Context, parameters map[string]any) (storagedriver.StorageDriver, error) {
	d, ok := parameters["driver"].(storagedriver.StorageDriver)
	if !ok {
		return nil, errors.New("no driver among the parameters")
	}
	return d, nil
}

// openStorage opens a directory, which it makes, or a storage in memory where dir is empty.
func openStorage(dir string) (storagedriver.StorageDriver, error) {
	if dir == "" {
		return inmemory.New(), nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	return filesystem.FromParameters(map[string]any{"rootdirectory": dir})
}

// Where distribution keeps things.
const (
	blobsPath        = "/docker/registry/v2/blobs"
	repositoriesPath = "/docker/registry/v2/repositories"
)

func blobPath(d digest.Digest) string {
	return path.Join(blobsPath, d.Algorithm().String(), d.Encoded()[:2], d.Encoded())
}

// Forget removes a repository, so that a push sends everything again.
func (r *Registry) Forget(repository string) error {
	if !filepath.IsLocal(repository) {
		return fmt.Errorf("%q is no repository", repository)
	}
	return r.remove(path.Join(repositoriesPath, repository))
}

// remove deletes a directory of the storage; one that is not there is no error.
func (r *Registry) remove(p string) error {
	err := r.driver.Delete(context.Background(), p)
	if errors.As(err, new(storagedriver.PathNotFoundError)) {
		return nil
	}
	return err
}

// Blobs lists the blobs that some repository holds, sorted: layers, configs and whatever else was uploaded as a blob.
// Manifests are not among them.
func (r *Registry) Blobs() ([]digest.Digest, error) {
	links, err := r.links()
	if err != nil {
		return nil, err
	}
	var list []digest.Digest
	for d := range links {
		_, err := r.driver.Stat(context.Background(), path.Join(blobPath(d), "data"))
		if errors.As(err, new(storagedriver.PathNotFoundError)) {
			continue
		}
		if err != nil {
			return nil, err
		}
		list = append(list, d)
	}
	slices.Sort(list)
	return list, nil
}

// links finds each blob's links in repositories.
func (r *Registry) links() (map[digest.Digest][]string, error) {
	found := map[digest.Digest][]string{}
	err := r.driver.Walk(context.Background(), repositoriesPath, func(info storagedriver.FileInfo) error {
		// .../repositories/NAME/_layers/sha256/HEX/link
		dir, file := path.Split(info.Path())
		dir, hex := path.Split(path.Clean(dir))
		dir, algorithm := path.Split(path.Clean(dir))
		if info.IsDir() || file != "link" || path.Base(dir) != "_layers" {
			return nil
		}
		d := digest.NewDigestFromEncoded(digest.Algorithm(algorithm), hex)
		if err := d.Validate(); err != nil {
			return fmt.Errorf("%s: %w", info.Path(), err)
		}
		found[d] = append(found[d], path.Dir(info.Path()))
		return nil
	})
	if errors.As(err, new(storagedriver.PathNotFoundError)) {
		err = nil
	}
	return found, err
}

// DeleteBlobs removes each blob with the probability share, chosen by seed, except those for which keep (nil keeps none)
// says true. As after a collector that errs, manifests that name the blobs stay, and the registry answers 404 for a blob in
// every repository. It gives what it removed.
func (r *Registry) DeleteBlobs(seed uint64, share float64, keep func(digest.Digest) bool) ([]digest.Digest, error) {
	blobs, err := r.Blobs()
	if err != nil {
		return nil, err
	}
	links, err := r.links()
	if err != nil {
		return nil, err
	}
	rnd := rand.New(rand.NewPCG(seed, 0))
	var gone []digest.Digest
	for _, d := range blobs {
		if rnd.Float64() >= share || keep != nil && keep(d) {
			continue
		}
		for _, p := range append(links[d], blobPath(d)) {
			if err := r.remove(p); err != nil {
				return gone, err
			}
		}
		gone = append(gone, d)
	}
	return gone, nil
}

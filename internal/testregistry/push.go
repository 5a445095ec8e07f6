package testregistry

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"testing"

	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2"
	"oras.land/oras-go/v2/content/oci"
	"oras.land/oras-go/v2/registry/remote"
)

// PushLayout puts the only image of an OCI layout into the registry as "repository:tag", uncounted, and sends nothing
// when the tag points there already. It returns the image's descriptor.
func (r *Registry) PushLayout(ctx context.Context, name, layout string) (ocispecs.Descriptor, error) {
	desc, err := r.pushLayout(ctx, name, layout)
	if err != nil {
		return desc, fmt.Errorf("push %s as %s: %w", layout, name, err)
	}
	return desc, nil
}

func (r *Registry) pushLayout(ctx context.Context, name, layout string) (ocispecs.Descriptor, error) {
	b, err := os.ReadFile(filepath.Join(layout, ocispecs.ImageIndexFile))
	if err != nil {
		return ocispecs.Descriptor{}, err
	}
	var index ocispecs.Index
	if err := json.Unmarshal(b, &index); err != nil {
		return ocispecs.Descriptor{}, err
	}
	if len(index.Manifests) != 1 {
		return ocispecs.Descriptor{}, fmt.Errorf("it holds %d images", len(index.Manifests))
	}
	desc := index.Manifests[0]
	repository, tag := splitName(name)
	repo, err := remote.NewRepository(r.Addr + "/" + repository)
	if err != nil {
		return desc, err
	}
	repo.PlainHTTP = true
	repo.Client = &http.Client{Transport: uncountedTransport{}}
	if have, err := repo.Resolve(ctx, tag); err == nil && have.Digest == desc.Digest {
		return desc, nil
	}
	store, err := oci.NewFromFS(ctx, os.DirFS(layout))
	if err != nil {
		return desc, err
	}
	if err := oras.CopyGraph(ctx, store, repo, desc, oras.DefaultCopyGraphOptions); err != nil {
		return desc, err
	}
	return desc, repo.Tag(ctx, desc, tag)
}

// PushBase puts base images into the registry under their own names ("debian:latest", pulled as Ref("debian")) and
// skips the test where one is missing.
func (r *Registry) PushBase(t testing.TB, names ...string) {
	t.Helper()
	for _, name := range names {
		if _, err := r.PushLayout(t.Context(), name, Base(t, name)); err != nil {
			t.Fatal(err)
		}
	}
}

type uncountedTransport struct{}

func (uncountedTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	req = req.Clone(req.Context())
	req.Header.Set(uncounted, "1")
	return http.DefaultTransport.RoundTrip(req)
}

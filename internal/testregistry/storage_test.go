package testregistry

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

func TestDeletedBlobsAreGoneAndManifestsStay(t *testing.T) {
	for name, opt := range map[string]Options{"memory": {}, "disk": {Dir: t.TempDir()}} {
		t.Run(name, func(t *testing.T) {
			r := StartWith(t, opt)
			if list, err := r.Blobs(); err != nil || len(list) != 0 {
				t.Fatalf("an empty registry has %v, %v", list, err)
			}
			var want []digest.Digest
			for i := range 20 {
				want = append(want, putBlob(t, r, "app", fmt.Sprint("blob ", i)))
			}
			putBlob(t, r, "other/app", "blob 3")
			manifest := putManifest(t, r, "app", "v1", want...)
			slices.Sort(want)
			if list, err := r.Blobs(); err != nil || !slices.Equal(list, want) {
				t.Fatalf("blobs %v, %v; want %v", list, err, want)
			}

			kept := digest.FromString("blob 3")
			gone, err := r.DeleteBlobs(1, 0.5, func(d digest.Digest) bool { return d == kept })
			if err != nil || len(gone) < 4 || len(gone) > 16 || slices.Contains(gone, kept) {
				t.Fatalf("half of 20 blobs: %d, %v", len(gone), err)
			}
			for _, d := range want {
				status := http.StatusOK
				if slices.Contains(gone, d) {
					status = http.StatusNotFound
				}
				for _, method := range []string{http.MethodHead, http.MethodGet} {
					if got, _ := ask(t, r, method, "/v2/app/blobs/"+d.String(), nil); got != status {
						t.Errorf("%s of blob %s: %d, want %d", method, d, got, status)
					}
				}
			}
			if got := get(t, r, "/v2/app/manifests/v1"); got != manifest {
				t.Errorf("the manifest became %s", got)
			}
			// Neither a mount nor a manifest brings a deleted blob back; its bytes do.
			if got, _ := ask(t, r, http.MethodPost, "/v2/new/blobs/uploads/?from=app&mount="+gone[0].String(), nil); got != http.StatusAccepted {
				t.Errorf("mount of a deleted blob: %d", got)
			}
			if got, body := ask(t, r, http.MethodPut, "/v2/app/manifests/v2", strings.NewReader(manifest)); got != http.StatusBadRequest && got != http.StatusNotFound {
				t.Errorf("manifest that names deleted blobs: %d %s", got, body)
			}

			rest, err := r.DeleteBlobs(1, 1, nil)
			if err != nil || len(rest)+len(gone) != len(want) {
				t.Errorf("%d and %d of %d blobs, %v", len(gone), len(rest), len(want), err)
			}
			if got, _ := ask(t, r, http.MethodHead, "/v2/other/app/blobs/"+kept.String(), nil); got != http.StatusNotFound {
				t.Errorf("a blob stayed in its other repository: %d", got)
			}
			putBlob(t, r, "app", "blob 3")
			get(t, r, "/v2/app/blobs/"+kept.String())
		})
	}
}

func TestDeletionIsSeeded(t *testing.T) {
	var first []digest.Digest
	for range 2 {
		r := Start(t)
		for i := range 30 {
			putBlob(t, r, "app", fmt.Sprint("blob ", i))
		}
		gone, err := r.DeleteBlobs(7, 0.3, nil)
		if err != nil {
			t.Fatal(err)
		}
		if first == nil {
			first = gone
		} else if !slices.Equal(first, gone) {
			t.Errorf("one seed removed %v and %v", first, gone)
		}
	}
}

// ask sends one request to a registry or another server.
func ask(t *testing.T, r *Registry, method, path string, body io.Reader) (status int, text string) {
	t.Helper()
	if strings.HasPrefix(path, "/") {
		path = "http://" + r.Addr + path
	}
	req, err := http.NewRequestWithContext(t.Context(), method, path, body)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", ocispecs.MediaTypeImageManifest)
	req.Header.Set("Accept", ocispecs.MediaTypeImageManifest)
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(b)
}

// putBlob uploads a text in one request.
func putBlob(t *testing.T, r *Registry, repository, text string) digest.Digest {
	t.Helper()
	d := digest.FromString(text)
	res, err := http.Post("http://"+r.Addr+"/v2/"+repository+"/blobs/uploads/", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if status, body := ask(t, r, http.MethodPut, res.Header.Get("Location")+"&digest="+d.String(), strings.NewReader(text)); status != http.StatusCreated {
		t.Fatalf("PUT of a blob: %d %s", status, body)
	}
	return d
}

// putManifest tags a manifest whose layers are blobs of some text each and gives its bytes.
func putManifest(t *testing.T, r *Registry, repository, tag string, layers ...digest.Digest) string {
	t.Helper()
	m := ocispecs.Manifest{MediaType: ocispecs.MediaTypeImageManifest}
	m.SchemaVersion = 2
	for _, d := range layers {
		m.Layers = append(m.Layers, ocispecs.Descriptor{MediaType: ocispecs.MediaTypeImageLayer, Digest: d, Size: 1})
	}
	m.Config = ocispecs.Descriptor{MediaType: ocispecs.MediaTypeImageConfig, Digest: layers[0], Size: 1}
	b, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	if status, body := ask(t, r, http.MethodPut, "/v2/"+repository+"/manifests/"+tag, bytes.NewReader(b)); status != http.StatusCreated {
		t.Fatalf("PUT of a manifest: %d %s", status, body)
	}
	return string(b)
}

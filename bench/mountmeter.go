package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"larder/internal/generation"
	"larder/internal/pack"
	"larder/internal/testregistry"
)

// maxDocument bounds what is read of a registry's answer, in bytes.
const maxDocument = 16 << 20

// mountMeter counts what one build moves of the contents of cache mounts.
type mountMeter struct {
	h          *harness
	keeper     MountKeeper
	repository string
	blobs      map[digest.Digest]bool // that the repository named before the build
}

// meter is made before a build; nil for one whose cache mounts are not in the registry.
func (h *harness) meter(c *contestant, s series) (*mountMeter, error) {
	k, ok := c.b.(MountKeeper)
	if !ok || s == alone {
		return nil, nil
	}
	m := &mountMeter{h: h, keeper: k, repository: c.b.CacheRepository(c.repository(s)), blobs: map[digest.Digest]bool{}}
	return m, h.mountBlobs(m.repository, m.blobs)
}

// traffic is for after the build, whose requests it is given. It is nil on nil.
func (m *mountMeter) traffic(log []testregistry.Request) (*mountTraffic, error) {
	if m == nil {
		return nil, nil
	}
	if err := m.h.mountBlobs(m.repository, m.blobs); err != nil {
		return nil, err
	}
	t := &mountTraffic{mountTimes: m.keeper.MountTimes()}
	t.down, t.up = moved(log, m.blobs)
	return t, nil
}

// mountBlobs adds to found the blobs that the documents of a repository name for cache mounts' contents.
func (h *harness) mountBlobs(repository string, found map[digest.Digest]bool) error {
	var list struct{ Tags []string }
	if err := h.ask(repository, "tags/list", &list); err != nil {
		return err
	}
	for _, tag := range list.Tags {
		var m ocispecs.Manifest
		if err := h.ask(repository, "manifests/"+tag, &m); err != nil {
			return err
		}
		for _, d := range m.Layers {
			if d.MediaType == pack.MediaType || d.MediaType == generation.MediaType {
				found[d.Digest] = true
			}
		}
	}
	return nil
}

// ask reads a document of the registry; one that is not there is an empty one.
func (h *harness) ask(repository, object string, v any) error {
	req, err := http.NewRequest(http.MethodGet, "http://"+h.registry.Addr+"/v2/"+repository+"/"+object, nil)
	if err != nil {
		return err
	}
	req.Header["Accept"] = []string{ocispecs.MediaTypeImageManifest, ocispecs.MediaTypeImageIndex, "*/*"}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	switch res.StatusCode {
	case http.StatusOK:
		return json.NewDecoder(io.LimitReader(res.Body, maxDocument)).Decode(v)
	case http.StatusNotFound:
		return nil
	}
	return fmt.Errorf("%s: %s", req.URL, res.Status)
}

// moved sums up what requests moved of some blobs. The bytes of an upload may come before its digest is said.
func moved(log []testregistry.Request, blobs map[digest.Digest]bool) (down, up int64) {
	uploads := map[string]int64{}
	for _, r := range log {
		path, query, _ := strings.Cut(r.Path, "?")
		if !strings.Contains(path, "/blobs/uploads/") {
			if blobs[digest.Digest(path[strings.LastIndexByte(path, '/')+1:])] {
				down += r.Down
			}
			continue
		}
		uploads[path] += r.Up
		values, err := url.ParseQuery(query)
		if err == nil && r.Method == http.MethodPut && blobs[digest.Digest(values.Get("digest"))] {
			up += uploads[path]
		}
	}
	return down, up
}

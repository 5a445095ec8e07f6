package main

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"larder/internal/generation"
	"larder/internal/pack"
)

// TestMountBytes tells packs and segments from what else lies in a repository, and counts them in both directions, in parts and whole.
func TestMountBytes(t *testing.T) {
	s := newStage(t, 0)
	const repo = "bench/a"
	base := "http://" + s.registry.Addr + "/v2/" + repo + "/"
	send := func(method, url string, body []byte) *http.Response {
		t.Helper()
		req, err := http.NewRequest(method, url, bytes.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(url, "/manifests/") {
			req.Header.Set("Content-Type", ocispecs.MediaTypeImageManifest)
		}
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		text, _ := io.ReadAll(res.Body)
		res.Body.Close()
		if res.StatusCode/100 != 2 {
			t.Fatalf("%s %s: %s: %s", method, url, res.Status, text)
		}
		return res
	}
	push := func(b []byte, parts bool) ocispecs.Descriptor {
		t.Helper()
		d := digest.FromBytes(b)
		at := send(http.MethodPost, base+"blobs/uploads/", nil).Header.Get("Location")
		rest := b
		if parts {
			at, rest = send(http.MethodPatch, at, b[:len(b)/2]).Header.Get("Location"), nil
			at = send(http.MethodPatch, at, b[len(b)/2:]).Header.Get("Location")
		}
		send(http.MethodPut, at+"&digest="+strings.ReplaceAll(d.String(), ":", "%3A"), rest)
		return ocispecs.Descriptor{Digest: d, Size: int64(len(b))}
	}
	found := map[digest.Digest]bool{}
	if err := s.mountBlobs(repo, found); err != nil || len(found) != 0 {
		t.Fatalf("of a repository that is not there: %v, %v", found, err)
	}
	s.registry.ResetCounts()
	layer, packed, segment := push(make([]byte, 1000), true), push(make([]byte, 200), true), push(make([]byte, 30), false)
	layer.MediaType, packed.MediaType, segment.MediaType = ocispecs.MediaTypeImageLayerZstd, pack.MediaType, generation.MediaType
	config := push([]byte("{}"), false)
	config.MediaType = ocispecs.MediaTypeImageConfig
	m := ocispecs.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispecs.MediaTypeImageManifest,
		Config: config, Layers: []ocispecs.Descriptor{layer, packed, segment},
	}
	send(http.MethodPut, base+"manifests/catalog", marshalled(t, m))
	for _, d := range m.Layers {
		send(http.MethodGet, base+"blobs/"+d.Digest.String(), nil)
	}
	log := s.registry.Requests()
	if err := s.mountBlobs(repo, found); err != nil {
		t.Fatal(err)
	}
	if down, up := moved(log, found); len(found) != 2 || down != 230 || up != 230 {
		t.Errorf("%d blobs, %d bytes from the registry and %d to it; want 2 blobs of 230 bytes both ways", len(found), down, up)
	}
}

func marshalled(t *testing.T, v any) []byte {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

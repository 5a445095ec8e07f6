package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

// A registry serves base images read-only, over plain http on loopback. Everything is added before it is started.
type registry struct {
	blobs     map[string][]byte // by digest
	manifests map[string]ocispecs.Descriptor
	sources   http.Handler // what is outside /v2/
	server    *http.Server
	done      chan error
}

func newRegistry() *registry {
	return &registry{blobs: map[string][]byte{}, manifests: map[string]ocispecs.Descriptor{}}
}

// add stores a blob and returns its digest.
func (r *registry) add(data []byte) string {
	sum := sha256.Sum256(data)
	digest := "sha256:" + hex.EncodeToString(sum[:])
	r.blobs[digest] = data
	return digest
}

// addJSON stores a value as a blob and returns its descriptor.
func (r *registry) addJSON(mediaType string, v any) (ocispecs.Descriptor, error) {
	data, err := json.Marshal(v)
	if err != nil {
		return ocispecs.Descriptor{}, err
	}
	return descriptor(mediaType, r.add(data), len(data)), nil
}

// tag makes NAME:latest and NAME@DIGEST answer with the manifest.
func (r *registry) tag(name string, d ocispecs.Descriptor) {
	r.manifests[name+"/latest"] = d
	r.manifests[name+"/"+d.Digest.String()] = d
}

// start serves on a free port of loopback and returns the address.
func (r *registry) start() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	r.server = &http.Server{Handler: r, ReadHeaderTimeout: time.Minute}
	r.done = make(chan error, 1)
	go func() { r.done <- r.server.Serve(l) }()
	return l.Addr().String(), nil
}

func (r *registry) stop() {
	r.server.Close()
	<-r.done
}

func (r *registry) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	if !strings.HasPrefix(req.URL.Path, "/v2/") && r.sources != nil {
		r.sources.ServeHTTP(w, req)
		return
	}
	if req.Method != http.MethodGet && req.Method != http.MethodHead {
		http.Error(w, "read only", http.StatusMethodNotAllowed)
		return
	}
	rest := strings.TrimPrefix(req.URL.Path, "/v2/")
	if rest == "" {
		return
	}
	digest, mediaType := "", "application/octet-stream"
	if name, ref, ok := strings.Cut(rest, "/manifests/"); ok {
		d := r.manifests[name+"/"+ref]
		digest, mediaType = d.Digest.String(), d.MediaType
	} else if _, ref, ok := strings.Cut(rest, "/blobs/"); ok {
		digest = ref
	}
	data, ok := r.blobs[digest]
	if !ok {
		http.NotFound(w, req)
		return
	}
	w.Header().Set("Content-Type", mediaType)
	w.Header().Set("Docker-Content-Digest", digest)
	http.ServeContent(w, req, "", time.Time{}, bytes.NewReader(data))
}

// pull copies NAME:latest from the registry at addr, for one platform, and tags it here under the same name.
func (r *registry) pull(ctx context.Context, addr, name string) error {
	fetch := func(kind, ref string) ([]byte, error) {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+"/v2/"+name+"/"+kind+"/"+ref, nil)
		if err != nil {
			return nil, err
		}
		req.Header["Accept"] = []string{ocispecs.MediaTypeImageManifest, mediaTypeDockerManifest}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return nil, err
		}
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return nil, fmt.Errorf("%s: %s", req.URL, resp.Status)
		}
		return io.ReadAll(io.LimitReader(resp.Body, 1<<30))
	}
	data, err := fetch("manifests", "latest")
	if err != nil {
		return err
	}
	var m ocispecs.Manifest
	if err := json.Unmarshal(data, &m); err != nil {
		return fmt.Errorf("manifest of %s: %w", name, err)
	}
	for _, d := range append([]ocispecs.Descriptor{m.Config}, m.Layers...) {
		blob, err := fetch("blobs", d.Digest.String())
		if err != nil {
			return err
		}
		if got := r.add(blob); got != d.Digest.String() {
			return fmt.Errorf("blob %s of %s arrived as %s", d.Digest, name, got)
		}
	}
	r.tag(name, descriptor(m.MediaType, r.add(data), len(data)))
	return nil
}

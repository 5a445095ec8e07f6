package registry

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

// MaxManifest bounds the size of a manifest in bytes; registries do not store larger ones.
const MaxManifest = 4 << 20

// The media types of Docker's image format, beside those of OCI that image-spec names.
const (
	MediaTypeDockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
	MediaTypeDockerList     = "application/vnd.docker.distribution.manifest.list.v2+json"
)

var acceptManifest = strings.Join([]string{ocispecs.MediaTypeImageIndex, ocispecs.MediaTypeImageManifest,
	MediaTypeDockerList, MediaTypeDockerManifest}, ", ")

// Resolve asks what a tag points to, by one HEAD. A registry that answers HEAD badly is asked with GET instead.
func (c *Client) Resolve(ctx context.Context, ref Ref) (ocispecs.Descriptor, error) {
	return c.resolve(ctx, "pull", ref, pullScope(ref.Repo))
}

// ResolvePush is Resolve at the registry itself, never at a mirror, and under a token that may push: for a caller that
// is about to.
func (c *Client) ResolvePush(ctx context.Context, ref Ref) (ocispecs.Descriptor, error) {
	return c.resolve(ctx, "push", ref, pushScope(ref.Repo))
}

func (c *Client) resolve(ctx context.Context, op string, ref Ref, scope string) (ocispecs.Descriptor, error) {
	object, err := ref.object()
	if err != nil {
		return ocispecs.Descriptor{}, fail(ctx, op, ref, err)
	}
	q := call{method: http.MethodHead, path: "manifests/" + object, header: http.Header{"Accept": {acceptManifest}}, scopes: []string{scope}}
	var desc ocispecs.Descriptor
	useful := true
	accept := func(e *endpoint, resp *http.Response) bool {
		if resp.StatusCode == http.StatusMethodNotAllowed {
			useful = false
			return true
		}
		if resp.StatusCode != http.StatusOK {
			return false
		}
		desc, useful = headDescriptor(resp, ref)
		return true
	}
	var resp *http.Response
	if op == "push" {
		var e *endpoint
		if e, err = c.own(ref); err == nil {
			if resp, err = c.send(ctx, e, ref.Repo, q); err == nil && !accept(e, resp) {
				err = statusError(e, resp)
			}
		}
	} else {
		_, resp, err = c.anywhere(ctx, ref, q, accept)
	}
	if err != nil {
		return desc, fail(ctx, op, ref, err)
	}
	resp.Body.Close()
	if !useful && op == "push" {
		desc, _, err = c.FetchPush(ctx, ref)
	} else if !useful {
		desc, _, err = c.Fetch(ctx, ref)
	}
	return desc, err
}

// headDescriptor reads the headers of an answer to HEAD; false where they say too little or what cannot be.
func headDescriptor(resp *http.Response, ref Ref) (ocispecs.Descriptor, bool) {
	d := digest.Digest(resp.Header.Get("Docker-Content-Digest"))
	if ref.Digest != "" {
		d = ref.Digest
	}
	mt, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	if d.Validate() != nil || !isManifestType(mt) || resp.ContentLength <= 0 || resp.ContentLength > MaxManifest {
		return ocispecs.Descriptor{}, false
	}
	return ocispecs.Descriptor{MediaType: mt, Digest: d, Size: resp.ContentLength}, true
}

func isManifestType(mt string) bool {
	switch mt {
	case ocispecs.MediaTypeImageIndex, ocispecs.MediaTypeImageManifest, MediaTypeDockerList, MediaTypeDockerManifest:
		return true
	}
	return false
}

// Manifest fetches the manifest that desc names from ref's repository, by one GET, and verifies it.
func (c *Client) Manifest(ctx context.Context, ref Ref, desc ocispecs.Descriptor) ([]byte, error) {
	_, b, err := c.Fetch(ctx, ref.WithDigest(desc.Digest))
	return b, err
}

// Fetch gets the manifest that a tag points to, or that a digest names, by one GET. The bytes match the descriptor's
// digest; they are JSON of the descriptor's media type and at most MaxManifest long.
func (c *Client) Fetch(ctx context.Context, ref Ref) (ocispecs.Descriptor, []byte, error) {
	return c.fetch(ctx, ref, pullScope(ref.Repo), func(q call) (*endpoint, *http.Response, error) {
		return c.anywhere(ctx, ref, q, func(_ *endpoint, resp *http.Response) bool { return resp.StatusCode == http.StatusOK })
	})
}

// FetchOwn is Fetch at the registry itself, never at a mirror, which may show a tag as it was yesterday.
func (c *Client) FetchOwn(ctx context.Context, ref Ref) (ocispecs.Descriptor, []byte, error) {
	return c.fetchOwn(ctx, ref, pullScope(ref.Repo))
}

// FetchPush is FetchOwn under a token that may push: for a caller that is about to. Many registries say of a repository which is
// not there yet that access to it is denied, unless to one who may make it.
func (c *Client) FetchPush(ctx context.Context, ref Ref) (ocispecs.Descriptor, []byte, error) {
	return c.fetchOwn(ctx, ref, pushScope(ref.Repo))
}

func (c *Client) fetchOwn(ctx context.Context, ref Ref, scope string) (ocispecs.Descriptor, []byte, error) {
	return c.fetch(ctx, ref, scope, func(q call) (*endpoint, *http.Response, error) { return c.ask(ctx, ref, q, http.StatusOK) })
}

func (c *Client) fetch(ctx context.Context, ref Ref, scope string, get func(call) (*endpoint, *http.Response, error)) (ocispecs.Descriptor, []byte, error) {
	object, err := ref.object()
	if err != nil {
		return ocispecs.Descriptor{}, nil, fail(ctx, "pull", ref, err)
	}
	q := call{method: http.MethodGet, path: "manifests/" + object, header: http.Header{"Accept": {acceptManifest}},
		scopes: []string{scope}}
	for try := 1; ; try++ {
		e, resp, err := get(q)
		if err != nil {
			return ocispecs.Descriptor{}, nil, fail(ctx, "pull", ref, err)
		}
		desc, b, err := readManifest(e, resp, ref)
		// What came damaged may have been hurt on its way: it is asked for once more. Other errors are connections that broke
		// within the answer.
		if err == nil || errors.Is(err, ErrDamaged) && try > 1 || try == maxTries || ctx.Err() != nil {
			return desc, b, fail(ctx, "pull", ref, err)
		}
		c.cfg.Sleep(backoff(try), ctx.Done())
	}
}

func readManifest(e *endpoint, resp *http.Response, ref Ref) (ocispecs.Descriptor, []byte, error) {
	defer resp.Body.Close()
	none := ocispecs.Descriptor{}
	if resp.ContentLength > MaxManifest {
		return none, nil, damaged(e, "a manifest of %d bytes (the limit is %d)", resp.ContentLength, MaxManifest)
	}
	b, err := io.ReadAll(io.LimitReader(resp.Body, MaxManifest+1))
	if err != nil {
		return none, nil, netError(e, err)
	}
	if len(b) > MaxManifest {
		return none, nil, damaged(e, "a manifest of more than %d bytes", MaxManifest)
	}
	want := ref.Digest
	if want == "" {
		want = digest.Digest(resp.Header.Get("Docker-Content-Digest"))
	}
	got := digest.FromBytes(b)
	if want != "" {
		if err := want.Validate(); err != nil {
			return none, nil, damaged(e, "the digest %.100q", want)
		}
		if got = want.Algorithm().FromBytes(b); got != want {
			return none, nil, damaged(e, "%s instead of a manifest with digest %s", describe(resp, b), want)
		}
	}
	var doc struct {
		MediaType string          `json:"mediaType"`
		Schema    int             `json:"schemaVersion"`
		Manifests json.RawMessage `json:"manifests"`
		Config    json.RawMessage `json:"config"`
		Layers    json.RawMessage `json:"layers"`
	}
	if err := json.Unmarshal(b, &doc); err != nil {
		return none, nil, damaged(e, "%s instead of a manifest", describe(resp, b))
	}
	if doc.Schema == 1 {
		return none, nil, damaged(e, "an image manifest of schema 1, a format that was given up in 2019: push the image again with a current tool")
	}
	mt := doc.MediaType
	if mt == "" {
		mt, _, _ = mime.ParseMediaType(resp.Header.Get("Content-Type"))
	}
	index := mt == ocispecs.MediaTypeImageIndex || mt == MediaTypeDockerList
	// One document that is an index to one reader and an image to another is an attack (CVE-2021-41190).
	if !isManifestType(mt) || index && (doc.Config != nil || doc.Layers != nil) || !index && doc.Manifests != nil {
		return none, nil, damaged(e, "%s instead of an image manifest", describe(resp, b))
	}
	return ocispecs.Descriptor{MediaType: mt, Digest: got, Size: int64(len(b))}, b, nil
}

// describe says what an answer looks like, for a person.
func describe(resp *http.Response, b []byte) string {
	mt, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	start := bytes.ToLower(bytes.TrimSpace(b[:min(len(b), 64)]))
	if mt == "text/html" || bytes.HasPrefix(start, []byte("<!doctype html")) || bytes.HasPrefix(start, []byte("<html")) {
		return "a web page (is it a registry? a proxy's sign-in page looks like this)"
	}
	if mt == "" {
		return "something of no stated type"
	}
	return "a document of type " + Clean(mt)
}

// PushManifest stores a manifest under ref's tag, or under its digest where ref has no tag, by one PUT. Every blob and
// manifest that it names has to be there before.
func (c *Client) PushManifest(ctx context.Context, ref Ref, mediaType string, b []byte) error {
	return c.pushManifest(ctx, ref, mediaType, b, false)
}

// PushManifestOnce is PushManifest without a second try after a passing failure: for a caller that has just looked at what
// it replaces, and has to look again before it repeats.
func (c *Client) PushManifestOnce(ctx context.Context, ref Ref, mediaType string, b []byte) error {
	return c.pushManifest(ctx, ref, mediaType, b, true)
}

func (c *Client) pushManifest(ctx context.Context, ref Ref, mediaType string, b []byte, once bool) error {
	e, err := c.own(ref)
	if err != nil {
		return fail(ctx, "push", ref, err)
	}
	d := digest.FromBytes(b)
	object := ref.Tag
	if object == "" {
		object = d.String()
	}
	resp, err := c.send(ctx, e, ref.Repo, call{
		method: http.MethodPut, path: "manifests/" + object, header: http.Header{"Content-Type": {mediaType}},
		body: func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b)), nil }, size: int64(len(b)),
		scopes: []string{pushScope(ref.Repo)}, once: once,
	})
	if err != nil {
		return fail(ctx, "push", ref, err)
	}
	if resp.StatusCode/100 != 2 {
		return fail(ctx, "push", ref, statusError(e, resp))
	}
	resp.Body.Close()
	if got := resp.Header.Get("Docker-Content-Digest"); strings.HasPrefix(got, "sha256:") && got != d.String() {
		return fail(ctx, "push", ref, damaged(e, "back the digest %.100q for a manifest with %s", got, d))
	}
	return nil
}

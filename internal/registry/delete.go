package registry

import (
	"context"
	"net/http"

	"github.com/opencontainers/go-digest"
)

// DeleteManifest removes the manifest that ref's digest or tag names, by one DELETE. By digest, which every registry that
// deletes at all knows, each tag that points to it goes as well; by tag, some registries remove the tag alone and others refuse.
// A registry that has no such manifest gives an error that wraps ErrNotFound, one that deletes nothing answers 405.
func (c *Client) DeleteManifest(ctx context.Context, ref Ref) error {
	object, err := ref.object()
	if err != nil {
		return fail(ctx, "delete", ref, err)
	}
	return c.remove(ctx, ref, "manifests/"+object)
}

// DeleteBlob removes a blob from ref's repository, by one DELETE, whether manifests name it or not. Few registries allow it: the
// others answer 405.
func (c *Client) DeleteBlob(ctx context.Context, ref Ref, d digest.Digest) error {
	if err := d.Validate(); err != nil {
		return fail(ctx, "delete", ref, err)
	}
	return c.remove(ctx, ref.WithDigest(d), "blobs/"+d.String())
}

func (c *Client) remove(ctx context.Context, ref Ref, path string) error {
	_, resp, err := c.ask(ctx, ref, call{method: http.MethodDelete, path: path, scopes: []string{deleteScope(ref.Repo)}},
		http.StatusAccepted, http.StatusOK, http.StatusNoContent)
	if err != nil {
		return fail(ctx, "delete", ref, err)
	}
	return resp.Body.Close()
}

package registry

import (
	"bytes"
	"io"
	"net/http"
	"testing"
)

func FuzzManifest(f *testing.F) {
	f.Add("application/vnd.oci.image.manifest.v1+json", "", []byte(`{"schemaVersion":2,"config":{},"layers":[]}`))
	f.Add("text/html", "sha256:00", []byte("<html>"))
	f.Fuzz(func(t *testing.T, contentType, header string, b []byte) {
		resp := &http.Response{Header: http.Header{"Content-Type": {contentType}, "Docker-Content-Digest": {header}},
			Body: io.NopCloser(bytes.NewReader(b)), ContentLength: -1}
		desc, got, err := readManifest(&endpoint{host: "h"}, resp, Ref{Host: "h", Repo: "r", Tag: "t"})
		if err == nil && (!bytes.Equal(got, b) || desc.Digest.Algorithm().FromBytes(b) != desc.Digest || desc.Digest.Validate() != nil) {
			t.Errorf("%+v for %q", desc, b)
		}
	})
}

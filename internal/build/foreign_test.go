package build

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	"larder/internal/cacheref"
	"larder/internal/testregistry"
)

// serve is a registry of documents that BuildKit wrote; it has none of their layers.
func serve(t *testing.T, docs map[string][]byte) string {
	t.Helper()
	byDigest := map[string][]byte{}
	for _, b := range docs {
		byDigest[digest.FromBytes(b).String()] = b
	}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name := r.URL.Path[strings.LastIndexByte(r.URL.Path, '/')+1:]
		b, ok := docs[name]
		if !ok {
			b, ok = byDigest[name]
		}
		if !ok {
			http.NotFound(w, r)
			return
		}
		var doc struct {
			MediaType string `json:"mediaType"`
		}
		json.Unmarshal(b, &doc)
		w.Header().Set("Content-Type", doc.MediaType)
		w.Header().Set("Docker-Content-Digest", digest.FromBytes(b).String())
		w.Write(b)
	}))
	t.Cleanup(s.Close)
	return strings.TrimPrefix(s.URL, "http://")
}

// TestWhatBuildKitLeftIsRecognised names caches and images that BuildKit wrote: the build says what they are and goes on.
func TestWhatBuildKitLeftIsRecognised(t *testing.T) {
	reg := newRegistry(t, testregistry.Options{})
	dir := project(t, stages(reg.Ref("base")))
	want := reference(t, dir, reg.Ref("app:main"), reg.Addr)
	for _, c := range []struct{ fixture, says string }{
		{"manifest", "a cache that BuildKit wrote, whose keys mean nothing to larder; its layers still spare transfers"},
		{"inline", "an image with BuildKit's inline cache, whose keys mean nothing to larder; its layers still spare transfers"},
	} {
		docs := map[string][]byte{}
		for name, file := range map[string]string{"cache": c.fixture + ".json", "config": c.fixture + ".config.json"} {
			b, err := os.ReadFile(filepath.Join("../inline/testdata/buildkit", file))
			if err != nil {
				t.Fatal(err)
			}
			docs[name] = b
		}
		addr := serve(t, docs)
		m := newMachine(t, reg.Addr, addr)
		req := request(dir, reg.Ref("app:main"))
		req.Cache = Cache{}
		var err error
		if req.Cache.From, err = cacheref.ParseFrom([]string{addr + "/app:cache"}); err != nil {
			t.Fatal(err)
		}
		if got, _ := m.must(req); got != want {
			t.Errorf("%s: image %s, want %s", c.fixture, got, want)
		}
		if !strings.Contains(m.text(), c.says) {
			t.Errorf("%s: it does not say %q:\n%s", c.fixture, c.says, m.text())
		}
	}
}

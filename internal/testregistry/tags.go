package testregistry

import (
	"bytes"
	"io"
	"net/http"
	"strings"
	"sync"

	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

// tags remembers what tags pointed to before.
type tags struct {
	mu     sync.Mutex
	before map[string]*answer // by the tag's path; nil where there was nothing
}

// watch looks at a tag before it changes.
func (s *tags) watch(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		dir, object, ok := strings.Cut(req.URL.Path, "/manifests/")
		if !ok || req.Method != http.MethodPut && req.Method != http.MethodDelete {
			next.ServeHTTP(w, req)
			return
		}
		paths := []string{req.URL.Path}
		byDigest := strings.Contains(object, ":")
		if byDigest {
			paths = nil
		}
		if byDigest && req.Method == http.MethodDelete { // takes the tags that point there along
			paths = s.below(dir + "/manifests/")
		}
		old := map[string]*answer{}
		for _, p := range paths {
			old[p] = current(next, req, p)
		}
		var body []byte
		if req.Method == http.MethodPut {
			var err error
			if body, err = io.ReadAll(req.Body); err != nil {
				panic(http.ErrAbortHandler) // the client is gone
			}
			req.Body = io.NopCloser(bytes.NewReader(body))
		}
		entry := Request{Status: http.StatusOK}
		next.ServeHTTP(&countingWriter{ResponseWriter: w, entry: &entry}, req)
		if entry.Status/100 != 2 {
			return
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.before == nil {
			s.before = map[string]*answer{}
		}
		for p, a := range old {
			same := a != nil && req.Method == http.MethodPut && bytes.Equal(a.body, body)
			other := byDigest && (a == nil || a.header.Get("Docker-Content-Digest") != object)
			if !same && !other {
				s.before[p] = a
			}
		}
	})
}

// below lists the tags of a repository that have been written.
func (s *tags) below(prefix string) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []string
	for p := range s.before {
		if strings.HasPrefix(p, prefix) {
			list = append(list, p)
		}
	}
	return list
}

// current asks the registry itself, with the rights of the request that is about to change the tag.
func current(h http.Handler, change *http.Request, path string) *answer {
	req := change.Clone(change.Context())
	req.Method, req.URL.Path, req.URL.RawPath, req.URL.RawQuery = http.MethodGet, path, "", ""
	req.Body, req.ContentLength = http.NoBody, 0
	req.Header.Del("Content-Type")
	req.Header.Del("Content-Length")
	req.Header.Set("Accept", strings.Join([]string{ocispecs.MediaTypeImageManifest, ocispecs.MediaTypeImageIndex,
		"application/vnd.docker.distribution.manifest.v2+json", "application/vnd.docker.distribution.manifest.list.v2+json"}, ", "))
	a := answerOf(h, req)
	if a.status != http.StatusOK {
		return nil
	}
	return a
}

// serve answers a question about a tag as it was before.
func (s *tags) serve(w http.ResponseWriter, req *http.Request) {
	s.mu.Lock()
	a := s.before[req.URL.Path]
	s.mu.Unlock()
	if a == nil {
		a = &answer{status: http.StatusNotFound, header: http.Header{"Content-Type": {"application/json"}},
			body: []byte(`{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}` + "\n")}
	}
	n := len(a.body)
	if req.Method == http.MethodHead {
		n = 0
	}
	a.write(w, n)
}

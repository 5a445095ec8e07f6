package build

import (
	"net/http"
	"strings"
	"sync"
	"testing"

	"larder/internal/cacheref"
	"larder/internal/fault"
	"larder/internal/testregistry"
)

// TestARepositoryThatDoesNotExistYet: some registries deny a look at what does not exist. The first build makes it all the same.
func TestARepositoryThatDoesNotExistYet(t *testing.T) {
	var mu sync.Mutex
	there := map[string]bool{"base": true, "app": true}
	reg := newRegistry(t, testregistry.Options{Wrap: func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			repo, _, ok := strings.Cut(strings.TrimPrefix(r.URL.Path, "/v2/"), "/")
			mu.Lock()
			if r.Method != http.MethodGet && r.Method != http.MethodHead {
				there[repo] = true
			}
			known := !ok || there[repo]
			mu.Unlock()
			if known {
				next.ServeHTTP(w, r)
				return
			}
			w.WriteHeader(http.StatusForbidden)
			w.Write([]byte(`{"errors":[{"code":"DENIED","message":"requested access to the resource is denied"}]}`))
		})
	}})
	dir := project(t, stages(reg.Ref("base")))
	for i := range 2 {
		req := request(dir, reg.Ref("app:main"))
		req.Cache = Cache{}
		m := newMachine(t, reg.Addr)
		m.must(req.cached(reg.Ref("cache")))
		if ran := m.runner.commands(); i == 1 && len(ran) > 0 {
			t.Errorf("the second build ran %q: the first one did not fill the cache\n%s", ran, m.text())
		}
	}
}

// TestTheCacheMustNotBeTheImage: --cache-to under the image's own tag would take the image away, or the cache.
func TestTheCacheMustNotBeTheImage(t *testing.T) {
	reg := newRegistry(t, testregistry.Options{})
	req := request(project(t, stages(reg.Ref("base"))), reg.Ref("app:latest"))
	req.Cache = Cache{}
	var err error
	if req.Cache.To, err = cacheref.ParseTo([]string{"type=registry,ref=" + reg.Ref("app:latest")}); err != nil {
		t.Fatal(err)
	}
	if _, _, err := newMachine(t, reg.Addr).build(req); fault.Of(err) != fault.Usage || !strings.Contains(err.Error(), "choose another tag") {
		t.Errorf("got %v", err)
	}
}

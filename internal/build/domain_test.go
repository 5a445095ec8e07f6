package build

import (
	"testing"

	"larder/internal/progress"
	"larder/internal/testregistry"
)

// TestWhoSharesCacheMounts on one machine: builds that do the same with the same remote caches, and no others. What a build without remote
// caches leaves is not a job's to save, and what a job may not save is in no other's directory.
func TestWhoSharesCacheMounts(t *testing.T) {
	reg := newRegistry(t, testregistry.Options{})
	m := newMachine(t, reg.Addr)
	domain := func(change func(r *Request)) string {
		req := request(t.TempDir(), reg.Ref("app:main"))
		req.Mounts = Mounts{Restore: true, Save: true}
		change(req)
		remotes := m.engine.Remotes()
		defer remotes.Close()
		stream := progress.NewStream()
		defer stream.Close()
		s, err := m.engine.session(t.Context(), remotes, req, stream)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		return s.Domain()
	}
	none := func(r *Request) { r.Cache.From, r.Cache.To = nil, nil }
	read := func(r *Request) { r.Cache.To = nil }
	kinds := map[string]func(r *Request){
		"nothing":             none,
		"read":                read,
		"read, mounts off":    func(r *Request) { read(r); r.Mounts = Mounts{} },
		"write":               func(*Request) {},
		"write, mounts off":   func(r *Request) { r.Mounts = Mounts{} },
		"write, not saved":    func(r *Request) { r.Mounts.Save = false },
		"write, not restored": func(r *Request) { r.Mounts.Restore = false },
		"another scope":       func(r *Request) { r.Cache.Scope = "feature" },
		"another cache": func(r *Request) {
			*r = *request(r.Context, reg.Ref("other:main"))
			r.Mounts = Mounts{Restore: true, Save: true}
		},
	}
	seen := map[string]string{}
	for name, change := range kinds {
		d := domain(change)
		if other, ok := seen[d]; ok {
			t.Errorf("%q and %q share cache mounts", name, other)
		}
		seen[d] = name
		if again := domain(change); again != d {
			t.Errorf("%q does not share cache mounts with itself", name)
		}
	}
	if domain(none) != domain(func(r *Request) { none(r); r.Mounts = Mounts{} }) {
		t.Error("what is not asked for changes nothing where there is no remote cache")
	}
	if domain(kinds["write"]) != domain(func(r *Request) { r.NoCache = true }) {
		t.Error("--no-cache builds have other cache mounts than those that come after them")
	}
}

package registry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"larder/internal/registry"
	"larder/internal/remote"
	"larder/internal/remote/storetest"
	"larder/internal/testregistry"
)

// spoilt is a registry whose answers a test can spoil.
type spoilt struct {
	*testregistry.Registry
	mu sync.Mutex
	f  func(w http.ResponseWriter, r *http.Request, next http.Handler)
}

func (s *spoilt) spoil(f func(w http.ResponseWriter, r *http.Request, next http.Handler)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.f = f
}

func start(t *testing.T) (*spoilt, *Store) {
	s := &spoilt{}
	s.Registry = testregistry.StartWith(t, testregistry.Options{Wrap: func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			s.mu.Lock()
			f := s.f
			s.mu.Unlock()
			if f == nil {
				next.ServeHTTP(w, r)
				return
			}
			f(w, r, next)
		})
	}})
	ref, err := registry.ParseRef(s.Ref("app"))
	if err != nil {
		t.Fatal(err)
	}
	return s, New(quiet(t), ref)
}

// requests lists what was asked since the last call, "GET manifests/tag".
func (s *spoilt) requests() string {
	var out []string
	for _, r := range s.Requests() {
		_, path, _ := strings.Cut(r.Path, "/v2/app/")
		path, _, _ = strings.Cut(path, "?")
		if i := strings.Index(path, "sha256:"); i >= 0 {
			path = path[:i] + "D"
		}
		if strings.HasPrefix(path, "blobs/uploads/") {
			path = "blobs/uploads/"
		}
		out = append(out, r.Method+" "+path)
	}
	s.ResetCounts()
	return strings.Join(out, ", ")
}

// answer refuses requests of a method.
func answer(method string, status int, code, message string) func(http.ResponseWriter, *http.Request, http.Handler) {
	return func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		if r.Method != method {
			next.ServeHTTP(w, r)
			return
		}
		io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		json.NewEncoder(w).Encode(map[string]any{"errors": []any{map[string]any{"code": code, "message": message}}})
	}
}

func TestRequests(t *testing.T) {
	reg, s := start(t)
	ctx := t.Context()
	desc := storetest.Put(t, s, []byte("{}"))
	reg.requests()
	for _, step := range []struct {
		do   func() error
		want string
	}{
		{func() error {
			_, err := s.PutManifest(ctx, "tag", storetest.Document("a", desc), remote.Absent)
			return err
		}, "HEAD manifests/tag, PUT manifests/tag"},
		{func() error {
			_, err := s.PutManifest(ctx, "tag", storetest.Document("b", desc), remote.Any)
			return err
		}, "PUT manifests/tag"},
		{func() error { _, err := s.Manifest(ctx, "tag"); return err }, "GET manifests/tag"},
		{func() error { _, err := s.Has(ctx, desc); return err }, "HEAD blobs/D"},
		{func() error { _, err := storetest.Read(ctx, s, desc); return err }, "GET blobs/D"},
		{func() error { rc, err := s.OpenRange(ctx, desc, 1, 1); rc.Close(); return err }, "GET blobs/D"},
		{func() error { _, err := s.Put(ctx, storetest.Upload([]byte("{}"))); return err }, "HEAD blobs/D"},
		{func() error {
			up := storetest.Upload([]byte("new"))
			up.New = true
			_, err := s.Put(ctx, up)
			return err
		}, "POST blobs/uploads/, PUT blobs/uploads/"},
		{func() error {
			up := storetest.Upload([]byte("known"))
			up.Origin = []string{s.Name()}
			_, err := s.Put(ctx, up)
			return err
		}, ""},
		{func() error { _, err := s.Names(ctx, "t"); return err }, "GET tags/list"},
		{func() error { return s.DeleteManifest(ctx, "tag") }, "HEAD manifests/tag, DELETE manifests/D"},
		{func() error { return s.DeleteManifest(ctx, "tag") }, "HEAD manifests/tag"},
		{func() error { return s.Delete(ctx, desc.Digest) }, "DELETE blobs/D"},
	} {
		if err := step.do(); err != nil {
			t.Errorf("%s: %v", step.want, err)
		}
		if got := reg.requests(); got != step.want {
			t.Errorf("%q instead of %q", got, step.want)
		}
	}
}

// TestImmutable: what registries say where a tag cannot be written again.
func TestImmutable(t *testing.T) {
	reg, s := start(t)
	desc := storetest.Put(t, s, []byte("{}"))
	for name, a := range map[string]struct {
		status        int
		code, message string
	}{
		"ECR":               {400, "TAG_INVALID", "The image tag 'tag' already exists in the 'app' repository and cannot be overwritten because the repository is immutable."},
		"ECR, its own code": {409, "ImageTagAlreadyExistsException", ""},
		"Harbor":            {412, "PRECONDITION", "Failed to process request due to 'app:tag' configured as immutable."},
		"Quay":              {409, "UNKNOWN", "tag is immutable and cannot be overwritten"},
		"DTR":               {403, "UNKNOWN", "tag=tag cannot be overwritten because host/app is an immutable repository"},
		"a protected tag":   {403, "DENIED", "the tag is protected"},
		"Nexus":             {400, "UNKNOWN", "Repository does not allow updating assets: docker-hosted"},
	} {
		reg.spoil(answer(http.MethodPut, a.status, a.code, a.message))
		_, err := s.PutManifest(t.Context(), "tag", storetest.Document(name, desc), remote.Absent)
		if !errors.Is(err, remote.ErrImmutable) || errors.Is(err, remote.ErrDenied) || !strings.Contains(err.Error(), reg.Addr+"/app:tag") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestRefusals(t *testing.T) {
	reg, s := start(t)
	desc := storetest.Put(t, s, []byte("{}"))
	put := func(s remote.Store) error {
		_, err := s.PutManifest(t.Context(), "tag", storetest.Document("x", desc), remote.Any)
		return err
	}
	for _, tc := range []struct {
		status        int
		code, message string
		want          error
	}{
		{401, "UNAUTHORIZED", "authentication required", remote.ErrDenied},
		{403, "DENIED", "requested access to the resource is denied", remote.ErrDenied},
		{404, "NAME_UNKNOWN", "The repository with name 'app' does not exist in the registry", remote.ErrNotFound},
		{400, "MANIFEST_INVALID", "manifest invalid", remote.ErrFinal},
		{413, "", "", remote.ErrFinal},
	} {
		reg.spoil(answer(http.MethodPut, tc.status, tc.code, tc.message))
		reg.requests()
		if err := put(remote.Wrap(s, remote.Options{})); !errors.Is(err, tc.want) || errors.As(err, new(*remote.MissingError)) {
			t.Errorf("%d %s: %v", tc.status, tc.code, err)
		}
		if got := reg.requests(); got != "PUT manifests/tag" {
			t.Errorf("%d %s: %s", tc.status, tc.code, got)
		}
	}
	for _, status := range []int{429, 500, 503} {
		reg.spoil(answer(http.MethodPut, status, "", ""))
		err := put(s)
		for _, is := range []error{remote.ErrFinal, remote.ErrDenied, remote.ErrNotFound, remote.ErrConflict} {
			if err == nil || errors.Is(err, is) {
				t.Errorf("%d: %v is %v", status, err, is)
			}
		}
	}
	reg.spoil(answer(http.MethodDelete, 405, "UNSUPPORTED", ""))
	for _, err := range []error{s.Delete(t.Context(), desc.Digest), s.DeleteManifest(t.Context(), desc.Digest.String())} {
		if !errors.Is(err, remote.ErrUnsupported) {
			t.Error(err)
		}
	}
	reg.spoil(func(w http.ResponseWriter, r *http.Request, _ http.Handler) { io.WriteString(w, "{}") })
	big := desc
	big.Size = 100
	if _, err := s.OpenRange(t.Context(), big, 5, 5); !errors.Is(err, remote.ErrUnsupported) {
		t.Error(err)
	}
}

// TestMissing: what registries say of a manifest whose blobs are not there.
func TestMissing(t *testing.T) {
	reg, s := start(t)
	there, lost := storetest.Put(t, s, []byte("{}")), storetest.Describe([]byte("lost"))
	other := digest.FromString("what the document does not name")
	doc := storetest.Document("x", there, lost)
	_, err := s.PutManifest(t.Context(), "tag", doc, remote.Absent)
	var missing *remote.MissingError
	if !errors.As(err, &missing) || !slices.Equal(missing.Digests, []digest.Digest{lost.Digest}) || !strings.Contains(err.Error(), "app:tag") {
		t.Errorf("distribution: %v", err)
	}
	for name, a := range map[string]struct {
		status        int
		code, message string
		digests       int
	}{
		"by code":    {404, "BLOB_UNKNOWN", "blob unknown to registry", 0},
		"ECR":        {400, "MANIFEST_INVALID", fmt.Sprintf("One or more layers of the manifest could not be found: '%s, %s'", lost.Digest, other), 1},
		"in words":   {400, "MANIFEST_INVALID", fmt.Sprintf("Unknown blob `%s`", lost.Digest), 1},
		"by another": {404, "MANIFEST_BLOB_UNKNOWN", "manifest references a manifest or blob(s) unknown to the registry", 0},
	} {
		reg.spoil(answer(http.MethodPut, a.status, a.code, a.message))
		_, err := s.PutManifest(t.Context(), "tag", doc, remote.Absent)
		missing = nil
		if !errors.As(err, &missing) || len(missing.Digests) != a.digests || a.digests > 0 && missing.Digests[0] != lost.Digest {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestNamesOfOddRegistries: some refuse a last that is no tag, some ignore it, some sort otherwise.
func TestNamesOfOddRegistries(t *testing.T) {
	reg, s := start(t)
	tags := []string{"a", "larder-1", "larder-2", "larder-3", "z"}
	list := func(w http.ResponseWriter, page []string) { json.NewEncoder(w).Encode(map[string]any{"tags": page}) }
	for name, f := range map[string]func(w http.ResponseWriter, last string){
		"ignores last":      func(w http.ResponseWriter, _ string) { list(w, tags) },
		"newest first":      func(w http.ResponseWriter, _ string) { list(w, []string{"z", "larder-3", "a", "larder-1", "larder-2"}) },
		"twice":             func(w http.ResponseWriter, _ string) { list(w, slices.Concat(tags, tags)) },
		"names that no tag": func(w http.ResponseWriter, _ string) { list(w, append([]string{"larder-a b", "larder-\x1b"}, tags...)) },
		"wants a real tag": func(w http.ResponseWriter, last string) {
			if last != "" && !slices.Contains(tags, last) {
				w.WriteHeader(400)
				return
			}
			list(w, tags)
		},
		"gives nothing after what is no tag": func(w http.ResponseWriter, last string) {
			if last != "" && !slices.Contains(tags, last) {
				list(w, nil)
				return
			}
			list(w, tags)
		},
		"pages without end, past the prefix": func(w http.ResponseWriter, last string) {
			page := []string{"larder-1", "larder-2", "larder-3", "larger"}
			if last > "larder-3" {
				page = []string{"larger" + last}
			}
			w.Header().Set("Link", fmt.Sprintf(`</v2/app/tags/list?last=%s>; rel="next"`, page[len(page)-1]))
			list(w, page)
		},
	} {
		reg.spoil(func(w http.ResponseWriter, r *http.Request, _ http.Handler) { f(w, r.URL.Query().Get("last")) })
		if got, err := s.Names(t.Context(), "larder-"); err != nil || strings.Join(got, " ") != "larder-1 larder-2 larder-3" {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	// One that is in trouble is not asked twice as much.
	reg.spoil(answer(http.MethodGet, 503, "", ""))
	reg.requests()
	if _, err := s.Names(t.Context(), "larder-"); err == nil || errors.Is(err, remote.ErrNotFound) || strings.Count(reg.requests(), "GET") > 5 {
		t.Error(err)
	}
}

// TestMirrorsSeeNoTags: a document by name comes from the registry itself, even where a mirror has one.
func TestMirrorsSeeNoTags(t *testing.T) {
	reg, s := start(t)
	old, behind := start(t)
	table := registry.Table{}
	entry := table[reg.Addr]
	entry.Mirrors = []string{"http://" + old.Addr}
	table[reg.Addr] = entry
	c := registry.New(registry.Config{Registries: table, Credentials: func(string) (string, string, error) { return "", "", nil },
		Sleep: func(time.Duration, <-chan struct{}) {}})
	t.Cleanup(c.Close)
	mirrored := New(c, s.ref)
	for i, store := range []*Store{s, behind} {
		desc := storetest.Put(t, store, []byte("{}"))
		if _, err := store.PutManifest(t.Context(), "tag", storetest.Document(fmt.Sprint(i), desc), remote.Absent); err != nil {
			t.Fatal(err)
		}
	}
	old.requests()
	doc, err := mirrored.Manifest(t.Context(), "tag")
	if err != nil || storetest.Note(t, doc) != "0" {
		t.Error(err)
	}
	desc := storetest.Put(t, mirrored, []byte("{}"))
	if v, err := mirrored.PutManifest(t.Context(), "tag", storetest.Document("2", desc), doc.Version); err != nil || v == "" {
		t.Error(err)
	}
	if _, err := mirrored.Names(t.Context(), ""); err != nil {
		t.Error(err)
	}
	if err := mirrored.DeleteManifest(t.Context(), "tag"); err != nil {
		t.Error(err)
	}
	if got := old.requests(); got != "" {
		t.Errorf("the mirror was asked: %s", got)
	}
	// Blobs may come from there.
	if _, err := storetest.Read(t.Context(), mirrored, desc); err != nil || old.requests() != "GET blobs/D" {
		t.Error(err)
	}
}

// TestAnswerLost: the registry stores a document, and the answer does not arrive.
func TestAnswerLost(t *testing.T) {
	reg, s := start(t)
	desc := storetest.Put(t, s, []byte("{}"))
	lost := 1
	reg.spoil(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		if r.Method == http.MethodPut && lost > 0 {
			lost--
			next.ServeHTTP(&deaf{w}, r)
			panic(http.ErrAbortHandler)
		}
		next.ServeHTTP(w, r)
	})
	wrapped := remote.Wrap(s, remote.Options{Policy: remote.Policy{Sleep: func(context.Context, time.Duration) {}}})
	doc := storetest.Document("mine", desc)
	v, err := wrapped.PutManifest(t.Context(), "tag", doc, remote.Absent)
	if err != nil || v != remote.Version(digest.FromBytes(doc)) || lost != 0 {
		t.Errorf("%q, %v", v, err)
	}
}

type deaf struct{ http.ResponseWriter }

func (d *deaf) Write(p []byte) (int, error) { return len(p), nil }
func (d *deaf) WriteHeader(int)             {}

// TestOutage: a registry that is not there costs the patience once, and the error says what is wrong.
func TestOutage(t *testing.T) {
	now := time.Unix(1000, 0)
	policy := remote.Policy{Now: func() time.Time { return now }, Sleep: func(_ context.Context, d time.Duration) { now = now.Add(d) }}
	s := remote.Wrap(New(quiet(t), registry.Ref{Host: "127.0.0.1:1", Repo: "app"}), remote.Options{Policy: policy})
	for range 3 {
		_, err := s.Manifest(t.Context(), "tag")
		if !errors.Is(err, remote.ErrDown) || !strings.Contains(err.Error(), "refuses connections") {
			t.Error(err)
		}
		if d := now.Sub(time.Unix(1000, 0)); d < 10*time.Second || d > 20*time.Second {
			t.Errorf("waited %v", d)
		}
	}
}

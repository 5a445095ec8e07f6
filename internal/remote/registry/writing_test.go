package registry

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"larder/internal/registry"
	"larder/internal/remote"
	"larder/internal/remote/storetest"
)

// TestNotThereYet is about registries that tell only those who may push that a repository does not exist.
func TestNotThereYet(t *testing.T) {
	for name, c := range map[string]struct {
		exists  bool
		writer  bool // the credentials allow pushing
		strict  bool // the token server gives nobody a token for less than he asks for
		writing bool
		want    error
		asked   string // with a token, by the first read
		again   string // and by the second
	}{
		"for writing":                         {writer: true, writing: true, want: remote.ErrNotFound, asked: "pull,push", again: "pull,push"},
		"for reading":                         {writer: true, want: remote.ErrDenied, asked: "pull", again: "pull"},
		"by a reader":                         {writing: true, want: remote.ErrDenied, asked: "pull pull", again: "pull pull"},
		"by a reader, of a strict one":        {writing: true, strict: true, want: remote.ErrDenied, asked: "pull", again: "pull"},
		"there, for writing":                  {exists: true, writer: true, writing: true, asked: "pull,push", again: "pull,push"},
		"there, for reading":                  {exists: true, writer: true, asked: "pull", again: "pull"},
		"there, by a reader":                  {exists: true, writing: true, asked: "pull", again: "pull"},
		"there, by a reader, of a strict one": {exists: true, writing: true, strict: true, asked: "pull", again: "pull"},
	} {
		t.Run(name, func(t *testing.T) {
			reg, plain := start(t)
			if c.exists {
				desc := storetest.Put(t, plain, []byte("{}"))
				if _, err := plain.PutManifest(t.Context(), "tag", storetest.Document("there", desc), remote.Any); err != nil {
					t.Fatal(err)
				}
			}
			tokens := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				r.ParseForm()
				grant := "pull"
				if strings.Contains(strings.Join(r.Form["scope"], " "), "push") {
					if !c.writer && c.strict {
						w.WriteHeader(http.StatusForbidden)
						return
					}
					if c.writer {
						grant = "pull,push"
					}
				}
				json.NewEncoder(w).Encode(map[string]any{"token": grant, "access_token": grant, "expires_in": 300})
			}))
			t.Cleanup(tokens.Close)
			var asked []string
			reg.spoil(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
				grant, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
				switch {
				case !ok:
					w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="%s/token",service="reg",scope="repository:app:pull"`, tokens.URL))
					w.WriteHeader(http.StatusUnauthorized)
				case !c.exists && grant != "pull,push":
					asked = append(asked, grant)
					answer(r.Method, http.StatusForbidden, "DENIED", "requested access to the resource is denied")(w, r, next)
				default:
					asked = append(asked, grant)
					next.ServeHTTP(w, r)
				}
			})
			client := registry.New(registry.Config{
				Credentials: func(string) (string, string, error) { return "joe", "s3cret", nil },
				Sleep:       func(time.Duration, <-chan struct{}) {},
			})
			t.Cleanup(client.Close)
			s := New(client, plain.ref)
			if c.writing {
				s = s.ForWriting()
			}
			for _, want := range []string{c.asked, c.again} {
				doc, err := s.Manifest(t.Context(), "tag")
				if !errors.Is(err, c.want) || err == nil && storetest.Note(t, doc) != "there" {
					t.Errorf("%v", err)
				}
				if got := strings.Join(asked, " "); got != want {
					t.Errorf("asked with %q instead of %q", got, want)
				}
				asked = nil
			}
			if !c.writer || !c.writing {
				return
			}
			desc := storetest.Put(t, s, []byte("new"))
			if _, err := s.PutManifest(t.Context(), "other", storetest.Document("new", desc), remote.Absent); err != nil {
				t.Error(err)
			}
		})
	}
}

package testregistry

import (
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
)

func startGuard(t *testing.T, opt GuardOptions) *Guard {
	t.Helper()
	g, err := NewGuard(opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := g.Close(); err != nil {
			t.Error(err)
		}
	})
	return g
}

// askToken gets a token with GET and basic authentication; "" where the server refuses.
func askToken(t *testing.T, g *Guard, user, password string, scopes ...string) (token string, expires int) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+g.Addr+"/token?"+url.Values{"scope": scopes}.Encode(), nil)
	if err != nil {
		t.Fatal(err)
	}
	req.SetBasicAuth(user, password)
	return readToken(t, req)
}

func readToken(t *testing.T, req *http.Request) (token string, expires int) {
	t.Helper()
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if res.StatusCode == http.StatusUnauthorized {
		return "", 0
	}
	var doc struct {
		Token   string
		Expires int `json:"expires_in"`
	}
	if err := json.NewDecoder(res.Body).Decode(&doc); err != nil || doc.Token == "" {
		t.Fatalf("token server: %d, %v", res.StatusCode, err)
	}
	return doc.Token, doc.Expires
}

func TestGuardComparesScopes(t *testing.T) {
	g := startGuard(t, GuardOptions{User: "joe", Password: "p", Reader: "fork", ReaderPassword: "q"})
	r := StartWith(t, Options{Wrap: g.Wrap})
	r.PushBase(t, "busybox") // its own push needs no token
	do := func(token, method, path string) (int, string) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), method, "http://"+r.Addr+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		if token != "" {
			req.Header.Set("Authorization", "Bearer "+token)
		}
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		return res.StatusCode, res.Header.Get("WWW-Authenticate")
	}
	pull, expires := askToken(t, g, "joe", "p", "repository:busybox:pull")
	if expires != 300 {
		t.Errorf("expires in %d s", expires)
	}
	push, _ := askToken(t, g, "joe", "p", "repository:busybox:pull,push repository:other/app:pull")
	remove, _ := askToken(t, g, "joe", "p", "repository:busybox:delete")
	fork, _ := askToken(t, g, "fork", "q", "repository:busybox:pull,push,delete")
	mount := "/v2/busybox/blobs/uploads/?from=other/app&mount=" + digest.FromString("x").String()
	for _, c := range []struct {
		name, token, method, path string
		status                    int
		challenge                 string
	}{
		{"nothing", "", "GET", "/v2/busybox/tags/list", 401, `scope="repository:busybox:pull"`},
		{"nothing", "", "GET", "/v2/", 401, `realm="http://` + g.Addr + `/token",service="testregistry"`},
		{"any", pull, "GET", "/v2/", 200, ""},
		{"rubbish", "rubbish", "GET", "/v2/", 401, `error="invalid_token"`},
		{"pull", pull, "GET", "/v2/busybox/tags/list", 200, ""},
		{"pull", pull, "GET", "/v2/other/app/tags/list", 401, `scope="repository:other/app:pull",error="insufficient_scope"`},
		{"pull", pull, "POST", "/v2/busybox/blobs/uploads/", 401, `scope="repository:busybox:pull,push",error="insufficient_scope"`},
		{"push", push, "POST", "/v2/busybox/blobs/uploads/", 202, ""},
		{"push", push, "POST", mount, 202, ""},
		{"push", push, "POST", strings.Replace(mount, "other/app", "third", 1), 401, `repository:third:pull"`},
		{"push", push, "DELETE", "/v2/busybox/manifests/latest", 401, `scope="repository:busybox:delete"`},
		{"reader", fork, "GET", "/v2/busybox/tags/list", 200, ""},
		{"reader", fork, "POST", "/v2/busybox/blobs/uploads/", 401, "insufficient_scope"},
		{"reader", fork, "DELETE", "/v2/busybox/manifests/latest", 401, "insufficient_scope"},
		{"delete", remove, "DELETE", "/v2/busybox/manifests/latest", 202, ""},
	} {
		if status, challenge := do(c.token, c.method, c.path); status != c.status || !strings.Contains(challenge, c.challenge) {
			t.Errorf("%s with %s token: %d, %s", c.method+" "+c.path, c.name, status, challenge)
		}
	}
	for _, wrong := range [][2]string{{"joe", "q"}, {"fork", "p"}, {"", ""}} {
		if token, _ := askToken(t, g, wrong[0], wrong[1]); token != "" {
			t.Errorf("a token for %q", wrong)
		}
	}
	if got := g.Counts(); got != (GuardCounts{Tokens: 4, Denied: 3}) {
		t.Errorf("counts %+v", got)
	}
}

func TestGuardTakesForms(t *testing.T) {
	g := startGuard(t, GuardOptions{User: "joe", Password: "p"})
	for name, c := range map[string]struct {
		form url.Values
		ok   bool
	}{
		"password":       {url.Values{"grant_type": {"password"}, "username": {"joe"}, "password": {"p"}}, true},
		"wrong password": {url.Values{"grant_type": {"password"}, "username": {"joe"}, "password": {"x"}}, false},
		"identity":       {url.Values{"grant_type": {"refresh_token"}, "refresh_token": {"p"}}, true},
		"wrong identity": {url.Values{"grant_type": {"refresh_token"}, "refresh_token": {"x"}}, false},
		"empty reader":   {url.Values{"grant_type": {"password"}, "username": {""}, "password": {""}}, false},
	} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+g.Addr+"/token", strings.NewReader(c.form.Encode()))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		if token, _ := readToken(t, req); (token != "") != c.ok {
			t.Errorf("%s: token %q", name, token)
		}
	}
}

func TestTokensExpire(t *testing.T) {
	g := startGuard(t, GuardOptions{User: "joe", Password: "p", Lifetime: 100 * time.Millisecond})
	r := StartWith(t, Options{Wrap: g.Wrap})
	asked := time.Now()
	token, expires := askToken(t, g, "joe", "p")
	if expires != 0 {
		t.Errorf("a lifetime of %d s was said", expires)
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+r.Addr+"/v2/", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	for {
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode == http.StatusUnauthorized {
			if time.Since(asked) < 100*time.Millisecond {
				t.Errorf("expired after %s", time.Since(asked))
			}
			break
		}
		if time.Since(asked) > 5*time.Second {
			t.Fatal("it never expired")
		}
		time.Sleep(5 * time.Millisecond)
	}
	if got := g.Counts(); got != (GuardCounts{Tokens: 1, Expired: 1}) {
		t.Errorf("counts %+v", got)
	}
	unsaid := startGuard(t, GuardOptions{User: "joe", Password: "p", Lifetime: time.Hour, Unsaid: true})
	if _, expires := askToken(t, unsaid, "joe", "p"); expires != 0 {
		t.Errorf("a lifetime of %d s was said", expires)
	}
}

func TestElsewhereKeepsBlobsAndNotesCredentials(t *testing.T) {
	g := startGuard(t, GuardOptions{User: "joe", Password: "p"})
	e, err := NewElsewhere(true)
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	r := StartWith(t, Options{Wrap: func(next http.Handler) http.Handler { return g.Wrap(e.Wrap(next)) }})
	r.PushBase(t, "busybox")
	blobs, err := r.Blobs()
	if err != nil {
		t.Fatal(err)
	}
	token, _ := askToken(t, g, "joe", "p", "repository:busybox:pull,push")
	path := "/v2/busybox/blobs/" + blobs[0].String()
	client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	do := func(method, url string, header ...string) *http.Response {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), method, url, nil)
		if err != nil {
			t.Fatal(err)
		}
		for i := 0; i < len(header); i += 2 {
			req.Header.Set(header[i], header[i+1])
		}
		res, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		return res
	}
	if res := do("GET", "http://"+r.Addr+path); res.StatusCode != http.StatusUnauthorized {
		t.Errorf("without a token: %d", res.StatusCode)
	}
	bearer := []string{"Authorization", "Bearer " + token}
	res := do("HEAD", "http://"+r.Addr+path, bearer...)
	to := res.Header.Get("Location")
	if res.StatusCode != http.StatusTemporaryRedirect || !strings.HasPrefix(to, "http://"+e.Addr+"/") {
		t.Fatalf("%d to %s", res.StatusCode, to)
	}
	if res := do("GET", to, "Range", "bytes=1-3"); res.StatusCode != http.StatusPartialContent || res.ContentLength != 3 {
		t.Errorf("elsewhere: %d, %d bytes", res.StatusCode, res.ContentLength)
	}
	if res := do("GET", "http://"+e.Addr+path); res.StatusCode != http.StatusForbidden {
		t.Errorf("elsewhere without a signature: %d", res.StatusCode)
	}
	// Uploads begin at the registry.
	if to := do("POST", "http://"+r.Addr+"/v2/busybox/blobs/uploads/", bearer...).Header.Get("Location"); !strings.HasPrefix(to, "http://"+e.Addr+"/") {
		t.Errorf("upload to %s", to)
	}
	if got := e.Requests(); len(got) != 2 || got[0].Range != "bytes=1-3" || got[0].Down != 3 || len(e.Leaks()) != 0 {
		t.Errorf("requests %+v, leaks %v", got, e.Leaks())
	}
	do("GET", to, bearer...)
	do("GET", to, "Cookie", "session=1")
	if got := e.Leaks(); len(got) != 2 || !strings.HasSuffix(got[0], "came with Authorization") || !strings.HasSuffix(got[1], "came with Cookie") {
		t.Errorf("leaks %v", got)
	}
}

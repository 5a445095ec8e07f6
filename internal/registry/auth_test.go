package registry

import (
	"context"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"larder/internal/fault"
)

func pemOf(der []byte) []byte { return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}) }

// protect puts a token server in front of a registry; it gives the count of tokens handed out.
func protect(t *testing.T, reg *harness, user, password string) *atomic.Int64 {
	var tokens atomic.Int64
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.ParseForm()
		u, p, _ := r.BasicAuth()
		if r.Method == http.MethodPost {
			u, p = r.Form.Get("username"), r.Form.Get("password")
		}
		if u != user || p != password {
			w.WriteHeader(401)
			fmt.Fprintf(w, "wrong password %s", p)
			return
		}
		tokens.Add(1)
		json.NewEncoder(w).Encode(map[string]any{"token": "tok-" + password, "access_token": "tok-" + password, "expires_in": 300})
	}))
	t.Cleanup(srv.Close)
	reg.Fault(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		if r.Header.Get("Authorization") != "Bearer tok-"+password {
			w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm=%q,service="reg",scope="repository:app:pull"`, srv.URL+"/token"))
			w.WriteHeader(401)
			return
		}
		next.ServeHTTP(w, r)
	})
	return &tokens
}

func TestTokens(t *testing.T) {
	reg := newHarness(t)
	tokens := protect(t, reg, "joe", "s3cret")
	asked := 0
	c := client(t, Config{Credentials: func(host string) (string, string, error) {
		asked++
		if host != reg.Host {
			t.Error(host)
		}
		return "joe", "s3cret", nil
	}})
	r := ref(t, reg.Host+"/app:v1")
	pushImage(t, c, r, random(1000))
	if asked != 1 || tokens.Load() != 1 {
		t.Errorf("credentials asked for %d times, %d tokens", asked, tokens.Load())
	}
	if _, err := c.ResolvePush(context.Background(), r); err != nil || tokens.Load() != 1 {
		t.Error(err, tokens.Load())
	}
}

func TestDeniedNamesNoSecret(t *testing.T) {
	reg := newHarness(t)
	protect(t, reg, "joe", "s3cret")
	for name, cfg := range map[string]Config{
		"wrong":     {Credentials: func(string) (string, string, error) { return "joe", "hunter2", nil }},
		"anonymous": {},
		"token":     {Credentials: func(string) (string, string, error) { return "", "hunter2", nil }},
	} {
		_, err := client(t, cfg).Resolve(context.Background(), ref(t, reg.Host+"/app:v1"))
		if !errors.Is(err, ErrDenied) || fault.Of(err) != fault.Registry || strings.Contains(err.Error(), "hunter2") {
			t.Error(name, err)
		}
	}
	// A registry that echoes what it was sent.
	echo := newHarness(t)
	echo.Fault(func(w http.ResponseWriter, r *http.Request, _ http.Handler) {
		if r.Header.Get("Authorization") == "" {
			w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
			w.WriteHeader(401)
			return
		}
		_, p, _ := r.BasicAuth()
		w.WriteHeader(400)
		fmt.Fprintf(w, `{"errors":[{"code":"X","message":"bad %s %s"}]}`, p, r.Header.Get("Authorization"))
	})
	c := client(t, Config{Credentials: func(string) (string, string, error) { return "joe", "hunter2", nil }})
	_, _, err := c.Fetch(context.Background(), ref(t, echo.Host+"/app:v1"))
	if err == nil || !strings.Contains(err.Error(), "bad ***") || strings.Contains(err.Error(), "hunter2") || strings.Contains(err.Error(), "am9lOmh1bnRlcjI") {
		t.Error(err)
	}
}

func TestRedirectKeepsTokenHome(t *testing.T) {
	reg := newHarness(t)
	layer := random(1000)
	pushImage(t, client(t, Config{}), ref(t, reg.Host+"/app:v1"), layer)
	var seen atomic.Value
	store := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		seen.Store(r.Header.Get("Authorization"))
		w.Write(layer)
	}))
	defer store.Close()
	reg.Fault(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		switch {
		case r.Header.Get("Authorization") == "":
			w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
			w.WriteHeader(401)
		default:
			http.Redirect(w, r, store.URL+"/blob?signature=topsecret", http.StatusTemporaryRedirect)
		}
	})
	c := client(t, Config{Credentials: func(string) (string, string, error) { return "joe", "hunter2", nil }})
	rc, err := c.Blob(context.Background(), ref(t, reg.Host+"/app"), upload(layer).Desc)
	if err != nil {
		t.Fatal(err)
	}
	defer rc.Close()
	if _, err := io.Copy(io.Discard, rc); err != nil || seen.Load() != "" {
		t.Error(err, seen.Load())
	}
	store.Close()
	_, err = c.Blob(context.Background(), ref(t, reg.Host+"/app"), upload(layer).Desc)
	if err == nil || strings.Contains(err.Error(), "topsecret") {
		t.Error(err)
	}
}

func TestDockerConfig(t *testing.T) {
	dir := t.TempDir()
	bin := filepath.Join(dir, "bin")
	os.Mkdir(bin, 0o755)
	script := "#!/bin/sh\nread host\ncase $host in good*) echo '{\"Username\":\"u\",\"Secret\":\"p\"}';; *) echo secret-in-output; exit 1;; esac\n"
	if err := os.WriteFile(filepath.Join(bin, "docker-credential-fake"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	cfg := `{"auths":{"https://index.docker.io/v1/":{"auth":"aHViOnB3"},"idtoken:5000":{"identitytoken":"refresh","auth":"am9lOg=="}},
		"credHelpers":{"good:5000":"fake","bad:5000":"fake"}}`
	conf := filepath.Join(dir, "config.json")
	if err := os.WriteFile(conf, []byte(cfg), 0o600); err != nil {
		t.Fatal(err)
	}
	d := &dockerConfig{dir: dir}
	for host, want := range map[string][2]string{
		"docker.io": {"hub", "pw"}, "idtoken:5000": {"", "refresh"}, "good:5000": {"u", "p"}, "none:5000": {"", ""},
	} {
		u, s, err := d.credentials(host)
		if err != nil || u != want[0] || s != want[1] {
			t.Error(host, u, s, err)
		}
	}
	_, _, err := d.credentials("bad:5000")
	if err == nil || strings.Contains(err.Error(), "secret-in-output") || !strings.Contains(err.Error(), "docker-credential-fake get") {
		t.Error(err)
	}
}

// TestStaleToken: a registry that stops taking a token and does not say why.
func TestStaleToken(t *testing.T) {
	reg := newHarness(t)
	var valid atomic.Int64
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		json.NewEncoder(w).Encode(map[string]any{"token": fmt.Sprint("tok-", valid.Load())})
	}))
	defer srv.Close()
	reg.Fault(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		if r.Header.Get("Authorization") != fmt.Sprint("Bearer tok-", valid.Load()) {
			w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm=%q,service="reg"`, srv.URL))
			w.WriteHeader(401)
			return
		}
		next.ServeHTTP(w, r)
	})
	c := client(t, Config{})
	r := ref(t, reg.Host+"/app:v1")
	pushImage(t, c, r, random(100))
	valid.Add(1)
	if _, err := c.Resolve(context.Background(), r); err != nil {
		t.Error(err)
	}
}

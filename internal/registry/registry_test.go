package registry

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"larder/internal/fault"
)

func client(t *testing.T, cfg Config) *Client {
	t.Helper()
	if cfg.Sleep == nil {
		cfg.Sleep = func(time.Duration, <-chan struct{}) {}
	}
	if cfg.Credentials == nil {
		cfg.Credentials = func(string) (string, string, error) { return "", "", nil }
	}
	c := New(cfg)
	t.Cleanup(c.Close)
	return c
}

func ref(t *testing.T, s string) Ref {
	t.Helper()
	r, err := ParseRef(s)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func upload(b []byte) Upload {
	return Upload{
		Desc: ocispecs.Descriptor{MediaType: ocispecs.MediaTypeImageLayerGzip, Digest: digest.FromBytes(b), Size: int64(len(b))},
		Open: func(context.Context) (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b)), nil },
	}
}

func random(n int) []byte {
	b := make([]byte, n)
	rand.Read(b)
	return b
}

// pushImage stores an image of one layer under r and gives the manifest.
func pushImage(t *testing.T, c *Client, r Ref, layer []byte) []byte {
	t.Helper()
	ctx := context.Background()
	config := []byte(`{"os":"linux","architecture":"amd64"}`)
	for _, b := range [][]byte{config, layer} {
		if _, err := c.PushBlob(ctx, r, upload(b)); err != nil {
			t.Fatal(err)
		}
	}
	m := ocispecs.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispecs.MediaTypeImageManifest,
		Config: ocispecs.Descriptor{MediaType: ocispecs.MediaTypeImageConfig, Digest: digest.FromBytes(config), Size: int64(len(config))},
		Layers: []ocispecs.Descriptor{upload(layer).Desc}}
	b, _ := json.Marshal(m)
	if err := c.PushManifest(ctx, r, m.MediaType, b); err != nil {
		t.Fatal(err)
	}
	return b
}

func TestParseRef(t *testing.T) {
	for in, want := range map[string]string{
		"alpine":                              "docker.io/library/alpine:latest",
		"alpine:3.20":                         "docker.io/library/alpine:3.20",
		"localhost:5000/a/b":                  "localhost:5000/a/b:latest",
		"ghcr.io/o/n:v1":                      "ghcr.io/o/n:v1",
		"index.docker.io/x/y":                 "docker.io/x/y:latest",
		"a@sha256:" + strings.Repeat("0", 64): "docker.io/library/a@sha256:" + strings.Repeat("0", 64),
	} {
		r, err := ParseRef(in)
		if err != nil || r.String() != want {
			t.Errorf("%s: %s, %v", in, r, err)
		}
	}
	for _, in := range []string{"", "localhost:5000/UPPER", "a:b:c", "x@sha256:12", strings.Repeat("a", 1000)} {
		if _, err := ParseRef(in); fault.Of(err) != fault.Usage {
			t.Errorf("%.20q: %v", in, err)
		}
	}
}

func TestPushAndPull(t *testing.T) {
	reg := newHarness(t)
	c := client(t, Config{})
	ctx := context.Background()
	r := ref(t, reg.Host+"/app:v1")
	layer := random(300_000)
	manifest := pushImage(t, c, r, layer)
	if got := reg.Count(); got != "HEAD 2, POST 2, PUT 3" {
		t.Error(got)
	}
	desc, err := c.Resolve(ctx, r)
	if err != nil || desc.Digest != digest.FromBytes(manifest) || desc.MediaType != ocispecs.MediaTypeImageManifest || desc.Size != int64(len(manifest)) {
		t.Fatal(desc, err)
	}
	if got := reg.Count(); got != "HEAD 1" {
		t.Error(got)
	}
	b, err := c.Manifest(ctx, r, desc)
	if err != nil || !bytes.Equal(b, manifest) {
		t.Fatal(err)
	}
	rc, err := c.Blob(ctx, r, upload(layer).Desc)
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(rc)
	rc.Close()
	if err != nil || !bytes.Equal(got, layer) {
		t.Fatal(err)
	}
	if got := reg.Count(); got != "GET 2" {
		t.Error(got)
	}
	if s := c.Stats(); s.Requests != 10 || s.BytesUp < 300_000 || s.BytesDown < 300_000 {
		t.Errorf("%+v", s)
	}
}

func TestPushSendsNothingTwice(t *testing.T) {
	reg := newHarness(t)
	c := client(t, Config{})
	ctx := context.Background()
	r := ref(t, reg.Host+"/app:v1")
	up := upload(random(1000))
	for i, step := range []struct {
		ref    Ref
		origin []string
		isNew  bool
		want   string
		sent   bool
	}{
		{r, nil, true, "POST 1, PUT 1", true},
		{r, nil, false, "HEAD 1", false},
		{r, []string{r.Name()}, false, "", false},
		{ref(t, reg.Host+"/other"), []string{r.Name()}, false, "POST 1", false},
		{ref(t, reg.Host+"/third"), []string{reg.Host + "/nowhere"}, false, "POST 1, PUT 1", true},
	} {
		reg.Count()
		up.Origin, up.New = step.origin, step.isNew
		sent, err := c.PushBlob(ctx, step.ref, up)
		if got := reg.Count(); err != nil || sent != step.sent || got != step.want {
			t.Errorf("%d: sent %v, %s, %v", i, sent, got, err)
		}
	}
	if ok, err := c.HasBlob(ctx, ref(t, reg.Host+"/third"), up.Desc.Digest); !ok || err != nil {
		t.Error(ok, err)
	}
}

func TestPassingFailures(t *testing.T) {
	reg := newHarness(t)
	var waits []time.Duration
	c := client(t, Config{Sleep: func(d time.Duration, _ <-chan struct{}) { waits = append(waits, d) }})
	ctx := context.Background()
	r := ref(t, reg.Host+"/app:v1")
	reg.Fault(times(2, 502, http.MethodPut))
	layer := random(100_000)
	pushImage(t, c, r, layer)

	reg.Fault(times(3, 503, http.MethodHead))
	if _, err := c.Resolve(ctx, r); err != nil {
		t.Error(err)
	}
	reg.Fault(func(w http.ResponseWriter, req *http.Request, next http.Handler) {
		reg.Fault(nil)
		w.Header().Set("Retry-After", "7")
		w.WriteHeader(429)
	})
	waits = nil
	if _, err := c.Resolve(ctx, r); err != nil || len(waits) != 1 || waits[0] != 7*time.Second {
		t.Error(err, waits)
	}
	reg.Fault(func(w http.ResponseWriter, req *http.Request, next http.Handler) {
		w.Header().Set("Retry-After", "3600")
		w.WriteHeader(429)
	})
	reg.Count()
	_, err := c.Resolve(ctx, r)
	if n := reg.Count(); n != "HEAD 1" || fault.Of(err) != fault.Registry || !strings.Contains(err.Error(), "limits requests") {
		t.Error(n, err)
	}
	// A download that breaks off twice is taken up where it stopped.
	cuts := 0
	reg.Fault(func(w http.ResponseWriter, req *http.Request, next http.Handler) {
		if strings.Contains(req.URL.Path, "/blobs/") && cuts < 2 {
			cuts++
			w = &cut{ResponseWriter: w, n: 40_000}
		}
		next.ServeHTTP(w, req)
	})
	before := c.Stats().BytesDown
	rc, err := c.Blob(ctx, r, upload(layer).Desc)
	if err != nil {
		t.Fatal(err)
	}
	defer rc.Close()
	if got, err := io.ReadAll(rc); err != nil || !bytes.Equal(got, layer) || cuts != 2 {
		t.Error(len(got), err, cuts)
	}
	if n := c.Stats().BytesDown - before; n > 101_000 {
		t.Errorf("%d bytes for 100000", n)
	}
}

func TestRubbish(t *testing.T) {
	layer := random(5000)
	d := upload(layer).Desc
	html := "<!DOCTYPE html><html><body>Please sign in</body></html>"
	manifest := func(c *Client, r Ref) error { _, _, err := c.Fetch(context.Background(), r); return err }
	head := func(c *Client, r Ref) error { _, err := c.Resolve(context.Background(), r); return err }
	blob := func(c *Client, r Ref) error {
		rc, err := c.Blob(context.Background(), r, d)
		if err != nil {
			return err
		}
		defer rc.Close()
		_, err = io.ReadAll(rc)
		return err
	}
	page := func(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		io.WriteString(w, html)
	}
	say := func(mt, body string, headers ...string) func(http.ResponseWriter, *http.Request, http.Handler) {
		return func(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
			w.Header().Set("Content-Type", mt)
			for i := 0; i < len(headers); i += 2 {
				w.Header().Set(headers[i], headers[i+1])
			}
			io.WriteString(w, body)
		}
	}
	const oci = ocispecs.MediaTypeImageManifest
	for name, tc := range map[string]struct {
		fault func(http.ResponseWriter, *http.Request, http.Handler)
		op    func(*Client, Ref) error
		want  string
		cause error
	}{
		"page for a manifest":   {page, manifest, "web page", ErrDamaged},
		"page for HEAD":         {page, head, "web page", ErrDamaged},
		"page for a blob":       {page, blob, "55 bytes", ErrDamaged},
		"other manifest":        {say(oci, `{"schemaVersion":2}`, "Docker-Content-Digest", "sha256:"+strings.Repeat("1", 64)), manifest, "with digest sha256:111", ErrDamaged},
		"digest of rubbish":     {say(oci, `{}`, "Docker-Content-Digest", "sha256:zz"), manifest, "the digest", ErrDamaged},
		"giant":                 {say(oci, strings.Repeat(" ", MaxManifest+1)), manifest, "manifest of", ErrDamaged},
		"schema 1":              {say("application/vnd.docker.distribution.manifest.v1+prettyjws", `{"schemaVersion":1}`), manifest, "schema 1", ErrDamaged},
		"index and image":       {say(oci, `{"schemaVersion":2,"manifests":[],"layers":[]}`), manifest, "instead of an image manifest", ErrDamaged},
		"other blob":            {say("application/octet-stream", string(random(5000))), blob, "do not match", ErrDamaged},
		"no such tag":           {func(w http.ResponseWriter, _ *http.Request, _ http.Handler) { w.WriteHeader(404) }, head, "not found at", ErrNotFound},
		"denied":                {func(w http.ResponseWriter, _ *http.Request, _ http.Handler) { w.WriteHeader(403) }, head, "docker login", ErrDenied},
		"server error for ever": {func(w http.ResponseWriter, _ *http.Request, _ http.Handler) { w.WriteHeader(500) }, head, "answered 500", nil},
		"closes connections":    {func(http.ResponseWriter, *http.Request, http.Handler) { panic(http.ErrAbortHandler) }, head, "cannot reach", nil},
		"message with colours": {func(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
			w.WriteHeader(400)
			io.WriteString(w, `{"errors":[{"code":"NAME_INVALID","message":"\u001b[31mred `+strings.Repeat("x", 5000)+`"}]}`)
		}, manifest, "400 Bad Request:  [31mred", nil},
	} {
		t.Run(name, func(t *testing.T) {
			reg := newHarness(t)
			reg.Fault(tc.fault)
			err := tc.op(client(t, Config{}), ref(t, reg.Host+"/app:v1"))
			if err == nil || fault.Of(err) != fault.Registry {
				t.Fatal(err)
			}
			if !strings.Contains(strings.ReplaceAll(err.Error(), ": [", ":  ["), tc.want) || tc.cause != nil && !errors.Is(err, tc.cause) {
				t.Error(err)
			}
			if !strings.Contains(err.Error(), reg.Host+"/app") || len(err.Error()) > 700 {
				t.Error(err)
			}
		})
	}
}

func TestUnreachable(t *testing.T) {
	c := client(t, Config{})
	_, err := c.Resolve(context.Background(), ref(t, "127.0.0.1:1/a"))
	if fault.Of(err) != fault.Registry || !strings.Contains(err.Error(), "refuses connections") {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := c.Resolve(ctx, ref(t, "127.0.0.1:1/a")); fault.Of(err) != fault.Interrupted {
		t.Error(err)
	}
}

func TestTLS(t *testing.T) {
	inner := newHarness(t)
	target, _ := url.Parse("http://" + inner.Host)
	srv := httptest.NewTLSServer(httputil.NewSingleHostReverseProxy(target))
	srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	defer srv.Close()
	reg := struct{ Host string }{srv.Listener.Addr().String()}
	no := false
	host := reg.Host
	ctx := context.Background()
	r := ref(t, host+"/app:v1")
	pem := filepath.Join(t.TempDir(), "ca.crt")
	os.WriteFile(pem, pemOf(srv.Certificate().Raw), 0o600)
	secure, err := ReadTable(strings.NewReader(fmt.Sprintf("debug = true\n[registry.%q]\nhttp = false\nca = [%q]\n", host, pem)))
	if err != nil {
		t.Fatal(err)
	}
	table := Table{}
	entry := table[host]
	entry.PlainHTTP = &no
	table[host] = entry

	_, err = client(t, Config{Registries: table}).Resolve(ctx, r)
	if err == nil || !strings.Contains(err.Error(), "--insecure-registry") {
		t.Error(err)
	}
	for name, cfg := range map[string]Config{
		"ca":   {Registries: secure},
		"flag": {Insecure: []string{host}},
	} {
		t.Run(name, func(t *testing.T) { pushImage(t, client(t, cfg), r, random(10)) })
	}
	plain := newHarness(t)
	pushImage(t, client(t, Config{Insecure: []string{plain.Host}}), ref(t, plain.Host+"/a"), random(10))
	entry = Table{}[""]
	entry.PlainHTTP = &no
	_, err = client(t, Config{Registries: Table{plain.Host: entry}}).Resolve(ctx, ref(t, plain.Host+"/a"))
	if err == nil || !strings.Contains(err.Error(), "speaks plain HTTP") {
		t.Error(err)
	}
}

func TestMirror(t *testing.T) {
	mirror, origin := newHarness(t), newHarness(t)
	ctx := context.Background()
	c := client(t, Config{})
	layer := random(50_000)
	pushImage(t, c, ref(t, mirror.Host+"/proxy/app:v1"), layer)
	pushImage(t, c, ref(t, origin.Host+"/app:v2"), layer)
	table := Table{}
	entry := table[origin.Host]
	entry.Mirrors = []string{"http://" + mirror.Host + "/proxy/"}
	table[origin.Host] = entry
	c = client(t, Config{Registries: table})
	origin.Count()
	mirror.Count()
	desc, err := c.Resolve(ctx, ref(t, origin.Host+"/app:v1"))
	if err != nil || origin.Count() != "" {
		t.Fatal(err)
	}
	if _, err := c.Manifest(ctx, ref(t, origin.Host+"/app:v1"), desc); err != nil || origin.Count() != "" {
		t.Error(err)
	}
	// What the mirror has not is had from the registry; what is pushed goes there alone.
	if _, err := c.Resolve(ctx, ref(t, origin.Host+"/app:v2")); err != nil || origin.Count() != "HEAD 1" {
		t.Error(err)
	}
	mirror.Count()
	pushImage(t, c, ref(t, origin.Host+"/app:v3"), random(10))
	if got := mirror.Count(); got != "" {
		t.Error(got)
	}
	// A mirror that is gone is asked once.
	mirror.Fault(func(http.ResponseWriter, *http.Request, http.Handler) { panic(http.ErrAbortHandler) })
	for range 2 {
		if _, err := c.Resolve(ctx, ref(t, origin.Host+"/app:v2")); err != nil {
			t.Error(err)
		}
	}
	if list, _ := c.endpoints(origin.Host); !list[0].down.Load() {
		t.Error("mirror is not down")
	}
}

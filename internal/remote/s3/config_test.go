package s3

import (
	"io"
	"log"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/minio/minio-go/v7/pkg/credentials"

	"larder/internal/fault"
)

func env(vars map[string]string) func(string) string {
	return func(name string) string { return vars[name] }
}

func TestFromAttrs(t *testing.T) {
	base := Config{Bucket: "bkt", Region: "eu-west-1", Blobs: "blobs/", Manifests: "manifests/", Touch: 24 * time.Hour}
	for name, c := range map[string]struct {
		attrs, env map[string]string
		want       func(c *Config)
	}{
		"least": {map[string]string{"bucket": "bkt", "region": "eu-west-1"}, nil, func(*Config) {}},
		"environment": {nil, map[string]string{"AWS_BUCKET": "bkt", "AWS_REGION": "eu-west-1", "AWS_DEFAULT_REGION": "no", "AWS_CA_BUNDLE": "/ca.pem"},
			func(c *Config) { c.CAFile = "/ca.pem" }},
		"attributes win": {map[string]string{"bucket": "bkt", "region": "eu-west-1", "endpoint_url": "https://a.example"},
			map[string]string{"AWS_BUCKET": "x", "AWS_REGION": "x", "AWS_ENDPOINT_URL_S3": "https://x.example"}, func(c *Config) { c.Endpoint = "https://a.example" }},
		"all of BuildKit's": {map[string]string{
			"type": "s3", "mode": "max", "name": "main", "ignore-error": "true", "bucket": "bkt", "region": "eu-west-1", "prefix": "p/", "blobs_prefix": "bl/",
			"manifests_prefix": "ma/", "endpoint_url": "http://minio:9000", "use_path_style": "true", "access_key_id": "id", "secret_access_key": "secret",
			"session_token": "token", "touch_refresh": "48h", "upload_parallelism": "7", "retry_mode": "adaptive", "retry_max_attempts": "3", "disable_accept_encoding": "true",
		}, nil, func(c *Config) {
			*c = Config{Bucket: "bkt", Region: "eu-west-1", Prefix: "p/", Blobs: "bl/", Manifests: "ma/", Endpoint: "http://minio:9000", PathStyle: true,
				AccessKey: "id", SecretKey: "secret", SessionToken: "token", Touch: 48 * time.Hour, Parallel: 7}
		}},
		"an address has no host names": {map[string]string{"bucket": "bkt", "endpoint_url": "http://127.0.0.1:9000"}, nil,
			func(c *Config) { c.Endpoint, c.Region, c.PathStyle = "http://127.0.0.1:9000", "us-east-1", true }},
		"nor has a single word": {map[string]string{"bucket": "bkt"}, map[string]string{"AWS_ENDPOINT_URL": "http://minio:9000"},
			func(c *Config) { c.Endpoint, c.Region, c.PathStyle = "http://minio:9000", "us-east-1", true }},
		"unless it is said": {map[string]string{"bucket": "bkt", "endpoint_url": "http://minio:9000", "use_path_style": "false"}, nil,
			func(c *Config) { c.Endpoint, c.Region = "http://minio:9000", "us-east-1" }},
	} {
		want := base
		c.want(&want)
		if got, err := FromAttrs(c.attrs, env(c.env)); err != nil || got != want {
			t.Errorf("%s: %+v instead of %+v, %v", name, got, want, err)
		}
	}
}

// TestName: names tell stores apart, and one store has one name.
func TestName(t *testing.T) {
	for _, c := range []struct{ endpoint, prefix, want string }{
		{"", "", "s3://bkt"},
		{"", "team/", "s3://bkt/team"},
		{"https://s3.eu-west-1.amazonaws.com", "team/", "s3://bkt/team"},
		{"https://bucket.vpce-1.s3.eu-west-1.vpce.amazonaws.com/", "", "s3://bkt"},
		{"http://minio", "", "s3://minio:80/bkt"},
		{"https://minio.example", "team/", "s3://minio.example:443/bkt/team"},
		{"https://MinIO.example:443/", "team/", "s3://minio.example:443/bkt/team"},
		{"http://minio.example:443", "", "s3://minio.example:443/bkt"},
		{"http://127.0.0.1:9001", "", "s3://127.0.0.1:9001/bkt"},
		{"http://[::1]:9001", "", "s3://[::1]:9001/bkt"},
		{"https://amazonaws.com.example", "", "s3://amazonaws.com.example:443/bkt"},
	} {
		s := open(t, Config{Bucket: "bkt", Region: "eu-west-1", Endpoint: c.endpoint, Prefix: c.prefix, AccessKey: "key", SecretKey: "hunter2"})
		if got := s.Name(); got != c.want {
			t.Errorf("%s %s: %s instead of %s", c.endpoint, c.prefix, got, c.want)
		}
	}
}

func TestWrongAttrs(t *testing.T) {
	const secret = "hunter2"
	for _, c := range []struct {
		attrs map[string]string
		says  string
	}{
		{map[string]string{"bucket": ""}, "bucket=NAME"},
		{map[string]string{"bucket": "no/bucket"}, `S3 bucket "no/bucket"`},
		{map[string]string{"region": ""}, "region=NAME"},
		{map[string]string{"buckets": secret}, `no attribute "buckets" (there are access_key_id, blobs_prefix, bucket,`},
		{map[string]string{"use_path_style": "maybe"}, "use_path_style=maybe: say true or false"},
		{map[string]string{"touch_refresh": "-1h"}, "touch_refresh=-1h: say a duration"},
		{map[string]string{"upload_parallelism": "0"}, "upload_parallelism=0: say a number"},
		{map[string]string{"secret_access_key": secret}, "belong together"},
		{map[string]string{"session_token": secret}, "needs its access_key_id"},
		{map[string]string{"endpoint_url": "minio:9000"}, "is a URL such as"},
		{map[string]string{"endpoint_url": "https://me:" + secret + "@minio.example"}, "cannot hold a user name"},
		{map[string]string{"endpoint_url": "https://minio.example/b?x=" + secret}, "cannot go on with a path"},
		{map[string]string{"endpoint_url": "https://" + secret + ":x:y"}, "is a URL such as"},
	} {
		attrs := map[string]string{"bucket": "bkt", "region": "r"}
		maps.Copy(attrs, c.attrs)
		_, err := FromAttrs(attrs, env(nil))
		if err == nil || !strings.Contains(err.Error(), c.says) || strings.Contains(err.Error(), secret) || fault.Of(err) != fault.Usage {
			t.Errorf("%v: %v", c.attrs, err)
		}
	}
	for _, c := range []Config{
		{}, {Bucket: "B/b", Region: "r"}, {Bucket: "bkt"}, {Bucket: "bkt", Region: "r", Endpoint: "minio"}, {Bucket: "bkt", Region: "r", CAFile: "/nowhere/ca.pem"}, {Bucket: "bkt", Endpoint: "http://-a-"},
	} {
		if _, err := New(c); fault.Of(err) != fault.Usage {
			t.Errorf("%+v: %v", c, err)
		}
	}
}

// TestCAFile trusts a server's certificate because of a file, and not without it.
func TestCAFile(t *testing.T) {
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		answerError(w, http.StatusForbidden, "AccessDenied", "no")
	}))
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.StartTLS()
	defer server.Close()
	c := Config{Bucket: "bucket", Endpoint: server.URL, PathStyle: true, AccessKey: "a", SecretKey: "b"}
	if _, err := open(t, c).Manifest(t.Context(), "main"); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("without: %v", err)
	}
	c.CAFile = filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(c.CAFile, pemOf(server.Certificate().Raw), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := open(t, c).Manifest(t.Context(), "main"); err == nil || !strings.Contains(err.Error(), "does not allow it") {
		t.Errorf("with: %v", err)
	}
}

// clearAWS takes everything out of the environment where credentials could come from.
func clearAWS(t *testing.T) string {
	for _, v := range os.Environ() {
		if name, _, _ := strings.Cut(v, "="); strings.HasPrefix(name, "AWS_") {
			t.Setenv(name, "")
		}
	}
	home := t.TempDir()
	t.Setenv("HOME", home)
	t.Setenv("AWS_EC2_METADATA_DISABLED", "true")
	return home
}

func found(t *testing.T, c Config) (credentials.Value, string) {
	t.Helper()
	ch := &chain{list: sources(c)}
	v, err := credentials.New(ch).GetWithContext(nil)
	if err != nil {
		t.Fatal(err)
	}
	return v, ch.why()
}

func TestCredentials(t *testing.T) {
	home := clearAWS(t)
	if v, why := found(t, Config{}); v.AccessKeyID != "" || !strings.Contains(why, "AWS_ACCESS_KEY_ID") || !strings.Contains(why, "profile") {
		t.Errorf("none: %+v, %s", v, why)
	}
	if err := os.MkdirAll(filepath.Join(home, ".aws"), 0o700); err != nil {
		t.Fatal(err)
	}
	profiles := "[default]\naws_access_key_id = of-profile\naws_secret_access_key = s1\n[other]\naws_access_key_id = of-other\naws_secret_access_key = s2\n"
	if err := os.WriteFile(filepath.Join(home, ".aws", "credentials"), []byte(profiles), 0o600); err != nil {
		t.Fatal(err)
	}
	check := func(c Config, want string) {
		t.Helper()
		if v, why := found(t, c); v.AccessKeyID != want || why != "" {
			t.Errorf("%s instead of %s, %q", v.AccessKeyID, want, why)
		}
	}
	check(Config{}, "of-profile")
	t.Setenv("AWS_PROFILE", "other")
	check(Config{}, "of-other")
	t.Setenv("AWS_ACCESS_KEY_ID", "of-env")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "s3")
	check(Config{}, "of-env")
	check(Config{AccessKey: "given", SecretKey: "s4"}, "given")
}

// TestMachineRole takes the credentials of a container's role, and asks for new ones when they are over.
func TestMachineRole(t *testing.T) {
	clearAWS(t)
	asked := 0
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		asked++
		w.Write([]byte(`{"AccessKeyId":"role","SecretAccessKey":"s","Token":"t","Expiration":"` + time.Now().Add(-time.Minute).UTC().Format(time.RFC3339) + `"}`))
	}))
	defer server.Close()
	t.Setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", server.URL+"/role")
	creds := credentials.New(&chain{list: sources(Config{})})
	for range 2 {
		if v, err := creds.GetWithContext(nil); err != nil || v.AccessKeyID != "role" || v.SessionToken != "t" {
			t.Errorf("%+v, %v", v, err)
		}
	}
	if asked != 2 {
		t.Errorf("asked %d times", asked)
	}
}

// TestNoCredentials remembers that there are none: looking for them again, for each request, would take seconds.
func TestNoCredentials(t *testing.T) {
	clearAWS(t)
	c := (&fake{}).serve(t, func(http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			if req.Header.Get("Authorization") != "" {
				t.Error("signed with what?")
			}
			answerError(w, http.StatusForbidden, "AccessDenied", "Access Denied")
		})
	})
	c.AccessKey, c.SecretKey = "", ""
	s := open(t, c)
	for range 2 {
		if _, err := s.Manifest(t.Context(), "main"); err == nil || !strings.Contains(err.Error(), "there are no credentials: looked at AWS_ACCESS_KEY_ID") {
			t.Errorf("%v", err)
		}
	}
	if s.creds.IsExpired() {
		t.Error("it would look again")
	}
}

package layout

import (
	"strings"
	"sync"
	"testing"
)

func TestSecret(t *testing.T) {
	for _, c := range []struct {
		target, path string
		files        []string
		secret       bool
	}{
		{"/root", ".npmrc", nil, true},
		{"/root", ".netrc", nil, true},
		{"/root", ".docker/config.json", nil, true},
		{"/root/.docker", "config.json", nil, true},
		{"/app/cache", "config.json", nil, false},
		{"/root", ".config/gcloud/logs/2026/x.log", nil, true},
		{"/root/.config", "gcloud/access_tokens.db", nil, true},
		{"/root", ".aws/sso/cache/0.json", nil, true},
		{"/root/.aws", "config", nil, true},
		{"/root", ".ssh/known_hosts", nil, true},
		{"/root", "keys/id_ed25519", nil, true},
		{"/root/.m2", "settings.xml", nil, true},
		{"/root/.m2", "settings-security.xml", nil, true},
		{"/root/.m2", "repository/a/b/1/settings.xml", nil, false},
		{"/root/.gradle", "gradle.properties", nil, true},
		{"/app", "gradle.properties", nil, false},
		{"/root/.cargo", "credentials.toml", nil, true},
		{"/usr/local/cargo", "credentials", nil, true},
		{"/usr/local/cargo", "config.toml", nil, false},
		{"/root/.config/pip", "pip.conf", nil, true},
		{"/root/.composer", "auth.json", nil, true},
		{"/root/.npm", "_logs/2026-01-01T00_00_00_000Z-debug-0.log", npm, true},
		{"/root/.npm", npm[1], npm, false},
		{"/src", "repo/.git/config", nil, true},
		{"/mirrors", "foo.git/config", nil, true},
		{"/src", "repo/.github/config", nil, false},
		{"/go/pkg/mod", "cache/vcs/" + hex("ab", 64) + "/config", goMod, true},
		{"/usr/local/bundle", "config", nil, true},
		{"/app/.cache", "yarn-error.log", nil, true},
		{"/app/.cache", "build.log", nil, false},
		{"/app/.cache", "tls/client-key.pem", nil, true},
		{"/app/.cache", "tls/ca.pem", nil, false},
		{"/app/.cache", "terser/0a1b.key", nil, false},
		// What packages bring along.
		{"/go/pkg/mod", "github.com/!burnt!sushi/toml@v1.2.0/testdata/key.pem", goMod, false},
		{"/go/pkg/mod", "golang.org/x/crypto@v0.1.0/ssh/testdata/id_rsa", goMod, false},
		{"/go/pkg/mod", "cache/download/a.b/credentials/@v/list", goMod, false},
		{"/go", "pkg/mod/a.b/c@v1.0.0/.npmrc", nil, false},
		{"/cache", "a.b/c@v1.0.0/.git-credentials", nil, false},
		{"/usr/local/cargo/registry", cargo[5], cargo, false},
		{"/usr/local/cargo", "registry/" + cargo[5], nil, false},
		{"/root/.cache/uv", "archive-v0/x/aiohttp/.netrc", uv, false},
		{"/venv", "lib/python3.12/site-packages/certifi/key.pem", nil, false},
		{"/app", "node_modules/https-proxy/test/server.key", nil, false},
		{"/app", "node_modules/.npmrc", nil, true},
		{"/root/.nuget/packages", "a/1/auth.json", []string{"a/1/.nupkg.metadata"}, false},
		{"/usr/local/bundle", "gems/puma-6.0.0/examples/puma/server.key", nil, false},
		{"/root/.m2/repository", "a/b/1/credentials", nil, false},
	} {
		l := Detect(c.target, c.target, files(t, c.files...))
		if got := l.Secret(c.path); got != c.secret {
			t.Errorf("%s (%q): %s: secret %v", c.target, l.name(), c.path, got)
		}
	}
}

func TestPatterns(t *testing.T) {
	m, err := Patterns([]string{"*.log", "/private/", "**/token-*", "!private/public.txt", ""})
	if err != nil {
		t.Fatal(err)
	}
	var wait sync.WaitGroup
	for p, want := range map[string]bool{
		"a.log": true, "sub/a.log": false, "private/x/y": true, "private/public.txt": false, "a/b/token-1": true, "token-1": true, "a/token": false,
	} {
		wait.Go(func() {
			if got := m.Match(p); got != want {
				t.Errorf("%s: %v", p, got)
			}
		})
	}
	wait.Wait()
	for _, bad := range []string{"a[", "[z-a]", "!", "!x["} {
		if _, err := Patterns([]string{"ok", bad}); err == nil || !strings.Contains(err.Error(), bad) {
			t.Errorf("%q: %v", bad, err)
		}
	}
	if m, err := Patterns(nil); err != nil || m.Match("a") {
		t.Error("no patterns match something", err)
	}
}

package layout

import (
	"fmt"
	"path"
	"strings"
	"sync"

	"github.com/moby/patternmatcher"
)

// secretNames are files that tools, or those who use them, keep credentials in, wherever they are.
var secretNames = map[string]bool{
	".npmrc": true, ".yarnrc": true, ".yarnrc.yml": true, ".netrc": true, "_netrc": true, ".git-credentials": true, ".pypirc": true, "pip.conf": true,
	"pip.ini": true, "credentials": true, "credentials.toml": true, "credentials.json": true, "credentials.tfrc.json": true, "credentials.db": true,
	"application_default_credentials.json": true, "access_tokens.db": true, "auth.json": true, "auth.toml": true, ".dockercfg": true,
	".dockerconfigjson": true, "settings-security.xml": true, ".pgpass": true, ".my.cnf": true, ".vault-token": true, ".htpasswd": true,
	"id_rsa": true, "id_dsa": true, "id_ecdsa": true, "id_ed25519": true, "id_ecdsa_sk": true, "id_ed25519_sk": true,
	"privkey.pem": true, "key.pem": true, "private.pem": true, "server.key": true, "client.key": true, "tls.key": true, "private.key": true,
	"yarn-error.log": true, "npm-debug.log": true,
}

// secretPlaces are the ends of paths that hold them; those that end with a slash are directories all of which does.
var secretPlaces = []string{
	".docker/config.json", ".m2/settings.xml", ".gradle/gradle.properties", ".git/config", ".config/git/credentials", ".config/gh/hosts.yml",
	".kube/config", ".bundle/config", "usr/local/bundle/config", ".nuget/NuGet/NuGet.Config", ".config/NuGet/NuGet.Config", ".config/pypoetry/auth.toml",
	".aws/", ".azure/", ".config/gcloud/", ".ssh/", ".gnupg/", ".npm/_logs/",
}

// Secret tells whether a file's name says that it may hold credentials, so that it is not saved unless somebody asks for it. It is asked of
// files, not of directories. What packages bring along is published and none of the user's: test keys in a module's sources are part of
// the module.
func (l Layout) Secret(name string) bool {
	t, _, rest := l.part(name)
	if t != nil && matchAny(t.published, rest) || isPublishedAnywhere(name) {
		return false
	}
	full := path.Join("/", l.target, name)
	base := path.Base(full)
	if secretNames[base] || strings.HasSuffix(base, "-key.pem") || strings.HasPrefix(base, "npm-debug.log.") {
		return true
	}
	for _, p := range secretPlaces {
		if strings.HasSuffix(p, "/") && strings.Contains(full, "/"+p) || strings.HasSuffix(full, "/"+p) {
			return true
		}
	}
	// A clone's configuration has the address that it was cloned from.
	parts := strings.Split(full, "/")
	n := len(parts)
	return base == "config" && n >= 3 && (parts[n-3] == "vcs" || strings.HasSuffix(parts[n-2], ".git"))
}

// isPublishedAnywhere finds packages in mounts of which nothing else is known.
func isPublishedAnywhere(name string) bool {
	parts := strings.Split(name, "/")
	for i, p := range parts[:len(parts)-1] {
		// A file beside the packages, node_modules/.npmrc, is not theirs.
		packages := p == "node_modules" || p == "site-packages" || p == "dist-packages"
		if packages && i < len(parts)-2 || isModule(p) {
			return true
		}
	}
	return false
}

// Matcher matches paths as a .dockerignore file does: "*" and "?" in names, "**" for any directories, a "!" in front for what is not meant after
// all, the last pattern that matches counting. A pattern that matches a directory matches all in it. It is safe for concurrent use.
type Matcher struct {
	mu sync.Mutex // the matcher below compiles patterns when it first needs them
	m  *patternmatcher.PatternMatcher
}

// Patterns makes a Matcher of a user's list. A slash in front means nothing. The error says which pattern cannot be understood.
func Patterns(list []string) (*Matcher, error) {
	var clean []string
	for _, p := range list {
		body, not := strings.CutPrefix(strings.TrimSpace(p), "!")
		body = strings.TrimPrefix(body, "/")
		// One that is a syntax error may say so only when it is first used.
		m, err := patternmatcher.New([]string{body})
		if err == nil {
			_, err = m.MatchesOrParentMatches("x")
		}
		if err != nil {
			return nil, fmt.Errorf("pattern %q: %w", p, err)
		}
		if not {
			body = "!" + body
		}
		clean = append(clean, body)
	}
	m, err := patternmatcher.New(clean)
	if err != nil {
		return nil, fmt.Errorf("patterns %q: %w", list, err)
	}
	return &Matcher{m: m}, nil
}

// Match tells whether a path, relative to the mount's directory, is meant.
func (m *Matcher) Match(name string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	ok, err := m.m.MatchesOrParentMatches(name)
	return ok || err != nil // in doubt, it stays here
}

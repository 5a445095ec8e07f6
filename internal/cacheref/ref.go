package cacheref

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"larder/internal/layer"
	"larder/internal/registry"
)

// The types of caches.
const (
	Registry = "registry" // tags in a repository
	Local    = "local"    // a directory with an OCI layout inside
	S3       = "s3"       // a bucket
	Inline   = "inline"   // in the image that is built; for ParseTo only
)

// Ref names a remote cache.
type Ref struct {
	Type string
	// Repository is the repository of a Registry, and the tag or digest in it that Tag says too.
	Repository registry.Ref
	// Insecure says that the registry's certificate is not checked, and that it may speak plain HTTP.
	Insecure bool
	// Dir is the absolute path of a Local one.
	Dir string
	// Attrs are for S3: what package remote/s3 understands, and checks. There are credentials among them.
	Attrs map[string]string
	// Tag is the name of one document in the store: what ref=REPO:TAG, tag= or name= say, or what BuildKit takes without them. For
	// ParseFrom it may be a digest. Empty for ParseCache: there the scopes decide.
	Tag string
	// Max keeps the layers of all stages, not only those that the image has.
	Max bool
	// IgnoreError says that a build succeeds though the cache could not be written, whatever else was asked for.
	IgnoreError bool
	// Compression and Level are those of layers that are written; nil for the default.
	Compression *layer.Compression
	Level       *int
	// Notes say what was accepted and has no effect, a sentence each.
	Notes []string
	// Text names the cache in messages, without credentials.
	Text string
}

// setText makes the name for messages.
func (r *Ref) setText() {
	switch r.Type {
	case Registry:
		r.Text = r.Repository.String()
	case Local:
		r.Text = "local:" + r.Dir
		if r.Tag != "" && r.Tag != defaultLocalTag {
			r.Text += " (" + r.Tag + ")"
		}
	case S3:
		r.Text = "type=s3"
		for _, k := range slices.Sorted(maps.Keys(r.Attrs)) {
			if v := publicValue(k, r.Attrs[k]); v != hidden {
				r.Text += "," + k + "=" + v
			}
		}
		if r.Tag != "" && r.Tag != defaultS3Name {
			r.Text += ",name=" + r.Tag
		}
	default:
		r.Text = "type=" + r.Type
	}
}

// note records that something has no effect.
func (r *Ref) note(format string, args ...any) {
	r.Notes = append(r.Notes, fmt.Sprintf(format, args...))
}

// hidden stands for a value that nobody may read.
const hidden = "***"

// public are the attributes whose values may be shown. All others may be credentials, or parts of one that has a comma in it.
var public = append([]string{"type", "ref", "registry.insecure", "src", "dest", "tag", "digest", "bucket", "region", "prefix", "blobs_prefix",
	"manifests_prefix", "name", "endpoint_url", "use_path_style", "scope", "url", "account_url"}, writing...)

// publicValue gives an attribute's value for messages.
func publicValue(k, v string) string {
	if !slices.Contains(public, strings.ToLower(strings.TrimSpace(k))) {
		return hidden
	}
	return withoutUser(v)
}

// withoutUser hides what stands before the host of an address ("https://user:password@host/").
func withoutUser(s string) string {
	at := userEnd(s)
	if at < 0 {
		return s
	}
	start := 0
	if i := strings.Index(s, "://"); i >= 0 && i < at {
		start = i + len("://")
	}
	return s[:start] + hidden + s[at:]
}

var isDigest = regexp.MustCompile(`^@[a-z0-9]+:[0-9a-fA-F]{32,}$`)

// userEnd finds the @ after a user or password; -1 for none. One that begins a digest is none.
func userEnd(s string) int {
	at := strings.LastIndexByte(s, '@')
	if at >= 0 && isDigest.MatchString(s[at:]) {
		at = strings.LastIndexByte(s[:at], '@')
	}
	return at
}

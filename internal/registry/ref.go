package registry

import (
	"fmt"
	"strings"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"

	"larder/internal/fault"
)

// Ref names a repository in a registry, and mostly a tag or a digest in it.
type Ref struct {
	Host   string        // the registry as users write it ("docker.io", "localhost:5000")
	Repo   string        // the path in it ("library/alpine")
	Tag    string        // may be empty when Digest is set
	Digest digest.Digest // wins over Tag where both are set
}

// ParseRef reads a reference as docker does: "alpine" is docker.io/library/alpine:latest. A name with neither tag nor
// digest gets the tag "latest". What is wrong with s is an error of kind Usage.
func ParseRef(s string) (Ref, error) {
	named, err := reference.ParseNormalizedNamed(s)
	if err != nil {
		return Ref{}, fault.Errorf(fault.Usage, "image reference %.300q: %w", s, err)
	}
	r := Ref{Host: reference.Domain(named), Repo: reference.Path(named)}
	if t, ok := named.(reference.Tagged); ok {
		r.Tag = t.Tag()
	}
	if d, ok := named.(reference.Digested); ok {
		r.Digest = d.Digest()
	}
	if r.Tag == "" && r.Digest == "" {
		r.Tag = "latest"
	}
	return r, nil
}

// Name is the repository with its registry, "docker.io/library/alpine": the form in which layer.Blob's Origin names it.
func (r Ref) Name() string { return r.Host + "/" + r.Repo }

// String is the whole reference, with all parts spelt out.
func (r Ref) String() string {
	var b strings.Builder
	b.WriteString(r.Name())
	if r.Tag != "" {
		b.WriteString(":" + r.Tag)
	}
	if r.Digest != "" {
		b.WriteString("@" + r.Digest.String())
	}
	return b.String()
}

// WithDigest gives the reference to one manifest of the same repository.
func (r Ref) WithDigest(d digest.Digest) Ref {
	r.Tag, r.Digest = "", d
	return r
}

// object is the last element of a manifest's URL.
func (r Ref) object() (string, error) {
	if r.Digest != "" {
		if err := r.Digest.Validate(); err != nil {
			return "", fmt.Errorf("digest %.100q: %w", r.Digest, err)
		}
		return r.Digest.String(), nil
	}
	if r.Tag == "" {
		return "", fmt.Errorf("%s has neither tag nor digest", r.Name())
	}
	return r.Tag, nil
}

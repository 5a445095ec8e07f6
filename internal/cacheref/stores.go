package cacheref

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
)

// local takes the attributes of a directory. BuildKit says src where it reads and dest where it writes; --cache takes both.
func (r *Ref) local(u use, attrs map[string]string) ([]Ref, error) {
	names := map[use][]string{useRead: {"src"}, useWrite: {"dest"}, useBoth: {"dest", "src"}}[u]
	dir, found := "", false
	for _, k := range []string{"src", "dest"} {
		v, ok := attrs[k]
		switch {
		case !ok:
		case !slices.Contains(names, k):
			r.note("%s has no effect in %s", k, u)
		case found && v != dir:
			return nil, errors.New("src and dest are two directories; --cache reads and writes one")
		default:
			dir, found = v, true
		}
	}
	if !found {
		return nil, fmt.Errorf("%s= is missing: which directory?", names[0])
	}
	if err := r.setDir(dir); err != nil {
		return nil, err
	}
	tag, hasTag := attrs["tag"]
	d, hasDigest := attrs["digest"]
	switch {
	case u == useBoth && (hasTag || hasDigest):
		return nil, errors.New("the tags of this cache are made from scopes; --cache-from and --cache-to take a tag")
	case u == useBoth:
	case hasDigest && u == useWrite:
		r.note("digest has no effect in %s", u)
		fallthrough
	case !hasDigest:
		if r.Tag = tag; !hasTag {
			r.Tag = defaultLocalTag
		}
		if err := checkName("tag", r.Tag); err != nil {
			return nil, err
		}
	default:
		if err := digest.Digest(d).Validate(); err != nil {
			return nil, fmt.Errorf("digest=%.100s: %w", d, err)
		}
		if hasTag {
			r.note("tag has no effect beside digest")
		}
		r.Tag = d
	}
	return []Ref{*r}, nil
}

// s3 takes the name from the attributes of a bucket. BuildKit writes under several names with name=A;B, and reads the first.
func (r *Ref) s3(u use, attrs map[string]string) ([]Ref, error) {
	name, hasName := attrs["name"]
	delete(attrs, "name")
	r.Attrs = attrs
	if u == useBoth {
		if hasName {
			return nil, errors.New("the names in this cache are made from scopes; --cache-from and --cache-to take a name")
		}
		return []Ref{*r}, nil
	}
	if !hasName {
		name = defaultS3Name
	}
	names := strings.Split(name, ";")
	if u == useRead && len(names) > 1 {
		r.note("only the first name is read; give --cache-from once for each")
		names = names[:1]
	}
	var out []Ref
	for _, n := range names {
		if err := checkName("name", n); err != nil {
			return nil, err
		}
		c := *r
		c.Tag = n
		c.Notes = slices.Clone(r.Notes)
		out = append(out, c)
	}
	return out, nil
}

// checkName refuses names that some store cannot hold.
func checkName(k, v string) error {
	const most = 128
	switch {
	case v == "":
		return fmt.Errorf("%s= is empty; is a variable unset?", k)
	case len(v) > most:
		return fmt.Errorf("%s=%.40s...: a name has %d characters at most", k, v, most)
	}
	for i, c := range []byte(v) {
		alnum := c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '_'
		if !alnum && (i == 0 || c != '.' && c != '-') {
			return fmt.Errorf("%s=%s: letters, digits, _, . and - make a name, and it begins with neither of the last two", k, v)
		}
	}
	return nil
}

package cacheref

import (
	"errors"
	"fmt"
	"regexp"
	"strings"

	"larder/internal/registry"
)

var portAlone = regexp.MustCompile(`^[A-Za-z0-9.-]+:[0-9]+$`)

// setRepository takes a reference.
func (r *Ref) setRepository(u use, s string) error {
	if err := unlikely(u, s); err != nil {
		return err
	}
	ref, err := registry.ParseRef(s)
	if err != nil {
		return err
	}
	path := s[strings.LastIndexByte(s, '/')+1:]
	written := strings.Contains(path, ":") // of a digest, too
	switch {
	case u == useBoth && written:
		alone := registry.Ref{Host: ref.Host, Repo: ref.Repo}
		return fmt.Errorf("the tags of this cache are made from scopes, so name the repository alone: --cache %s (or one tag with --cache-from and --cache-to)", alone)
	case u == useWrite && ref.Digest != "":
		return errors.New("a digest cannot be written to; name a tag")
	case u != useRead && ref.Host == "docker.io" && strings.HasPrefix(ref.Repo, "library/"):
		name := strings.TrimPrefix(ref.Repo, "library/")
		return fmt.Errorf("this is %s, where only Docker publishes; name the registry too (registry.example/%s), or the user (docker.io/USER/%[2]s), or a directory (./%[2]s)", ref.Name(), name)
	}
	switch {
	case u == useBoth:
		ref.Tag = ""
	case ref.Digest != "":
		ref.Tag = ""
		r.Tag = ref.Digest.String()
	default:
		r.Tag = ref.Tag
	}
	r.Repository = ref
	return nil
}

// unlikely finds what is no reference, and says what was probably meant.
func unlikely(u use, s string) error {
	scheme, rest, hasScheme := strings.Cut(s, "://")
	switch {
	case s == "":
		return errors.New("which repository? Its name is empty; is a variable unset?")
	case strings.Contains(s, "$"):
		return errors.New("there is a variable in it that nobody has replaced")
	case s == "true" || s == "false":
		return errors.New("a repository is expected, such as registry.example/app (what other tools call --cache-repo)")
	case userEnd(s) >= 0:
		return errors.New("a reference holds no user or password; sign in with docker login")
	case hasScheme && (scheme == "http" || scheme == "https" || scheme == "oci" || scheme == "docker" || scheme == "docker-image"):
		rest = strings.TrimSuffix(strings.TrimPrefix(rest, "/"), "/")
		return fmt.Errorf("a repository is named without %s://, so: %s", scheme, rest)
	case hasScheme:
		return fmt.Errorf("%s:// is not known: a repository (registry.example/app), a directory (./dir) and s3://BUCKET/PREFIX are", scheme)
	case !strings.Contains(s, "/") && portAlone.MatchString(s) && (u == useBoth || strings.HasPrefix(s, "localhost:")):
		return fmt.Errorf("this is a registry without a repository; add its name: %s/NAME", s)
	}
	return nil
}

package cacheref

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"larder/internal/layer"
)

// ours are the attributes that say where a cache is and that larder understands itself. Those of S3 are package remote/s3's
// matter.
var ours = map[string][]string{
	Registry: {"ref", "registry.insecure"},
	Local:    {"src", "dest", "tag", "digest"},
	S3:       {"bucket", "region", "prefix", "name", "endpoint_url", "use_path_style", "..."},
	Inline:   nil,
}

// writing are the attributes of a cache that is written, of every type.
var writing = []string{"mode", "ignore-error", "compression", "compression-level", "force-compression", "oci-mediatypes", "image-manifest"}

// noEffect are attributes of BuildKit's types that have no counterpart here, with the reason.
var noEffect = map[string]map[string]string{
	Local: {"reset": "blobs that no document names go away by themselves, and larder cache prune removes more"},
	S3: {
		"touch_refresh":           "larder touches what a catalog names once it is 24 hours old, so that a rule of the bucket may expire the rest",
		"upload_parallelism":      "larder chooses how much it sends at once",
		"retry_mode":              "larder has its own rules for trying again",
		"retry_max_attempts":      "larder has its own rules for trying again",
		"disable_accept_encoding": "larder asks for no encoding",
	},
}

// elsewhere says what to do about types that are not here.
var elsewhere = map[string]string{
	"gha":    "larder keeps its cache in a registry: use --cache ghcr.io/OWNER/REPOSITORY, or another registry",
	"azblob": "larder keeps its cache in a registry: use --cache REGISTRY.azurecr.io/NAME, or another registry",
	"gcs":    "larder keeps its cache in a registry: use --cache REGION-docker.pkg.dev/PROJECT/REPOSITORY/NAME, or another registry",
	"oci":    "the directory of type=local is an OCI layout",
	"image":  "type=registry is what is meant",
	"docker": "type=registry or type=local is what is meant",
}

// typed reads a line of KEY=VALUE.
func typed(u use, fields []string) ([]Ref, error) {
	attrs := map[string]string{}
	for i, f := range fields {
		k, v, ok := strings.Cut(f, "=")
		if !ok {
			return nil, fmt.Errorf("field %d is not KEY=VALUE; a value with a comma needs quotes around its field: '\"KEY=VALUE\"'", i+1)
		}
		attrs[strings.ToLower(strings.TrimSpace(k))] = strings.TrimSpace(v)
	}
	r := Ref{Type: attrs["type"], Max: u == useBoth}
	delete(attrs, "type")
	if _, known := ours[r.Type]; !known {
		switch way, ok := elsewhere[r.Type]; {
		case ok:
			return nil, fmt.Errorf("type=%s is not possible: %s", r.Type, way)
		case r.Type == "":
			return nil, errors.New("type= is missing: registry, local, s3 or inline")
		}
		if strings.Contains(r.Type, ",") {
			return nil, errors.New("the quotes around the whole line make one field of it; leave them out, or put them around a field")
		}
		return nil, fmt.Errorf("type=%.40s is not known: registry, local, s3 and inline are", r.Type)
	}
	var unread []string
	for _, k := range slices.Sorted(maps.Keys(attrs)) {
		why, idle := noEffect[r.Type][k]
		switch {
		case idle:
			r.note("%s has no effect: %s", k, why)
		case slices.Contains(writing, k) && u == useRead:
			unread = append(unread, k)
		case slices.Contains(writing, k):
			if err := r.setWriting(u, k, attrs[k]); err != nil {
				return nil, err
			}
		case r.Type == S3 || slices.Contains(ours[r.Type], k):
			continue
		case k == "scope":
			return nil, errors.New("scope= is not possible here; --cache-scope names the scope")
		default:
			return nil, fmt.Errorf("%.40s is not possible with type=%s; possible are %s", k, r.Type, strings.Join(possible(u, r.Type), ", "))
		}
		delete(attrs, k)
	}
	if unread != nil {
		r.note("where a cache is only read, these have no effect: %s", strings.Join(unread, ", "))
	}
	if err := r.checkLevel(); err != nil {
		return nil, err
	}
	switch r.Type {
	case Registry:
		return r.registry(u, attrs)
	case Local:
		return r.local(u, attrs)
	case S3:
		return r.s3(u, attrs)
	}
	if u != useWrite {
		return nil, errors.New("an inline cache is read by naming its image: --cache-from IMAGE; --cache-to type=inline writes it")
	}
	return []Ref{r}, nil
}

func possible(u use, t string) []string {
	out := slices.Clone(ours[t])
	if u != useRead {
		out = append(out, writing...)
	}
	return out
}

func boolean(k, v string) (bool, error) {
	if v == "" {
		return true, nil
	}
	b, err := strconv.ParseBool(v)
	if err != nil {
		return false, fmt.Errorf("%s=%.40s: true or false is expected", k, v)
	}
	return b, nil
}

// setWriting takes an attribute of a cache that is written.
func (r *Ref) setWriting(u use, k, v string) error {
	switch k {
	case "mode":
		if v != "min" && v != "max" {
			return fmt.Errorf("mode=%.40s: min (the layers of the image) or max (those of all stages) is expected", v)
		}
		if u == useBoth && v == "min" {
			return errors.New("mode=min is not possible: --cache keeps all stages; --cache-to has modes")
		}
		if r.Type == Inline && v == "max" {
			r.note("mode=max has no effect: an image holds its own layers only")
			return nil
		}
		r.Max = v == "max"
		return nil
	case "compression":
		c, err := layer.ParseCompression(v)
		if err != nil {
			return err
		}
		if r.Type == Inline {
			r.note("compression has no effect: --output says how an image's layers are compressed")
			return nil
		}
		r.Compression = &c
		return nil
	case "compression-level":
		n, err := strconv.Atoi(v)
		if err != nil {
			return fmt.Errorf("compression-level=%.40s: a number is expected", v)
		}
		if r.Type == Inline {
			r.note("compression-level has no effect: --output says how an image's layers are compressed")
			return nil
		}
		r.Level = &n
		return nil
	}
	b, err := boolean(k, v)
	if err != nil {
		return err
	}
	switch {
	case k == "ignore-error" && b:
		r.IgnoreError = true
	case k == "ignore-error":
		r.note("ignore-error=false has no effect: a cache that fails is a warning; --cache-strict makes it an error")
	case k == "force-compression" && b:
		r.note("force-compression has no effect: layers that larder makes are packed as asked for anyway, and base layers stay as they are")
	case k == "oci-mediatypes" && !b, k == "image-manifest" && !b:
		r.note("%s=false has no effect: the cache is an OCI image manifest, which all registries take", k)
	}
	return nil
}

// checkLevel compares the level with what the compression has.
func (r *Ref) checkLevel() error {
	if r.Level == nil {
		return nil
	}
	lo, hi, c := 0, 9, layer.Gzip
	if r.Compression != nil {
		c = *r.Compression
	}
	switch c {
	case layer.Zstd:
		lo, hi = 1, 22
	case layer.Uncompressed:
		r.note("compression-level has no effect without compression")
		r.Level = nil
		return nil
	}
	if *r.Level < lo || *r.Level > hi {
		return fmt.Errorf("compression-level=%d: %s has levels %d to %d", *r.Level, c, lo, hi)
	}
	return nil
}

func (r *Ref) registry(u use, attrs map[string]string) ([]Ref, error) {
	ref, ok := attrs["ref"]
	if !ok {
		return nil, errors.New("ref= is missing: which repository?")
	}
	if v, ok := attrs["registry.insecure"]; ok {
		var err error
		if r.Insecure, err = boolean("registry.insecure", v); err != nil {
			return nil, err
		}
	}
	if err := r.setRepository(u, ref); err != nil {
		return nil, err
	}
	return []Ref{*r}, nil
}

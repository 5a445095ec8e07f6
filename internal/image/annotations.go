package image

import (
	"fmt"
	"maps"
	"regexp"
	"strings"

	"github.com/containerd/platforms"
	"github.com/moby/buildkit/exporter/containerimage/exptypes"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

// Annotations says which annotations go where. The zero value is usable.
type Annotations struct {
	list []annotation
}

type annotation struct {
	where    string // exptypes.AnnotationManifest ...
	platform string // "" for every one
	key      string
	value    string
}

var annotationType = regexp.MustCompile(`^([a-z-]+)(?:\[([A-Za-z0-9_/-]+)\])?$`)

// AddFlag reads an annotation as --annotation has it: KEY=VALUE, or TYPE[,TYPE...]:KEY=VALUE, where TYPE is manifest,
// index, manifest-descriptor or index-descriptor and may end in a platform, "manifest[linux/amd64]".
func (a *Annotations) AddFlag(s string) error {
	k, v, ok := strings.Cut(s, "=")
	if !ok {
		return fmt.Errorf("annotation %q: KEY=VALUE is expected", s)
	}
	types, name, ok := strings.Cut(k, ":")
	if !ok {
		types, name = exptypes.AnnotationManifest, k
	}
	if name == "" {
		return fmt.Errorf("annotation %q has no key", s)
	}
	for _, t := range strings.Split(types, ",") {
		m := annotationType.FindStringSubmatch(t)
		if m == nil {
			return fmt.Errorf("annotation %q: %q is no type, with a platform in brackets if need be", s, t)
		}
		if err := a.add(m[1], m[2], name, v); err != nil {
			return fmt.Errorf("annotation %q: %w", s, err)
		}
	}
	return nil
}

// AddField reads an annotation as a field of --output has it ("annotation-index.KEY", "annotation[linux/amd64].KEY"), or as
// a frontend's metadata does. ok is false where the field is none.
func (a *Annotations) AddField(field, value string) (ok bool, err error) {
	k, ok, err := exptypes.ParseAnnotationKey(field)
	if !ok || err != nil {
		return ok, err
	}
	return true, a.add(k.Type, k.PlatformString(), k.Key, value)
}

func (a *Annotations) add(where, platform, k, v string) error {
	switch where {
	case exptypes.AnnotationIndex, exptypes.AnnotationIndexDescriptor, exptypes.AnnotationManifest, exptypes.AnnotationManifestDescriptor:
	default:
		return fmt.Errorf("%q is none of manifest, index, manifest-descriptor, index-descriptor", where)
	}
	if platform != "" {
		p, err := platforms.Parse(platform)
		if err != nil {
			return err
		}
		platform = platforms.FormatAll(platforms.Normalize(p))
	}
	a.list = append(a.list, annotation{where, platform, k, v})
	return nil
}

// of collects the annotations of one place. platform nil takes those that are for every platform.
func (a *Annotations) of(where string, platform *ocispecs.Platform) map[string]string {
	out, special := map[string]string{}, map[string]string{}
	for _, x := range a.list {
		switch {
		case x.where != where:
		case x.platform == "" || where == exptypes.AnnotationIndex || where == exptypes.AnnotationIndexDescriptor:
			out[x.key] = x.value
		case platform != nil && x.platform == platforms.FormatAll(*platform):
			special[x.key] = x.value
		}
	}
	maps.Copy(out, special)
	return out
}

// check finds annotations that have no place in the image.
func (a *Annotations) check(parts []Part, opt Options) error {
	for _, x := range a.list {
		if opt.Docker && x.where != exptypes.AnnotationManifest {
			return fmt.Errorf("annotation %s: an image with Docker's media types has no place for %s annotations", x.key, x.where)
		}
		if !opt.Index && (x.where == exptypes.AnnotationIndex || x.where == exptypes.AnnotationIndexDescriptor) {
			return fmt.Errorf("annotation %s: an image of one platform has no index", x.key)
		}
		known := x.platform == ""
		for _, p := range parts {
			known = known || x.platform == platforms.FormatAll(p.Platform)
		}
		if !known {
			return fmt.Errorf("annotation %s: the platform %s is not built", x.key, x.platform)
		}
	}
	return nil
}

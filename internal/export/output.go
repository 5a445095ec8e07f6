package export

import (
	"encoding/csv"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"larder/internal/fault"
	"larder/internal/image"
	"larder/internal/layer"
	"larder/internal/registry"
)

// The types of outputs. "registry" is Image with push=true.
const (
	Image     = "image"     // kept in the local root, and pushed where asked for
	OCI       = "oci"       // OCI layout, as a tar or a directory
	Docker    = "docker"    // what docker load reads, as a tar; loaded into docker where no file is named
	Local     = "local"     // the files, in a directory
	Tar       = "tar"       // the files, as a tar
	CacheOnly = "cacheonly" // nothing
)

// Output is one --output, understood.
type Output struct {
	Type string
	Dest string // a path; "-" for standard output; "" where none is needed

	Names    []string // names of the image, each a whole reference
	Push     bool
	ByDigest bool // push without a tag
	Insecure bool // the registry's certificate is not checked, and it may speak plain HTTP
	Store    bool // keep the image in the local root
	AsTar    bool // OCI: a tar, not a directory

	Compression  layer.Compression
	Level        *int // of the compression; nil for the default
	Force        bool // compress base layers anew too
	DockerTypes  bool // Docker's media types
	Annotations  image.Annotations
	Epoch        *time.Time // source-date-epoch of this output
	KeepTimes    bool       // rewrite-timestamp=false: SOURCE_DATE_EPOCH leaves the files' times alone
	Split        *bool      // platform-split; nil: a directory for each platform where there are several
	DeleteOthers bool       // Local: mode=delete, what is not in the result goes away
}

// ParseOutput reads the CSV of --output as buildx does: "type=image,name=...", or a directory alone, or "-" for a tar on
// standard output. The names of fields come out in lower case.
func ParseOutput(s string) (map[string]string, error) {
	if strings.TrimSpace(s) == "" {
		return nil, fault.Errorf(fault.Usage, "output: nothing is said")
	}
	r := csv.NewReader(strings.NewReader(s))
	fields, err := r.Read()
	if err != nil {
		return nil, fault.Errorf(fault.Usage, "output %q: %w", s, err)
	}
	if len(fields) == 1 && fields[0] == s && !strings.HasPrefix(s, "type=") {
		if s == "-" {
			return map[string]string{"type": Tar, "dest": s}, nil
		}
		return map[string]string{"type": Local, "dest": s}, nil
	}
	out := map[string]string{}
	for _, f := range fields {
		k, v, ok := strings.Cut(f, "=")
		if !ok {
			return nil, fault.Errorf(fault.Usage, "output %q: %q is not KEY=VALUE", s, f)
		}
		k = strings.ToLower(strings.TrimSpace(k))
		if k == "registry.insecure" || !strings.Contains(k, "annotation") {
			v = strings.TrimSpace(v)
		} else {
			k = strings.TrimSpace(f[:strings.IndexByte(f, '=')]) // keys of annotations keep their case
		}
		out[k] = v
	}
	if out["type"] == "" {
		return nil, fault.Errorf(fault.Usage, "output %q: type= is missing: image, registry, oci, docker, local or tar", s)
	}
	return out, nil
}

// forImages are the fields that every output of an image has.
var forImages = []string{"name", "oci-mediatypes", "compression", "compression-level", "force-compression", "rewrite-timestamp",
	"source-date-epoch"}

var fieldsOf = map[string][]string{
	Image:     append([]string{"push", "push-by-digest", "registry.insecure", "store"}, forImages...),
	OCI:       append([]string{"dest", "tar"}, forImages...),
	Docker:    append([]string{"dest"}, forImages...),
	Local:     {"dest", "source-date-epoch", "platform-split", "mode"},
	Tar:       {"dest", "source-date-epoch", "platform-split"},
	CacheOnly: nil,
}

// Parse understands the fields of one output. tags are the names of --tag, which win over the field "name". What cannot be
// done is an error of kind Usage that says so; no field is ignored.
func Parse(fields map[string]string, tags []string) (*Output, error) {
	o, err := parse(fields, tags)
	if err != nil {
		return nil, fault.Errorf(fault.Usage, "output type=%s: %w", fields["type"], err)
	}
	return o, nil
}

func parse(fields map[string]string, tags []string) (*Output, error) {
	o := &Output{Type: fields["type"], Store: true, AsTar: true}
	if o.Type == "registry" {
		o.Type, o.Push = Image, true
	}
	known, ok := fieldsOf[o.Type]
	if !ok {
		return nil, fmt.Errorf("this type is not known: image, registry, oci, docker, local, tar and cacheonly are")
	}
	for _, k := range slices.Sorted(maps.Keys(fields)) {
		v := fields[k]
		if k == "type" {
			continue
		}
		if o.isImage() {
			if ok, err := o.Annotations.AddField(k, v); ok || err != nil {
				if err != nil {
					return nil, err
				}
				continue
			}
		}
		if !slices.Contains(known, k) {
			return nil, fmt.Errorf("the field %s is not possible here; possible are %s", k, strings.Join(known, ", "))
		}
		if err := o.set(k, v); err != nil {
			return nil, err
		}
	}
	return o, o.finish(tags)
}

func (o *Output) isImage() bool { return o.Type == Image || o.Type == OCI || o.Type == Docker }

func (o *Output) set(k, v string) error {
	flags := map[string]*bool{
		"push": &o.Push, "push-by-digest": &o.ByDigest, "registry.insecure": &o.Insecure, "store": &o.Store, "tar": &o.AsTar,
		"force-compression": &o.Force,
	}
	yes := v == ""
	if f, ok := flags[k]; ok || k == "oci-mediatypes" || k == "rewrite-timestamp" || k == "platform-split" {
		if v != "" {
			var err error
			if yes, err = strconv.ParseBool(v); err != nil {
				return fmt.Errorf("%s=%s: true or false is expected", k, v)
			}
		}
		if ok {
			*f = yes
			return nil
		}
	}
	switch k {
	case "oci-mediatypes":
		o.DockerTypes = !yes
	case "rewrite-timestamp":
		o.KeepTimes = !yes
	case "platform-split":
		o.Split = &yes
	case "dest":
		o.Dest = v
	case "name":
		for _, n := range strings.Split(v, ",") {
			if n != "" {
				o.Names = append(o.Names, n)
			}
		}
	case "compression":
		var err error
		if o.Compression, err = layer.ParseCompression(v); err != nil {
			return err
		}
	case "compression-level":
		n, err := strconv.Atoi(v)
		if err != nil || n < 0 || n > 22 {
			return fmt.Errorf("compression-level=%s: a number from 0 to 9 is expected, up to 22 for zstd", v)
		}
		o.Level = &n
	case "source-date-epoch":
		if v == "" {
			return nil
		}
		n, err := strconv.ParseInt(v, 10, 64)
		if err != nil {
			return fmt.Errorf("source-date-epoch=%s: seconds since 1970 are expected", v)
		}
		t := time.Unix(n, 0).UTC()
		o.Epoch = &t
	case "mode":
		if v != "copy" && v != "delete" {
			return fmt.Errorf("mode=%s: copy or delete is expected", v)
		}
		o.DeleteOthers = v == "delete"
	}
	return nil
}

// finish checks what only all fields together tell.
func (o *Output) finish(tags []string) error {
	if o.isImage() && len(tags) > 0 {
		o.Names = slices.Clone(tags)
	}
	for i, n := range o.Names {
		ref, err := registry.ParseRef(n)
		if err != nil {
			return err
		}
		if !o.ByDigest {
			o.Names[i] = ref.String()
		} else {
			o.Names[i] = ref.Name()
		}
	}
	switch {
	case o.ByDigest && !o.Push:
		return fmt.Errorf("push-by-digest is set, but not push")
	case o.Push && len(o.Names) == 0:
		return fmt.Errorf("a name is missing for what shall be pushed: give it with --tag")
	case o.DockerTypes && o.Compression == layer.Zstd:
		return fmt.Errorf("compression=zstd does not go with oci-mediatypes=false")
	case o.Compression != layer.Zstd && o.Level != nil && *o.Level > 9:
		return fmt.Errorf("compression-level=%d: gzip knows 0 to 9", *o.Level)
	case o.Dest == "" && (o.Type == Local || o.Type == OCI && !o.AsTar):
		return fmt.Errorf("dest= is missing: which directory?")
	case o.Dest == "-" && (o.Type == Local || o.Type == OCI && !o.AsTar):
		return fmt.Errorf("a directory does not go to standard output")
	case o.Dest == "" && (o.Type == Tar || o.Type == OCI):
		o.Dest = "-"
	}
	return nil
}

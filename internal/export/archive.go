package export

import (
	"archive/tar"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"

	"github.com/opencontainers/image-spec/specs-go"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

// imageNameKey is where containerd's tools look for the whole name of an image in a layout; OCI's own annotation has the
// tag alone.
const imageNameKey = "io.containerd.image.name"

// Document is a small file of a layout.
type Document struct {
	Name  string
	Bytes []byte
}

// LayoutFile is the file that marks an OCI layout.
func LayoutFile() Document {
	b, _ := json.Marshal(ocispecs.ImageLayout{Version: ocispecs.ImageLayoutVersion}) // a struct of one string
	return Document{ocispecs.ImageLayoutFile, b}
}

// IndexFile makes a layout's index.json: others first, then the image under each of its names, or once without one. created is
// its time, in RFC 3339.
func IndexFile(desc ocispecs.Descriptor, names []string, created string, others ...ocispecs.Descriptor) (Document, error) {
	index := ocispecs.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispecs.MediaTypeImageIndex, Manifests: others}
	entry := func(name string) {
		d := desc
		d.Annotations = map[string]string{ocispecs.AnnotationCreated: created}
		for k, v := range desc.Annotations {
			d.Annotations[k] = v
		}
		if name != "" {
			d.Annotations[imageNameKey] = name
			d.Annotations[ocispecs.AnnotationRefName] = tagOf(name)
		}
		index.Manifests = append(index.Manifests, d)
	}
	for _, n := range names {
		entry(n)
	}
	if len(names) == 0 {
		entry("")
	}
	b, err := json.Marshal(index)
	return Document{ocispecs.ImageIndexFile, b}, err
}

// tagOf gives the tag of a reference; the whole of it where it has none.
func tagOf(name string) string {
	if i := strings.LastIndexByte(name, ':'); i > strings.LastIndexByte(name, '/') && !strings.Contains(name, "@") {
		return name[i+1:]
	}
	return name
}

// WriteArchive writes a layout as a tar: entries sorted by name and without times, so that the same image gives the same
// bytes.
func WriteArchive(ctx context.Context, w io.Writer, items []Item, docs ...Document) error {
	tw := tar.NewWriter(w)
	dirs := []string{ocispecs.ImageBlobsDir + "/"}
	for _, it := range items {
		if d := path.Dir(BlobPath(it.Desc)) + "/"; !slices.Contains(dirs, d) {
			dirs = append(dirs, d)
		}
	}
	for _, d := range dirs {
		if err := tw.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: d, Mode: 0o755}); err != nil {
			return err
		}
	}
	items = slices.Clone(items)
	slices.SortFunc(items, func(a, b Item) int { return strings.Compare(BlobPath(a.Desc), BlobPath(b.Desc)) })
	for _, it := range items {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := copyItem(ctx, tw, it); err != nil {
			return fmt.Errorf("write blob %s: %w", it.Desc.Digest, err)
		}
	}
	slices.SortFunc(docs, func(a, b Document) int { return strings.Compare(a.Name, b.Name) })
	for _, d := range docs {
		if err := tw.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: d.Name, Mode: 0o644, Size: int64(len(d.Bytes))}); err != nil {
			return err
		}
		if _, err := tw.Write(d.Bytes); err != nil {
			return err
		}
	}
	return tw.Close()
}

func copyItem(ctx context.Context, tw *tar.Writer, it Item) error {
	rc, err := it.Open(ctx)
	if err != nil {
		return err
	}
	defer rc.Close()
	if err := tw.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: BlobPath(it.Desc), Mode: 0o444, Size: it.Desc.Size}); err != nil {
		return err
	}
	_, err = io.Copy(tw, rc)
	return err
}

// BlobPath is where a layout keeps a blob, with slashes.
func BlobPath(d ocispecs.Descriptor) string {
	return path.Join(ocispecs.ImageBlobsDir, string(d.Digest.Algorithm()), d.Digest.Encoded())
}

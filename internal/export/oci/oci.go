// Package oci writes images as OCI layouts.
package oci

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"larder/internal/content"
	"larder/internal/export"
	"larder/internal/image"
)

// Options say how a layout is written.
type Options struct {
	Store *content.Store // where layers without a Fetch are
	Names []string       // whole references
	// Created is the time that the entry in index.json gets: SOURCE_DATE_EPOCH, or now.
	Created time.Time
}

// maxIndex bounds an index.json that is added to, in bytes.
const maxIndex = 16 << 20

// WriteTar writes a layout as a tar.
func WriteTar(ctx context.Context, w io.Writer, img *image.Image, opt Options) error {
	index, err := export.IndexFile(img.Desc, opt.Names, opt.created())
	if err != nil {
		return err
	}
	return export.WriteArchive(ctx, w, export.Items(img, opt.Store), index, export.LayoutFile())
}

func (o Options) created() string { return o.Created.UTC().Format(time.RFC3339) }

// WriteDir writes a layout into a directory. Images that are there stay, one of the same name is replaced; blobs that are
// there are not written again. index.json changes last, and at once.
func WriteDir(ctx context.Context, dir string, img *image.Image, opt Options) error {
	for _, it := range export.Items(img, opt.Store) {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, export.BlobPath(it.Desc))), 0o755); err != nil {
			return err
		}
	}
	others, err := entries(dir, img.Desc, opt.Names)
	if err != nil {
		return fmt.Errorf("OCI layout %s: %w", dir, err)
	}
	eg, egctx := errgroup.WithContext(ctx)
	eg.SetLimit(4)
	for _, it := range export.Items(img, opt.Store) {
		eg.Go(func() error { return writeBlob(egctx, filepath.Join(dir, export.BlobPath(it.Desc)), it) })
	}
	if err := eg.Wait(); err != nil {
		return err
	}
	index, err := export.IndexFile(img.Desc, opt.Names, opt.created(), others...)
	if err != nil {
		return err
	}
	for _, d := range []export.Document{export.LayoutFile(), index} {
		if err := writeDocument(filepath.Join(dir, d.Name), d.Bytes); err != nil {
			return err
		}
	}
	return nil
}

// entries reads what a layout has beside the image that is written.
func entries(dir string, desc ocispecs.Descriptor, names []string) ([]ocispecs.Descriptor, error) {
	f, err := os.Open(filepath.Join(dir, ocispecs.ImageIndexFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxIndex+1))
	if err != nil {
		return nil, err
	}
	var index ocispecs.Index
	if err := json.Unmarshal(b, &index); err != nil {
		return nil, fmt.Errorf("index.json: %w", err)
	}
	mine, err := export.IndexFile(desc, names, "")
	if err != nil {
		return nil, err
	}
	var ours ocispecs.Index
	if err := json.Unmarshal(mine.Bytes, &ours); err != nil {
		return nil, err
	}
	return slices.DeleteFunc(index.Manifests, func(old ocispecs.Descriptor) bool {
		name := old.Annotations[ocispecs.AnnotationRefName]
		return slices.ContainsFunc(ours.Manifests, func(m ocispecs.Descriptor) bool {
			return m.Annotations[ocispecs.AnnotationRefName] == name && (name != "" || m.Digest == old.Digest)
		})
	}), nil
}

func writeBlob(ctx context.Context, path string, it export.Item) error {
	if st, err := os.Stat(path); err == nil && st.Size() == it.Desc.Size {
		return nil
	}
	rc, err := it.Open(ctx)
	if err != nil {
		return fmt.Errorf("write blob %s: %w", it.Desc.Digest, err)
	}
	defer rc.Close()
	f, err := export.CreateFile(path)
	if err != nil {
		return err
	}
	defer f.Abort()
	if _, err := io.Copy(f, rc); err != nil {
		return fmt.Errorf("write blob %s: %w", it.Desc.Digest, err)
	}
	return f.Commit()
}

func writeDocument(path string, b []byte) error {
	f, err := export.CreateFile(path)
	if err != nil {
		return err
	}
	defer f.Abort()
	if _, err := f.Write(b); err != nil {
		return err
	}
	return f.Commit()
}

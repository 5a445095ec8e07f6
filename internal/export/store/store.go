// Package store keeps images in the local root, complete, under their names.
package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"larder/internal/content"
	"larder/internal/export"
	"larder/internal/image"
	"larder/internal/key"
)

// maxRecord bounds the file of a name, in bytes.
const maxRecord = 64 << 10

// Images is the directory of names. It is safe for concurrent use, and processes may share it.
type Images struct {
	Dir   string // made when it is needed
	Blobs *content.Store
}

// Record is what a name stands for.
type Record struct {
	Name string                `json:"name"`
	Desc ocispecs.Descriptor   `json:"descriptor"`
	Keep []ocispecs.Descriptor `json:"keep"` // everything that the image needs, Desc included
	At   time.Time             `json:"at"`
}

// Put stores an image's blobs, fetching layers that are not here, and then its names; an image without a name gets its
// digest for one. What a name stood for before is left to the collector.
func (s *Images) Put(ctx context.Context, img *image.Image, names []string, at time.Time) error {
	var keep []ocispecs.Descriptor
	eg, egctx := errgroup.WithContext(ctx)
	eg.SetLimit(4)
	for _, it := range export.Items(img, s.Blobs) {
		keep = append(keep, ocispecs.Descriptor{MediaType: it.Desc.MediaType, Digest: it.Desc.Digest, Size: it.Desc.Size})
		eg.Go(func() error {
			if err := s.blob(egctx, it); err != nil {
				return fmt.Errorf("store blob %s: %w", it.Desc.Digest, err)
			}
			return nil
		})
	}
	if err := eg.Wait(); err != nil {
		return err
	}
	if len(names) == 0 {
		names = []string{img.Desc.Digest.String()}
	}
	for _, n := range names {
		if err := s.name(Record{Name: n, Desc: img.Desc, Keep: keep, At: at.UTC()}); err != nil {
			return fmt.Errorf("name image %s: %w", n, err)
		}
	}
	return nil
}

func (s *Images) blob(ctx context.Context, it export.Item) error {
	info, err := s.Blobs.Stat(it.Desc.Digest)
	if err == nil && info.Size == it.Desc.Size {
		return nil
	}
	rc, err := it.Open(ctx)
	if err != nil {
		return err
	}
	defer rc.Close()
	_, err = s.Blobs.Ingest(ctx, rc, it.Desc.Digest, it.Desc.Size)
	return err
}

func (s *Images) path(name string) string {
	return filepath.Join(s.Dir, key.Bytes([]byte(name)).Hex()[:32]+".json")
}

func (s *Images) name(r Record) error {
	if old, err := s.read(s.path(r.Name)); err == nil && old.Name == r.Name && old.Desc.Digest == r.Desc.Digest {
		return nil
	}
	b, err := json.Marshal(r)
	if err != nil {
		return err
	}
	f, err := export.CreateFile(s.path(r.Name))
	if err != nil {
		return err
	}
	defer f.Abort()
	if _, err := f.Write(b); err != nil {
		return err
	}
	return f.Commit()
}

func (s *Images) read(path string) (Record, error) {
	var r Record
	st, err := os.Stat(path)
	if err != nil {
		return r, err
	}
	if st.Size() > maxRecord {
		return r, errors.New("too large")
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return r, err
	}
	if err := json.Unmarshal(b, &r); err != nil {
		return r, err
	}
	return r, r.Desc.Digest.Validate()
}

// Get gives what a name stands for. An error wraps fs.ErrNotExist where nothing does, or the record is damaged.
func (s *Images) Get(name string) (Record, error) {
	r, err := s.read(s.path(name))
	if err != nil || r.Name != name {
		return Record{}, fmt.Errorf("image %s: %w", name, fs.ErrNotExist)
	}
	return r, nil
}

// List gives all records, in no order. Damaged ones are left out.
func (s *Images) List() ([]Record, error) {
	entries, err := os.ReadDir(s.Dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var out []Record
	for _, e := range entries {
		if r, err := s.read(filepath.Join(s.Dir, e.Name())); err == nil {
			out = append(out, r)
		}
	}
	return out, nil
}

// Remove forgets a name; its blobs are left to the collector. A name that is not there is no error.
func (s *Images) Remove(name string) error {
	if err := os.Remove(s.path(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// Kept lists the blobs that images need, for the collector.
func (s *Images) Kept() (map[digest.Digest]bool, error) {
	records, err := s.List()
	if err != nil {
		return nil, err
	}
	out := map[digest.Digest]bool{}
	for _, r := range records {
		for _, d := range r.Keep {
			out[d.Digest] = true
		}
	}
	return out, nil
}

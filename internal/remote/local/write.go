package local

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"larder/internal/flock"
	"larder/internal/remote"
)

// lock takes the directory's lock.
func (s *Store) lock(ctx context.Context, mode flock.Mode) (*flock.Lock, error) {
	if err := s.check(); err != nil {
		return nil, err
	}
	return flock.Acquire(ctx, s.path(".larder", "lock"), mode)
}

// prepare makes the directories. Their modes do not depend on the umask.
func (s *Store) prepare() error {
	if err := s.check(); err != nil {
		return err
	}
	if err := os.MkdirAll(s.dir, 0o755); err != nil {
		return err
	}
	for _, dir := range s.dirs() {
		err := os.Mkdir(dir, 0o755)
		if err == nil {
			err = os.Chmod(dir, 0o755)
		}
		if err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	layout := s.path(ocispecs.ImageLayoutFile)
	if _, err := os.Lstat(layout); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return s.write(layout, []byte(`{"imageLayoutVersion":"`+ocispecs.ImageLayoutVersion+`"}`), true)
}

// incoming is a file that is being written.
type incoming struct {
	*os.File
	lock *flock.Lock // tells the sweep that the writer lives
}

func (s *Store) create() (*incoming, error) {
	path := s.path(".larder", "tmp", rand.Text())
	lock, err := flock.Try(path, flock.Exclusive)
	if err != nil {
		return nil, err
	}
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err == nil {
		err = f.Chmod(0o644)
	}
	if err != nil {
		lock.Remove()
		return nil, err
	}
	return &incoming{File: f, lock: lock}, nil
}

// commit gives the file its name; without it, drop removes what is there.
func (f *incoming) commit(path string) error {
	if err := f.Close(); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	f.File = nil
	return f.lock.Unlock()
}

func (f *incoming) drop() {
	if f.File != nil {
		f.Close()
		f.lock.Remove()
	}
}

// write puts a small file in place. One that is to be durable is on the disk before it is seen: an index.json that a power loss tore
// would take all documents with it, while a torn blob or document is one miss.
func (s *Store) write(path string, b []byte, durable bool) error {
	f, err := s.create()
	if err != nil {
		return err
	}
	defer f.drop()
	if _, err := f.Write(b); err != nil {
		return err
	}
	if durable {
		if err := f.Sync(); err != nil {
			return err
		}
	}
	return f.commit(path)
}

// Put copies a blob into a file, unless it is there or New.
func (s *Store) Put(ctx context.Context, up remote.Upload) (sent bool, err error) {
	path, err := s.blob(up.Desc.Digest)
	if err != nil {
		return false, err
	}
	if !up.New {
		if ok, err := s.Has(ctx, up.Desc); ok || err != nil {
			return false, err
		}
	}
	if err := s.prepare(); err != nil {
		return false, s.fail("make the directory", err)
	}
	rc, err := up.Source(ctx)
	if err != nil {
		return false, fmt.Errorf("%s: blob %s: %w", s.Name(), up.Desc.Digest, err)
	}
	defer rc.Close()
	f, err := s.create()
	if err != nil {
		return false, s.fail("write blob "+up.Desc.Digest.String(), err)
	}
	defer f.drop()
	if _, err := io.Copy(f.File, &reader{Reader: rc, ctx: ctx}); err != nil {
		return false, s.fail("write blob "+up.Desc.Digest.String(), err)
	}
	if err := f.commit(path); err != nil {
		return false, s.fail("write blob "+up.Desc.Digest.String(), err)
	}
	return true, nil
}

// change lets edit alter index.json, unless edit gives an error or says that there is nothing to write, and sweeps after it is
// written, so that nothing goes that the index still names; all under the lock. One that cannot be read is set aside, and counts as
// empty.
func (s *Store) change(ctx context.Context, edit func(*ocispecs.Index) (write bool, err error), sweep func(ocispecs.Index)) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	select {
	case s.turn <- struct{}{}:
		defer func() { <-s.turn }()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	lock, err := s.lock(ctx, flock.Exclusive)
	if err != nil {
		return err
	}
	defer lock.Unlock()
	index, err := s.readIndex()
	damaged := errors.Is(err, remote.ErrDamaged)
	if damaged {
		index, err = emptyIndex(), nil
	}
	if err != nil {
		return err
	}
	if write, err := edit(&index); err != nil || !write {
		return err
	}
	if damaged {
		if err := s.setAside(); err != nil {
			return err
		}
	}
	if err := s.writeIndex(index); err != nil {
		return err
	}
	sweep(index)
	return nil
}

// PutManifest writes a file and index.json. Blobs that only the document before named go with a later sweep.
func (s *Store) PutManifest(ctx context.Context, name string, b []byte, old remote.Version) (remote.Version, error) {
	if err := remote.CheckName(name); err != nil {
		return "", err
	}
	blobs, err := remote.Blobs(b)
	if err != nil {
		return "", fmt.Errorf("store %s in %s: %w", name, s.Name(), err)
	}
	desc := ocispecs.Descriptor{MediaType: ocispecs.MediaTypeImageManifest, Digest: digest.FromBytes(b), Size: int64(len(b))}
	if err := s.prepare(); err != nil {
		return "", s.fail("make the directory", err)
	}
	err = s.change(ctx, func(index *ocispecs.Index) (bool, error) {
		if old != remote.Any && s.version(*index, name) != old {
			return false, remote.ErrConflict
		}
		if err := s.missing(blobs); err != nil {
			return false, err
		}
		path, err := s.blob(desc.Digest)
		if err != nil {
			return false, err
		}
		if err := s.write(path, b, false); err != nil {
			return false, err
		}
		desc.Annotations = map[string]string{ocispecs.AnnotationRefName: name}
		index.Manifests = append(without(index.Manifests, name), desc)
		return true, nil
	}, s.sweepSometimes)
	if errors.Is(err, remote.ErrConflict) || errors.As(err, new(*remote.MissingError)) {
		return "", fmt.Errorf("store %s in %s: %w", name, s.Name(), err)
	}
	if err != nil {
		return "", s.fail("store "+name, err)
	}
	return remote.Version(desc.Digest), nil
}

// version tells what a name points to; a document whose file is lost counts as absent.
func (s *Store) version(index ocispecs.Index, name string) remote.Version {
	i := find(index, name)
	if i < 0 {
		return remote.Absent
	}
	d := index.Manifests[i]
	if path, err := s.blob(d.Digest); err != nil || !present(path, d.Size) {
		return remote.Absent
	}
	return remote.Version(d.Digest)
}

// missing gives a *remote.MissingError where not all blobs are there.
func (s *Store) missing(blobs []ocispecs.Descriptor) error {
	var lost remote.MissingError
	for _, d := range blobs {
		if path, err := s.blob(d.Digest); err != nil || !present(path, d.Size) {
			lost.Digests = append(lost.Digests, d.Digest)
		}
	}
	if lost.Digests != nil {
		return &lost
	}
	return nil
}

// DeleteManifest takes a name out of index.json, and sweeps. A digest takes all its names.
func (s *Store) DeleteManifest(ctx context.Context, name string) error {
	if _, err := os.Stat(s.path(ocispecs.ImageIndexFile)); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err := s.prepare(); err != nil {
		return s.fail("delete "+name, err)
	}
	return s.fail("delete "+name, s.change(ctx, func(index *ocispecs.Index) (bool, error) {
		had := len(index.Manifests)
		index.Manifests = without(index.Manifests, name)
		return len(index.Manifests) < had, nil
	}, s.sweep))
}

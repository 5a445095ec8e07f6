// Package local is a remote store in a directory: an OCI layout, as other tools read and write it (skopeo, BuildKit's local cache),
// whose index.json names each document by the annotation org.opencontainers.image.ref.name.
//
//	oci-layout, index.json
//	blobs/sha256/...    documents and blobs
//	.larder/lock        shared by who asks for a blob that he means to rely on, exclusive while index.json changes or blobs go
//	.larder/tmp/        being written; locked by their writer
//	.larder/swept       its time is that of the last sweep
//	index.json.damaged-TIME  what could not be read when index.json had to be written
//
// Several processes may use it. Files appear by renaming, so that who reads takes no lock and an interrupted writer leaves nothing but
// a temporary file for the next sweep.
package local

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"larder/internal/fault"
	"larder/internal/flock"
	"larder/internal/registry"
	"larder/internal/remote"
)

// Store is a directory. It is made by the first write.
type Store struct {
	dir string
	// turn is held along with the exclusive lock: goroutines of one process need not poll for each other.
	turn chan struct{}
}

var _ remote.Store = (*Store)(nil)

// New makes a Store of a directory, which need not exist. One that has something else in it than an OCI layout is refused, as an error
// of kind Usage; so is one in which links lie where larder writes.
func New(dir string) (*Store, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil, fault.Errorf(fault.Usage, "cache directory %s: %w", dir, err)
	}
	s := &Store{dir: abs, turn: make(chan struct{}, 1)}
	if err := s.check(); err != nil {
		return nil, fault.Errorf(fault.Machine, "cache directory %s: %w", abs, err)
	}
	return s, nil
}

// Name is "local:" and the absolute path.
func (s *Store) Name() string { return "local:" + s.dir }

// Conditional is true: a lock keeps comparison and writing together.
func (s *Store) Conditional() bool { return true }

// Close does nothing: no lock outlives an operation.
func (s *Store) Close() error { return nil }

func (s *Store) path(names ...string) string {
	return filepath.Join(append([]string{s.dir}, names...)...)
}

// blob gives the path of a blob. Only sha256 has a directory.
func (s *Store) blob(d digest.Digest) (string, error) {
	if err := d.Validate(); err != nil || d.Algorithm() != digest.SHA256 {
		return "", remote.Mark(fmt.Errorf("%s: %.100q is no sha256 digest", s.Name(), d), remote.ErrFinal)
	}
	return s.path(ocispecs.ImageBlobsDir, "sha256", d.Encoded()), nil
}

// fail finishes an error of the file system: what a directory refuses, it refuses the next time as well.
func (s *Store) fail(what string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, fs.ErrNotExist):
		err = remote.Mark(err, remote.ErrNotFound)
	case errors.Is(err, fs.ErrPermission), errors.Is(err, syscall.EROFS):
		err = remote.Mark(err, remote.ErrDenied)
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return err
	case errors.Is(err, remote.ErrDamaged), errors.Is(err, flock.ErrBusy):
	default:
		err = remote.Mark(err, remote.ErrFinal)
	}
	return fault.New(fault.Machine, fmt.Errorf("%s: %s: %w", s.Name(), what, err))
}

// Manifest reads index.json and a file. The version is the digest.
func (s *Store) Manifest(ctx context.Context, name string) (remote.Document, error) {
	if ctx.Err() != nil {
		return remote.Document{}, context.Cause(ctx)
	}
	if remote.IsDigest(name) {
		return s.document(ctx, digest.Digest(name))
	}
	if err := remote.CheckName(name); err != nil {
		return remote.Document{}, err
	}
	var last digest.Digest
	for {
		index, err := s.readIndex()
		if err != nil {
			return remote.Document{}, s.fail("read "+name, err)
		}
		i := find(index, name)
		if i < 0 {
			return remote.Document{}, fmt.Errorf("%s: %s: %w", s.Name(), name, remote.ErrNotFound)
		}
		d := index.Manifests[i].Digest
		doc, err := s.document(ctx, d)
		if !errors.Is(err, remote.ErrNotFound) || d == last {
			return doc, err
		}
		last = d // replaced and swept between the two reads, or lost
	}
}

func (s *Store) document(ctx context.Context, d digest.Digest) (remote.Document, error) {
	path, err := s.blob(d)
	if err != nil {
		return remote.Document{}, err
	}
	b, err := readFile(ctx, path, registry.MaxManifest)
	if err == nil && digest.FromBytes(b) != d {
		err = remote.ErrDamaged
	}
	if err != nil {
		return remote.Document{}, s.fail("read document "+d.String(), err)
	}
	return remote.Document{Bytes: b, Version: remote.Version(d)}, nil
}

// readFile reads a file of at most limit bytes; a larger one counts as damaged.
func readFile(ctx context.Context, path string, limit int64) ([]byte, error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	f, err := openFile(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(b)) > limit {
		err = fmt.Errorf("%s has more than %d bytes: %w", path, limit, remote.ErrDamaged)
	}
	return b, err
}

// Names reads index.json.
func (s *Store) Names(_ context.Context, prefix string) ([]string, error) {
	index, err := s.readIndex()
	if err != nil {
		return nil, s.fail("list "+prefix, err)
	}
	var names []string
	for _, m := range index.Manifests {
		if n := m.Annotations[ocispecs.AnnotationRefName]; strings.HasPrefix(n, prefix) && remote.CheckName(n) == nil {
			names = append(names, n)
		}
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}

// Open opens a file.
func (s *Store) Open(ctx context.Context, desc ocispecs.Descriptor) (io.ReadCloser, error) {
	return s.open(ctx, desc, 0, desc.Size)
}

// OpenRange opens a file and goes to the place.
func (s *Store) OpenRange(ctx context.Context, desc ocispecs.Descriptor, off, n int64) (io.ReadCloser, error) {
	if err := remote.CheckRange(desc, off, n); err != nil {
		return nil, err
	}
	return s.open(ctx, desc, off, n)
}

func (s *Store) open(ctx context.Context, desc ocispecs.Descriptor, off, n int64) (io.ReadCloser, error) {
	path, err := s.blob(desc.Digest)
	if err != nil {
		return nil, err
	}
	f, err := openFile(path)
	if err != nil {
		return nil, s.fail("read blob "+desc.Digest.String(), err)
	}
	st, err := f.Stat()
	if err == nil && st.Size() != desc.Size {
		err = fmt.Errorf("it has %d bytes instead of %d: %w", st.Size(), desc.Size, remote.ErrDamaged)
	}
	if err != nil {
		f.Close()
		return nil, s.fail("read blob "+desc.Digest.String(), err)
	}
	return &reader{Reader: io.NewSectionReader(f, off, n), Closer: f, ctx: ctx}, nil
}

// reader ends with its ctx.
type reader struct {
	io.Reader
	io.Closer
	ctx context.Context
}

func (r *reader) Read(p []byte) (int, error) {
	if r.ctx.Err() != nil {
		return 0, context.Cause(r.ctx)
	}
	return r.Reader.Read(p)
}

// Has looks for a file of the right size, and sees to it that the next sweep leaves it: who asks will name it soon.
func (s *Store) Has(ctx context.Context, desc ocispecs.Descriptor) (bool, error) {
	path, err := s.blob(desc.Digest)
	if err != nil {
		return false, err
	}
	if !present(path, desc.Size) {
		return false, ctx.Err()
	}
	lock, err := s.lock(ctx, flock.Shared)
	if err != nil {
		return ctx.Err() == nil, ctx.Err() // nothing is swept in a directory that cannot be written to
	}
	defer lock.Unlock()
	touch(path)
	return present(path, desc.Size), nil
}

// Delete removes a file.
func (s *Store) Delete(_ context.Context, d digest.Digest) error {
	path, err := s.blob(d)
	if err != nil {
		return err
	}
	if err := s.check(); err != nil {
		return s.fail("delete blob "+d.String(), err)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return s.fail("delete blob "+d.String(), err)
	}
	return nil
}

package s3

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/minio/minio-go/v7"
	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"larder/internal/fault"
	"larder/internal/registry"
	"larder/internal/remote"
)

const (
	maxNames   = 100_000 // documents that Names lists at most
	recompares = 3       // how often a refused comparison is looked at again
	// digestField is the metadatum that holds a document's digest.
	digestField = "Larder-Digest"
)

// version joins what the server compares with what larder compares: an ETag may change where the bytes do not (another
// encryption key, a copy made by the server), and means nothing to a server that ignores conditions.
func version(etag string, b []byte) remote.Version {
	return remote.Version(etag + " " + digest.FromBytes(b).String())
}

// split takes a version apart. One that this package did not make has no ETag and equals nothing.
func split(v remote.Version) (etag, sum string) {
	if at := strings.LastIndexByte(string(v), ' '); at >= 0 {
		return string(v[:at]), string(v[at+1:])
	}
	return "", string(v)
}

// manifestKey names the object of a document.
func (s *Store) manifestKey(name string) (string, error) {
	dir := s.cfg.Prefix + s.cfg.Manifests
	if remote.IsDigest(name) {
		d := digest.Digest(name)
		return dir + d.Algorithm().String() + "/" + d.Encoded(), nil
	}
	if err := remote.CheckName(name); err != nil {
		return "", fault.New(fault.Registry, fmt.Errorf("%s: %w", s.Name(), err))
	}
	return dir + name, nil
}

// Manifest reads a document.
func (s *Store) Manifest(ctx context.Context, name string) (remote.Document, error) {
	key, err := s.manifestKey(name)
	if err != nil {
		return remote.Document{}, err
	}
	b, info, _, err := s.get(ctx, key, minio.GetObjectOptions{})
	if err != nil {
		return remote.Document{}, err
	}
	defer b.Close()
	if b.n = info.Size; b.n < 0 || b.n > registry.MaxManifest {
		return remote.Document{}, s.fail(ctx, "get", key, fmt.Errorf("a document of %d bytes (the limit is %d): %w", b.n, registry.MaxManifest, remote.ErrDamaged))
	}
	bytes, err := io.ReadAll(b)
	if err != nil {
		return remote.Document{}, err
	}
	want := digest.Digest(info.UserMetadata[digestField]) // a name does not tell what its bytes should be
	if remote.IsDigest(name) {
		want = digest.Digest(name)
	}
	if want.Validate() == nil && want.Algorithm().FromBytes(bytes) != want {
		return remote.Document{}, s.fail(ctx, "get", key, fmt.Errorf("the document does not match its digest: %w", remote.ErrDamaged))
	}
	return remote.Document{Bytes: bytes, Version: version(info.ETag, bytes)}, nil
}

// PutManifest stores a document. Blobs that it names are looked for, all at once; old ones of them are made young again.
// Where the server compares, the new version is visible before the document is found by its digest, a moment later.
func (s *Store) PutManifest(ctx context.Context, name string, b []byte, old remote.Version) (remote.Version, error) {
	key, err := s.manifestKey(name)
	if err != nil {
		return "", err
	}
	if remote.IsDigest(name) {
		return "", s.fail(ctx, "put", key, refused(remote.ErrFinal, "a document is stored under a name, not under a digest"))
	}
	probed := make(chan error, 1)
	go func() { // beside the looking for blobs, so that it costs no time
		var err error
		if old != remote.Any {
			_, err = s.probe(ctx)
		}
		probed <- err
	}()
	err = s.checkBlobs(ctx, key, b)
	if perr := <-probed; err == nil {
		err = perr
	}
	if err != nil {
		return "", err
	}
	etag, err := s.compareAndPut(ctx, name, key, b, old)
	if err != nil {
		return "", err
	}
	byDigest, err := s.manifestKey(digest.FromBytes(b).String())
	if err != nil {
		return "", err
	}
	if _, err := s.putBytes(ctx, byDigest, b, documentOptions(b)); err != nil {
		return "", s.fail(ctx, "put", byDigest, err)
	}
	return version(etag, b), nil
}

// compareAndPut stores b under key where old is there, and gives its ETag.
func (s *Store) compareAndPut(ctx context.Context, name, key string, b []byte, old remote.Version) (string, error) {
	conditional := false
	if old != remote.Any {
		var err error
		if conditional, err = s.probe(ctx); err != nil {
			return "", err
		}
	}
	want, sum := split(old)
	for try := 1; ; try++ {
		opts := documentOptions(b)
		compared := old == remote.Any
		switch {
		case compared || !conditional:
		case old == remote.Absent:
			opts.SetMatchETagExcept("*")
			compared = true
		case want != "":
			opts.SetMatchETag(want)
			compared = true
		}
		if compared {
			etag, err := s.putBytes(ctx, key, b, opts)
			if err == nil {
				return etag, nil
			}
			err = s.fail(ctx, "put", key, err)
			absent := errors.Is(err, remote.ErrNotFound) && old != remote.Absent // Amazon's answer to If-Match without an object
			if !absent && !errors.Is(err, remote.ErrConflict) {
				return "", err
			}
		}
		// Look what is there: where the server cannot compare, and where it refused. It refuses what it has already done,
		// too, when the answer to the first try was lost, and sometimes because of another request at the same moment.
		there, err := s.Manifest(ctx, name)
		etag, now := split(there.Version)
		switch {
		case errors.Is(err, remote.ErrNotFound):
			now = ""
		case err != nil:
			return "", err
		}
		switch {
		case compared && now == digest.FromBytes(b).String():
			return etag, nil
		case now != sum || compared && try == recompares:
			return "", s.fail(ctx, "put", key, fmt.Errorf("%s: %w", s.host, remote.ErrConflict))
		case compared:
			want = etag
		default:
			etag, err := s.putBytes(ctx, key, b, documentOptions(b))
			return etag, s.fail(ctx, "put", key, err)
		}
	}
}

// documentOptions says what a document is, to people who look into the bucket, and the digest that is compared when it is read.
func documentOptions(b []byte) minio.PutObjectOptions {
	return minio.PutObjectOptions{
		ContentType: ocispecs.MediaTypeImageManifest, UserMetadata: map[string]string{digestField: digest.FromBytes(b).String()},
	}
}

// Names lists documents.
func (s *Store) Names(ctx context.Context, prefix string) ([]string, error) {
	dir := s.cfg.Prefix + s.cfg.Manifests
	var names []string
	for o := range s.client.ListObjectsIter(ctx, s.cfg.Bucket, minio.ListObjectsOptions{Prefix: dir + prefix}) {
		if o.Err != nil {
			return nil, s.fail(ctx, "list", dir+prefix, o.Err)
		}
		name, ours := strings.CutPrefix(o.Key, dir)
		if !ours || remote.CheckName(name) != nil { // the probe's object, directories, what others put there
			continue
		}
		if names = append(names, name); len(names) > maxNames {
			return nil, s.fail(ctx, "list", dir+prefix, refused(remote.ErrFinal, "more than %d documents: give each cache a prefix of its own", maxNames))
		}
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}

// DeleteManifest removes a document. By its name, it is not found by its digest any more either, even where another name has the
// very same bytes; by its digest, its names stay.
func (s *Store) DeleteManifest(ctx context.Context, name string) error {
	key, err := s.manifestKey(name)
	if err != nil {
		return err
	}
	if remote.IsDigest(name) {
		return s.remove(ctx, key)
	}
	there, err := s.Manifest(ctx, name)
	if err != nil && !errors.Is(err, remote.ErrDamaged) {
		return ignoreMissing(err)
	}
	if err := s.remove(ctx, key); err != nil {
		return err
	}
	if _, sum := split(there.Version); sum != "" {
		return s.DeleteManifest(ctx, sum)
	}
	return nil
}

// ignoreMissing drops an error that says that something is not there.
func ignoreMissing(err error) error {
	if errors.Is(err, remote.ErrNotFound) {
		return nil
	}
	return err
}

// Package registry is a remote store in a repository of an OCI registry: documents are manifests under tags, blobs are blobs.
//
// Nothing but the reading of blobs and of documents by digest goes to mirrors: a mirror may show a tag as it was yesterday.
package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"larder/internal/registry"
	"larder/internal/remote"
)

// Store is a repository. Its errors are the client's, marked with those of package remote.
type Store struct {
	client *registry.Client
	ref    registry.Ref // without tag and digest

	writing  bool        // see ForWriting
	readOnly atomic.Bool // the credentials turned out to allow no more
}

// New makes a Store of ref's repository; a tag or digest in ref means nothing. The client stays the caller's.
func New(client *registry.Client, ref registry.Ref) *Store {
	return &Store{client: client, ref: registry.Ref{Host: ref.Host, Repo: ref.Repo}}
}

// ForWriting gives the same Store to a caller that is about to write to it: documents are read by name under a token that may push.
// Many registries say of a repository which is not there yet that access to it is denied, unless to one who may make it. Where the
// credentials do not allow it, the token is one that may pull, as without ForWriting.
func (s *Store) ForWriting() *Store { return &Store{client: s.client, ref: s.ref, writing: true} }

var _ remote.Store = (*Store)(nil)

// Name is the repository with its registry.
func (s *Store) Name() string { return s.ref.Name() }

// Conditional is false: a registry has no way to write a tag only where it still is what it was.
func (s *Store) Conditional() bool { return false }

// Close does nothing: connections belong to the client.
func (s *Store) Close() error { return nil }

// named gives the reference of a document.
func (s *Store) named(name string) (registry.Ref, error) {
	if remote.IsDigest(name) {
		return s.ref.WithDigest(digest.Digest(name)), nil
	}
	ref := s.ref
	ref.Tag = name
	return ref, remote.CheckName(name)
}

// Manifest costs one GET; the first one of a Store for writing costs two where the credentials allow only reading. The version is the
// digest.
func (s *Store) Manifest(ctx context.Context, name string) (remote.Document, error) {
	ref, err := s.named(name)
	if err != nil {
		return remote.Document{}, err
	}
	fetch := s.fetch
	if ref.Digest != "" {
		fetch = s.client.Fetch
	}
	desc, b, err := fetch(ctx, ref)
	if err != nil {
		return remote.Document{}, translate(err)
	}
	return remote.Document{Bytes: b, Version: remote.Version(desc.Digest)}, nil
}

func (s *Store) fetch(ctx context.Context, ref registry.Ref) (ocispecs.Descriptor, []byte, error) {
	ask := s.writing && !s.readOnly.Load()
	if ask {
		desc, b, err := s.client.FetchPush(ctx, ref)
		if !errors.Is(err, registry.ErrDenied) {
			return desc, b, err
		}
	}
	desc, b, err := s.client.FetchOwn(ctx, ref)
	if ask && (err == nil || errors.Is(err, registry.ErrNotFound)) {
		s.readOnly.Store(true)
	}
	return desc, b, err
}

// PutManifest costs a HEAD, unless old is Any, and right after it a PUT, which is not repeated without another HEAD.
func (s *Store) PutManifest(ctx context.Context, name string, b []byte, old remote.Version) (remote.Version, error) {
	if err := remote.CheckName(name); err != nil {
		return "", err
	}
	blobs, err := remote.Blobs(b)
	if err != nil {
		return "", fmt.Errorf("store %s in %s: %w", name, s.Name(), err)
	}
	ref := s.ref
	ref.Tag = name
	if old != remote.Any {
		now, err := s.version(ctx, ref)
		if err != nil {
			return "", err
		}
		if now != old {
			return "", fmt.Errorf("store %s: %w", ref, remote.ErrConflict)
		}
	}
	if err := s.client.PushManifestOnce(ctx, ref, ocispecs.MediaTypeImageManifest, b); err != nil {
		return "", refusal(err, ref, blobs)
	}
	return remote.Version(digest.FromBytes(b)), nil
}

func (s *Store) version(ctx context.Context, ref registry.Ref) (remote.Version, error) {
	desc, err := s.client.ResolvePush(ctx, ref)
	if errors.Is(err, registry.ErrNotFound) {
		return remote.Absent, nil
	}
	return remote.Version(desc.Digest), translate(err)
}

// Names asks for the tags from the prefix on. Where the registry's order shows that no more can come, the rest is not asked for.
func (s *Store) Names(ctx context.Context, prefix string) ([]string, error) {
	// The tag before all those with the prefix. It need not exist, and then some registries give an error and others nothing.
	if after := prefix[:max(len(prefix)-1, 0)]; after != "" {
		names, err := s.list(ctx, prefix, after)
		if err == nil && len(names) > 0 || ctx.Err() != nil || errors.Is(err, registry.ErrDenied) {
			return names, translate(err)
		}
		var re *registry.Error
		if errors.As(err, &re) && re.Passing() {
			return nil, translate(err)
		}
	}
	names, err := s.list(ctx, prefix, "")
	if errors.Is(err, registry.ErrNotFound) { // no repository yet
		return nil, nil
	}
	return names, translate(err)
}

func (s *Store) list(ctx context.Context, prefix, after string) ([]string, error) {
	found := map[string]bool{}
	last, sorted, total, first := "", true, 0, ""
	err := s.client.Tags(ctx, s.ref, after, func(page []string) bool {
		if len(page) == 0 || page[0] == first { // the end, or a registry that gives the same page again and again
			return false
		}
		first = page[0]
		for _, t := range page {
			if sorted = sorted && t > last; sorted {
				last = t
			}
			if strings.HasPrefix(t, prefix) && remote.CheckName(t) == nil {
				found[t] = true
			}
		}
		total += len(page)
		beyond := sorted && last > prefix && !strings.HasPrefix(last, prefix)
		return total <= maxTags && !beyond
	})
	if err != nil {
		return nil, err
	}
	if total > maxTags {
		return nil, remote.Mark(fmt.Errorf("%s has more than %d tags", s.Name(), maxTags), remote.ErrFinal)
	}
	names := make([]string, 0, len(found))
	for t := range found {
		names = append(names, t)
	}
	slices.Sort(names)
	return names, nil
}

// maxTags bounds a listing.
const maxTags = 1_000_000

// DeleteManifest costs a HEAD, unless name is a digest, and a DELETE. It deletes by digest, so every tag of the same manifest goes
// with it: of two names with the same bytes, both.
func (s *Store) DeleteManifest(ctx context.Context, name string) error {
	ref, err := s.named(name)
	if err != nil {
		return err
	}
	if ref.Digest == "" {
		v, err := s.version(ctx, ref)
		if err != nil || v == remote.Absent {
			return err
		}
		ref = ref.WithDigest(digest.Digest(v))
	}
	return gone(s.client.DeleteManifest(ctx, ref))
}

// Delete costs a DELETE, which few registries allow.
func (s *Store) Delete(ctx context.Context, d digest.Digest) error {
	return gone(s.client.DeleteBlob(ctx, s.ref, d))
}

// Open costs a GET. The reader has compared size and digest before io.EOF.
func (s *Store) Open(ctx context.Context, desc ocispecs.Descriptor) (io.ReadCloser, error) {
	rc, err := s.client.Blob(ctx, s.ref, desc)
	return reader(rc, err)
}

// OpenRange costs a GET.
func (s *Store) OpenRange(ctx context.Context, desc ocispecs.Descriptor, off, n int64) (io.ReadCloser, error) {
	if err := remote.CheckRange(desc, off, n); err != nil {
		return nil, err
	}
	rc, err := s.client.BlobRange(ctx, s.ref, desc, off, n)
	return reader(rc, err)
}

// Has costs a HEAD.
func (s *Store) Has(ctx context.Context, desc ocispecs.Descriptor) (bool, error) {
	ok, err := s.client.HasBlob(ctx, s.ref, desc.Digest)
	return ok, translate(err)
}

// Put costs what registry.Client.PushBlob does: nothing where Origin names this repository, one POST for a mount.
func (s *Store) Put(ctx context.Context, up remote.Upload) (bool, error) {
	sent, err := s.client.PushBlob(ctx, s.ref, registry.Upload{Desc: up.Desc, Origin: up.Origin, New: up.New, Open: up.Source})
	return sent, translate(err)
}

// Package s3 is a remote.Store in a bucket of Amazon S3 or of a server that speaks its protocol.
//
// Below the prefix, a blob is the object blobs/sha256/HEX, a document manifests/NAME and, so that it is found by its digest, once
// more manifests/sha256/HEX. Nothing is stored under a digest that its bytes do not
// have: small blobs are hashed before they are sent, large ones while their parts are, and the parts become an object only
// after the last one has proved right. Each request carries the hash of its body, which the server compares.
//
// A bucket has no collector. A lifecycle rule that expires objects of some age is the way to limit it: PutManifest makes old
// blobs that are still named young again.
package s3

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"larder/internal/fault"
	"larder/internal/registry"
	"larder/internal/remote"
)

// attempts is how often minio-go sends a request. Repeating is remote.Retry's work: it knows how long the caller is patient.
const attempts = 1

// Store is a bucket, or the part of one below a prefix.
type Store struct {
	cfg       Config
	host      string // for messages
	server    string // "host:port/" where it is not Amazon's
	client    *minio.Core
	transport *transport
	creds     *chain
	part      int           // bytes of a part
	pause     time.Duration // before the second try of a part
	now       func() time.Time
	buffers   *buffers

	probing     sync.Mutex
	probed      bool
	conditional bool
}

var _ remote.Store = (*Store)(nil)

// New makes a Store. It asks nobody anything yet: a bucket that does not exist, or credentials that do not fit, show at the
// first use. Errors are of kind Usage. Close gives up its connections.
func New(c Config) (*Store, error) {
	if err := c.check(); err != nil {
		return nil, err
	}
	if c.Blobs == "" {
		c.Blobs = defaultBlobs
	}
	if c.Manifests == "" {
		c.Manifests = defaultManifests
	}
	if c.Parallel <= 0 {
		c.Parallel = defaultParallel
	}
	s := &Store{cfg: c, host: "s3.amazonaws.com", creds: &chain{list: sources(c)}, part: partSize, pause: partPause, now: time.Now, buffers: newBuffers(maxBuffers)}
	var err error
	if s.transport, err = newTransport(c.CAFile); err != nil {
		return nil, err
	}
	opts := &minio.Options{
		Creds: credentials.New(s.creds), Secure: true, Transport: s.transport, Region: c.Region, MaxRetries: attempts,
	}
	if c.Endpoint != "" {
		u, err := endpointURL(c.Endpoint)
		if err != nil {
			return nil, fault.New(fault.Usage, err)
		}
		s.host, opts.Secure, opts.BucketLookup = u.Host, u.Scheme == "https", minio.BucketLookupDNS
		s.server = server(u)
	}
	if c.PathStyle {
		opts.BucketLookup = minio.BucketLookupPath
	}
	if s.client, err = minio.NewCore(s.host, opts); err != nil {
		return nil, fault.Errorf(fault.Usage, "S3 bucket %s at %s: %s", c.Bucket, s.host, registry.Clean(err.Error()))
	}
	return s, nil
}

// Name gives "s3://bucket/prefix" for Amazon's own servers, whose buckets have one name for all, and "s3://host:port/bucket/prefix"
// for others. The port is always there: no bucket's name has a colon.
func (s *Store) Name() string {
	return strings.TrimRight("s3://"+s.server+s.cfg.Bucket+"/"+s.cfg.Prefix, "/")
}

// Close gives up idle connections.
func (s *Store) Close() error {
	s.transport.CloseIdleConnections()
	return nil
}

// blobKey names the object of a blob.
func (s *Store) blobKey(d digest.Digest) (string, error) {
	if err := d.Validate(); err != nil {
		return "", fault.New(fault.Registry, refused(remote.ErrFinal, "%s: digest %.100q of a blob: %w", s.Name(), d, err))
	}
	return s.cfg.Prefix + s.cfg.Blobs + d.Algorithm().String() + "/" + d.Encoded(), nil
}

// Open streams a blob. Another length than desc.Size is ErrDamaged; the digest is for remote.Verify to compare.
func (s *Store) Open(ctx context.Context, desc ocispecs.Descriptor) (io.ReadCloser, error) {
	key, err := s.blobKey(desc.Digest)
	if err != nil {
		return nil, err
	}
	b, info, _, err := s.get(ctx, key, minio.GetObjectOptions{})
	if err != nil {
		return nil, err
	}
	if info.Size >= 0 && info.Size != desc.Size {
		b.Close()
		return nil, s.fail(ctx, "get", key, fmt.Errorf("%d bytes are there instead of %d: %w", info.Size, desc.Size, remote.ErrDamaged))
	}
	b.n = desc.Size
	return b, nil
}

// OpenRange streams n bytes of a blob from off on.
func (s *Store) OpenRange(ctx context.Context, desc ocispecs.Descriptor, off, n int64) (io.ReadCloser, error) {
	key, err := s.blobKey(desc.Digest)
	if err != nil {
		return nil, err
	}
	if err := remote.CheckRange(desc, off, n); err != nil {
		return nil, s.fail(ctx, "get", key, err)
	}
	if n == 0 {
		return io.NopCloser(strings.NewReader("")), nil
	}
	var opts minio.GetObjectOptions
	opts.Set("Range", fmt.Sprintf("bytes=%d-%d", off, off+n-1))
	b, info, header, err := s.get(ctx, key, opts)
	if err != nil {
		return nil, err
	}
	var from, to int64
	switch ranged := header.Get("Content-Range"); {
	case ranged == "" && off == 0 && info.Size == n: // the whole blob was asked for
	case ranged == "":
		err = refused(remote.ErrUnsupported, "%s knows no ranges", s.host)
	default:
		if _, perr := fmt.Sscanf(ranged, "bytes %d-%d/", &from, &to); perr != nil || from != off || to != off+n-1 {
			err = fmt.Errorf("bytes %s came instead of %d-%d: %w", registry.Clean(ranged), off, off+n-1, remote.ErrDamaged)
		}
	}
	if err != nil {
		b.Close()
		return nil, s.fail(ctx, "get", key, err)
	}
	b.n = n
	return b, nil
}

// get begins a download; the caller says in n how many bytes it must have.
func (s *Store) get(ctx context.Context, key string, opts minio.GetObjectOptions) (*body, minio.ObjectInfo, http.Header, error) {
	rc, info, header, err := s.client.GetObject(ctx, s.cfg.Bucket, key, opts)
	if err != nil {
		return nil, minio.ObjectInfo{}, nil, s.fail(ctx, "get", key, err)
	}
	return &body{s: s, ctx: ctx, rc: rc, key: key}, info, header, nil
}

// body is a download that must give n bytes.
type body struct {
	s   *Store
	ctx context.Context
	rc  io.ReadCloser
	key string
	n   int64 // still to come
	err error
}

func (b *body) Read(p []byte) (int, error) {
	if b.err != nil || len(p) == 0 {
		return 0, b.err
	}
	n, err := b.rc.Read(p[:min(int64(len(p)), b.n)])
	b.n -= int64(n)
	if err == io.EOF && b.n > 0 {
		err = fmt.Errorf("%d bytes are missing at the end: %w", b.n, io.ErrUnexpectedEOF)
	}
	switch {
	case b.n == 0:
		b.err = io.EOF
	case err != nil:
		b.err = b.s.fail(b.ctx, "get", b.key, err)
	}
	if n > 0 {
		return n, nil
	}
	return 0, b.err
}

// Close ends the download.
func (b *body) Close() error {
	if b.err == nil {
		b.err = errors.New("read after close")
	}
	return b.rc.Close()
}

// Has asks whether a blob is there, with the right length.
func (s *Store) Has(ctx context.Context, desc ocispecs.Descriptor) (bool, error) {
	key, err := s.blobKey(desc.Digest)
	if err != nil {
		return false, err
	}
	info, err := s.stat(ctx, key)
	return err == nil && info.Size == desc.Size, ignoreMissing(err)
}

// Delete removes a blob.
func (s *Store) Delete(ctx context.Context, d digest.Digest) error {
	key, err := s.blobKey(d)
	if err != nil {
		return err
	}
	return s.remove(ctx, key)
}

func (s *Store) stat(ctx context.Context, key string) (minio.ObjectInfo, error) {
	info, err := s.client.StatObject(ctx, s.cfg.Bucket, key, minio.StatObjectOptions{})
	return info, s.fail(ctx, "look for", key, err)
}

func (s *Store) remove(ctx context.Context, key string) error {
	err := s.client.RemoveObject(ctx, s.cfg.Bucket, key, minio.RemoveObjectOptions{})
	return ignoreMissing(s.fail(ctx, "delete", key, err))
}

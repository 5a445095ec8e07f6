package remote_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"larder/internal/remote"
	"larder/internal/remote/storetest"
)

// memory is a store whose operations a test can spoil.
type memory struct {
	mu     sync.Mutex
	blobs  map[digest.Digest][]byte
	docs   map[string][]byte
	counts map[string]int

	// before, where set, may fail an operation; reader may change what Open and OpenRange give.
	before func(op string, n int) error
	reader func(op string, n int, b []byte) io.Reader
	ranges bool
}

func newMemory() *memory {
	return &memory{blobs: map[digest.Digest][]byte{}, docs: map[string][]byte{}, counts: map[string]int{}, ranges: true}
}

// called counts an operation; n is 1 for the first of its kind.
func (m *memory) called(ctx context.Context, op string) (n int, err error) {
	m.mu.Lock()
	m.counts[op]++
	n = m.counts[op]
	f := m.before
	m.mu.Unlock()
	if f != nil {
		if err := f(op, n); err != nil {
			return n, err
		}
	}
	return n, ctx.Err()
}

func (m *memory) count(op string) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.counts[op]
}

func (m *memory) Name() string      { return "memory:test" }
func (m *memory) Conditional() bool { return true }
func (m *memory) Close() error      { return nil }

func (m *memory) Manifest(ctx context.Context, name string) (remote.Document, error) {
	if _, err := m.called(ctx, "Manifest"); err != nil {
		return remote.Document{}, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	b, ok := m.docs[name]
	if !ok {
		for _, doc := range m.docs {
			if digest.FromBytes(doc).String() == name {
				b, ok = doc, true
			}
		}
	}
	if !ok {
		return remote.Document{}, fmt.Errorf("memory: %s: %w", name, remote.ErrNotFound)
	}
	return remote.Document{Bytes: b, Version: remote.Version(digest.FromBytes(b))}, nil
}

// stored is an error of PutManifest that comes after the document was stored.
type stored struct{ error }

func (m *memory) PutManifest(ctx context.Context, name string, b []byte, old remote.Version) (remote.Version, error) {
	_, fail := m.called(ctx, "PutManifest")
	if fail != nil && !errors.As(fail, new(stored)) {
		return "", fail
	}
	if err := remote.CheckName(name); err != nil {
		return "", err
	}
	named, err := remote.Blobs(b)
	if err != nil {
		return "", err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	now := remote.Absent
	if doc, ok := m.docs[name]; ok {
		now = remote.Version(digest.FromBytes(doc))
	}
	if old != remote.Any && old != now {
		return "", remote.ErrConflict
	}
	var missing remote.MissingError
	for _, d := range named {
		if _, ok := m.blobs[d.Digest]; !ok {
			missing.Digests = append(missing.Digests, d.Digest)
		}
	}
	if missing.Digests != nil {
		return "", &missing
	}
	m.docs[name] = b
	return remote.Version(digest.FromBytes(b)), fail
}

func (m *memory) Names(ctx context.Context, prefix string) (names []string, err error) {
	if _, err := m.called(ctx, "Names"); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for n := range m.docs {
		if strings.HasPrefix(n, prefix) {
			names = append(names, n)
		}
	}
	slices.Sort(names)
	return names, nil
}

func (m *memory) DeleteManifest(ctx context.Context, name string) error {
	if _, err := m.called(ctx, "DeleteManifest"); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.docs, name)
	return nil
}

func (m *memory) blob(d digest.Digest) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	b, ok := m.blobs[d]
	if !ok {
		return nil, fmt.Errorf("memory: %s: %w", d, remote.ErrNotFound)
	}
	return b, nil
}

func (m *memory) Open(ctx context.Context, desc ocispecs.Descriptor) (io.ReadCloser, error) {
	return m.open(ctx, "Open", desc, 0, desc.Size)
}

func (m *memory) OpenRange(ctx context.Context, desc ocispecs.Descriptor, off, n int64) (io.ReadCloser, error) {
	if !m.ranges {
		return nil, remote.ErrUnsupported
	}
	if err := remote.CheckRange(desc, off, n); err != nil {
		return nil, err
	}
	return m.open(ctx, "OpenRange", desc, off, n)
}

func (m *memory) open(ctx context.Context, op string, desc ocispecs.Descriptor, off, n int64) (io.ReadCloser, error) {
	count, err := m.called(ctx, op)
	if err != nil {
		return nil, err
	}
	b, err := m.blob(desc.Digest)
	if err != nil {
		return nil, err
	}
	b = b[off : off+n]
	var r io.Reader = bytes.NewReader(b)
	if m.reader != nil {
		r = m.reader(op, count, b)
	}
	return io.NopCloser(&ending{r, ctx}), nil
}

type ending struct {
	io.Reader
	ctx context.Context
}

func (e *ending) Read(p []byte) (int, error) {
	if e.ctx.Err() != nil {
		return 0, e.ctx.Err()
	}
	return e.Reader.Read(p)
}

func (m *memory) Has(ctx context.Context, desc ocispecs.Descriptor) (bool, error) {
	if _, err := m.called(ctx, "Has"); err != nil {
		return false, err
	}
	_, err := m.blob(desc.Digest)
	return err == nil, nil
}

func (m *memory) Put(ctx context.Context, up remote.Upload) (bool, error) {
	if _, err := m.called(ctx, "Put"); err != nil {
		return false, err
	}
	if _, err := m.blob(up.Desc.Digest); err == nil && !up.New {
		return false, nil
	}
	rc, err := up.Source(ctx)
	if err != nil {
		return false, err
	}
	defer rc.Close()
	b, err := io.ReadAll(rc)
	if err != nil {
		return false, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.blobs[up.Desc.Digest] = b
	return true, nil
}

func (m *memory) Delete(ctx context.Context, d digest.Digest) error {
	if _, err := m.called(ctx, "Delete"); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.blobs, d)
	return nil
}

// clock is a policy's time, which passes by sleeping alone.
type clock struct {
	mu    sync.Mutex
	now   time.Time
	waits []time.Duration
}

func (c *clock) policy(reads, writes time.Duration) remote.Policy {
	c.now = time.Unix(1_000_000, 0)
	return remote.Policy{Reads: reads, Writes: writes,
		Now: func() time.Time { c.mu.Lock(); defer c.mu.Unlock(); return c.now },
		Sleep: func(_ context.Context, d time.Duration) {
			c.mu.Lock()
			defer c.mu.Unlock()
			c.now = c.now.Add(d)
			c.waits = append(c.waits, d)
		}}
}

func (c *clock) slept() (sum time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, d := range c.waits {
		sum += d
	}
	return sum
}

func TestContract(t *testing.T) {
	for name, wrap := range map[string]func(remote.Store) remote.Store{
		"Verify": remote.Verify,
		"Limit":  func(s remote.Store) remote.Store { return remote.Limit(s, 2, 2) },
		"Retry":  func(s remote.Store) remote.Store { return remote.Retry(s, remote.Policy{}) },
		"Wrap":   func(s remote.Store) remote.Store { return remote.Wrap(s, remote.Options{}) },
		"Wrap, once in a while failing": func(s remote.Store) remote.Store {
			s.(*memory).before = func(op string, n int) error {
				if n%3 == 1 {
					return errors.New("a passing failure")
				}
				return nil
			}
			var c clock
			return remote.Wrap(s, remote.Options{Policy: c.policy(time.Minute, time.Minute)})
		},
	} {
		t.Run(name, func(t *testing.T) {
			storetest.Run(t, func(*testing.T) remote.Store { return wrap(newMemory()) })
		})
	}
}

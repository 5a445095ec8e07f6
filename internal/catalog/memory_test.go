package catalog

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"larder/internal/remote"
)

// memory is a store in memory. It behaves as a registry does: it compares versions in one request and writes in the next, unless it
// is conditional.
type memory struct {
	name        string
	conditional bool
	// trip, where set, waits as long as a request takes one way.
	trip func(ctx context.Context)
	// fault, where set, may answer a request: op is the method's name, arg the tag or digest.
	fault func(op, arg string) error
	mute  bool // MissingError without digests
	alike bool // a document is deleted under all its names, as registries do

	mu    sync.Mutex
	docs  map[string][]byte
	blobs map[digest.Digest][]byte
	ops   []string
	read  int64
}

func newMemory(name string) *memory {
	return &memory{name: name, docs: map[string][]byte{}, blobs: map[digest.Digest][]byte{}}
}

// request is the way to the store; the answer's way is the deferred half.
func (m *memory) request(ctx context.Context, op, arg string) error {
	if m.trip != nil {
		m.trip(ctx)
	}
	m.mu.Lock()
	m.ops = append(m.ops, op+" "+arg)
	fault := m.fault
	m.mu.Unlock()
	if fault != nil {
		if err := fault(op, arg); err != nil {
			return err
		}
	}
	return ctx.Err()
}

func (m *memory) answer(ctx context.Context) {
	if m.trip != nil {
		m.trip(ctx)
	}
}

// count gives the requests since it was last called, by method.
func (m *memory) count() map[string]int {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := map[string]int{}
	for _, op := range m.ops {
		n[strings.Fields(op)[0]]++
	}
	m.ops, m.read = nil, 0
	return n
}

func (m *memory) Name() string { return m.name }

func (m *memory) Manifest(ctx context.Context, name string) (remote.Document, error) {
	defer m.answer(ctx)
	if err := m.request(ctx, "Manifest", name); err != nil {
		return remote.Document{}, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	b, ok := m.docs[name]
	if !ok {
		return remote.Document{}, fmt.Errorf("%s in %s: %w", name, m.name, remote.ErrNotFound)
	}
	m.read += int64(len(b))
	return remote.Document{Bytes: slices.Clone(b), Version: versionOf(b)}, nil
}

func versionOf(b []byte) remote.Version { return remote.Version(digest.FromBytes(b)) }

func (m *memory) PutManifest(ctx context.Context, name string, b []byte, old remote.Version) (remote.Version, error) {
	defer m.answer(ctx)
	compare := func() error {
		m.mu.Lock()
		defer m.mu.Unlock()
		have := remote.Absent
		if b, ok := m.docs[name]; ok {
			have = versionOf(b)
		}
		if old != remote.Any && have != old {
			return remote.ErrConflict
		}
		return nil
	}
	if !m.conditional && old != remote.Any {
		if err := m.request(ctx, "Head", name); err != nil {
			return remote.Absent, err
		}
		if err := compare(); err != nil {
			return remote.Absent, err
		}
		m.answer(ctx)
	}
	if err := m.request(ctx, "PutManifest", name); err != nil {
		return remote.Absent, err
	}
	var doc ocispecs.Manifest
	if err := json.Unmarshal(b, &doc); err != nil {
		return remote.Absent, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	missing := &remote.MissingError{}
	bad := false
	for _, d := range append(doc.Layers, doc.Config) {
		if _, ok := m.blobs[d.Digest]; !ok {
			bad = true
			if !m.mute {
				missing.Digests = append(missing.Digests, d.Digest)
			}
		}
	}
	if bad {
		return remote.Absent, missing
	}
	if m.conditional {
		have := remote.Absent
		if b, ok := m.docs[name]; ok {
			have = versionOf(b)
		}
		if old != remote.Any && have != old {
			return remote.Absent, remote.ErrConflict
		}
	}
	m.docs[name] = slices.Clone(b)
	return versionOf(b), nil
}

func (m *memory) Conditional() bool { return m.conditional }

func (m *memory) Names(ctx context.Context, prefix string) ([]string, error) {
	defer m.answer(ctx)
	if err := m.request(ctx, "Names", prefix); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	names := slices.Sorted(maps.Keys(m.docs))
	return slices.DeleteFunc(names, func(n string) bool { return !strings.HasPrefix(n, prefix) }), nil
}

func (m *memory) DeleteManifest(ctx context.Context, name string) error {
	defer m.answer(ctx)
	if err := m.request(ctx, "DeleteManifest", name); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if gone := m.docs[name]; m.alike {
		maps.DeleteFunc(m.docs, func(_ string, b []byte) bool { return bytes.Equal(b, gone) })
	}
	delete(m.docs, name)
	return nil
}

func (m *memory) Open(ctx context.Context, desc ocispecs.Descriptor) (io.ReadCloser, error) {
	defer m.answer(ctx)
	if err := m.request(ctx, "Open", desc.Digest.String()); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	b, ok := m.blobs[desc.Digest]
	if !ok {
		return nil, fmt.Errorf("%s in %s: %w", desc.Digest, m.name, remote.ErrNotFound)
	}
	m.read += int64(len(b))
	return io.NopCloser(bytes.NewReader(b)), nil
}

func (m *memory) OpenRange(context.Context, ocispecs.Descriptor, int64, int64) (io.ReadCloser, error) {
	return nil, remote.ErrUnsupported
}

func (m *memory) Has(ctx context.Context, desc ocispecs.Descriptor) (bool, error) {
	defer m.answer(ctx)
	if err := m.request(ctx, "Has", desc.Digest.String()); err != nil {
		return false, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	_, ok := m.blobs[desc.Digest]
	return ok, nil
}

func (m *memory) Put(ctx context.Context, up remote.Upload) (bool, error) {
	if err := m.request(ctx, "Post", up.Desc.Digest.String()); err != nil {
		return false, err
	}
	m.answer(ctx)
	defer m.answer(ctx)
	if err := m.request(ctx, "Put", up.Desc.Digest.String()); err != nil {
		return false, err
	}
	r, err := up.Open(ctx)
	if err != nil {
		return false, err
	}
	defer r.Close()
	b, err := io.ReadAll(r)
	if err != nil {
		return false, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.blobs[up.Desc.Digest] = b
	return true, nil
}

func (m *memory) Delete(_ context.Context, d digest.Digest) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.blobs, d)
	return nil
}

func (m *memory) Close() error { return nil }

// jitter makes a trip that takes half of around, by chance up to a half less or more, and now and then many times that.
func jitter(seed uint64, around time.Duration, stall float64) func(context.Context) {
	var mu sync.Mutex
	r := rand.New(rand.NewPCG(seed, 1))
	return func(ctx context.Context) {
		mu.Lock()
		d := time.Duration(float64(around) / 2 * (0.5 + r.Float64()))
		if r.Float64() < stall {
			d *= time.Duration(2 + r.IntN(8))
		}
		mu.Unlock()
		time.Sleep(d)
	}
}

package remote_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"larder/internal/fault"
	"larder/internal/remote"
	"larder/internal/remote/storetest"
)

var errPassing = errors.New("503 Service Unavailable")

// asking is a failure with a Retry-After.
type asking struct{ after time.Duration }

func (a asking) Error() string             { return "429 Too Many Requests" }
func (a asking) RetryAfter() time.Duration { return a.after }

// failFirst fails the first n calls of an operation.
func failFirst(op string, n int, err error) func(string, int) error {
	return func(got string, i int) error {
		if got == op && i <= n {
			return err
		}
		return nil
	}
}

func TestRetryRepeatsWhatPasses(t *testing.T) {
	ctx := t.Context()
	b := []byte("{}")
	desc := storetest.Describe(b)
	for op, do := range map[string]func(remote.Store) error{
		"Manifest":  func(s remote.Store) error { _, err := s.Manifest(ctx, "tag"); return err },
		"Names":     func(s remote.Store) error { _, err := s.Names(ctx, ""); return err },
		"Has":       func(s remote.Store) error { _, err := s.Has(ctx, desc); return err },
		"Open":      func(s remote.Store) error { _, err := storetest.Read(ctx, s, desc); return err },
		"OpenRange": func(s remote.Store) error { _, err := s.OpenRange(ctx, desc, 0, 1); return err },
		"Put":       func(s remote.Store) error { _, err := s.Put(ctx, storetest.Upload([]byte("new"))); return err },
		"PutManifest": func(s remote.Store) error {
			_, err := s.PutManifest(ctx, "x", storetest.Document("x", desc), remote.Absent)
			return err
		},
		"DeleteManifest": func(s remote.Store) error { return s.DeleteManifest(ctx, "tag") },
		"Delete":         func(s remote.Store) error { return s.Delete(ctx, desc.Digest) },
	} {
		t.Run(op, func(t *testing.T) {
			m := newMemory()
			m.blobs[desc.Digest] = b
			m.docs["tag"] = storetest.Document("tag", desc)
			var c clock
			m.before = failFirst(op, 4, errPassing)
			if err := do(remote.Retry(m, c.policy(time.Minute, time.Minute))); err != nil || m.count(op) != 5 {
				t.Errorf("%d calls, %v", m.count(op), err)
			}
			for i, w := range c.waits {
				if low := 500 * time.Millisecond << i; w < low || w > low+low/4 {
					t.Errorf("pause %d is %v", i, w)
				}
			}
			// And not what does not pass.
			for _, err := range []error{remote.ErrNotFound, remote.ErrDenied, remote.ErrConflict, remote.ErrImmutable, remote.ErrUnsupported,
				&remote.MissingError{}, remote.Mark(errPassing, remote.ErrFinal)} {
				m.counts[op] = 0
				m.before = failFirst(op, 1, fmt.Errorf("wrapped: %w", err))
				if got := do(remote.Retry(m, c.policy(time.Minute, time.Minute))); !errors.Is(got, err) || m.count(op) != 1 {
					t.Errorf("%v: %d calls, %v", err, m.count(op), got)
				}
			}
		})
	}
}

func TestRetryWaitsAsLongAsAsked(t *testing.T) {
	m := newMemory()
	m.docs["tag"] = []byte("x")
	var c clock
	m.before = failFirst("Manifest", 2, fmt.Errorf("get: %w", asking{17 * time.Second}))
	s := remote.Retry(m, c.policy(time.Minute, time.Minute))
	if _, err := s.Manifest(t.Context(), "tag"); err != nil || c.slept() != 34*time.Second {
		t.Errorf("%v, %v", c.waits, err)
	}
	// Not longer than there is patience.
	c.waits = nil
	m.counts["Manifest"] = 0
	m.before = failFirst("Manifest", 2, asking{time.Hour})
	if _, err := remote.Retry(m, c.policy(time.Minute, time.Minute)).Manifest(t.Context(), "tag"); !errors.Is(err, remote.ErrDown) || c.slept() != 0 {
		t.Errorf("%v, %v", c.waits, err)
	}
}

// TestOutageCostsItsPatienceOnce: the store is down for reads, then for writes, each after its own patience.
func TestOutageCostsItsPatienceOnce(t *testing.T) {
	ctx := t.Context()
	m := newMemory()
	m.before = func(string, int) error { return errPassing }
	var c clock
	s := remote.Retry(m, c.policy(20*time.Second, 3*time.Minute))
	_, err := s.Put(ctx, storetest.Upload([]byte("a")))
	if !errors.Is(err, remote.ErrDown) || !errors.Is(err, errPassing) || fault.Of(err) != fault.Registry || !strings.Contains(err.Error(), "memory:test counts as down: 503") {
		t.Error(err)
	}
	if d := c.slept(); d < 2*time.Minute || d > 3*time.Minute {
		t.Errorf("writes waited %v", d)
	}
	for range 100 {
		if _, again := s.Put(ctx, storetest.Upload([]byte("a"))); again != err {
			t.Fatal(again)
		}
	}
	puts := m.count("Put")
	c.waits = nil
	_, err = s.Manifest(ctx, "tag")
	if d := c.slept(); !errors.Is(err, remote.ErrDown) || d < 10*time.Second || d > 20*time.Second {
		t.Errorf("reads waited %v: %v", d, err)
	}
	calls := m.count("Manifest")
	if _, err := s.Has(ctx, storetest.Describe(nil)); !errors.Is(err, remote.ErrDown) {
		t.Error(err)
	}
	if _, err := s.Open(ctx, storetest.Describe(nil)); !errors.Is(err, remote.ErrDown) {
		t.Error(err)
	}
	// It stays so, even if the store is back.
	m.before = nil
	if _, err := s.Manifest(ctx, "tag"); !errors.Is(err, remote.ErrDown) || m.count("Manifest") != calls || m.count("Put") != puts {
		t.Errorf("asked again: %v", err)
	}
}

func TestWritesGetOneTryWhereReadsAreDown(t *testing.T) {
	ctx := t.Context()
	m := newMemory()
	m.before = func(op string, _ int) error { return errPassing }
	var c clock
	s := remote.Retry(m, c.policy(time.Second, time.Hour))
	if _, err := s.Names(ctx, ""); !errors.Is(err, remote.ErrDown) {
		t.Fatal(err)
	}
	c.waits = nil
	m.before = nil
	if _, err := s.Put(ctx, storetest.Upload([]byte("a"))); err != nil {
		t.Error(err)
	}
	m.before = func(op string, _ int) error { return errPassing }
	if _, err := s.Put(ctx, storetest.Upload([]byte("b"))); err == nil || c.slept() != 0 {
		t.Errorf("waited %v: %v", c.waits, err)
	}
}

// TestOneBadObjectIsNoOutage: what fails for ever beside what goes well does not take the store down.
func TestOneBadObjectIsNoOutage(t *testing.T) {
	ctx := t.Context()
	m := newMemory()
	m.docs["good"] = []byte("x")
	var c clock
	var s remote.Store
	policy := c.policy(20*time.Second, time.Minute)
	sleep := policy.Sleep
	policy.Sleep = func(ctx context.Context, d time.Duration) {
		sleep(ctx, d)
		if _, err := s.Manifest(ctx, "good"); err != nil {
			t.Error(err)
		}
	}
	s = remote.Retry(m, policy)
	m.before = func(op string, n int) error {
		if op == "Has" {
			return errPassing
		}
		return nil
	}
	if _, err := s.Has(ctx, storetest.Describe(nil)); !errors.Is(err, errPassing) || errors.Is(err, remote.ErrDown) {
		t.Error(err)
	}
	if _, err := s.Manifest(ctx, "good"); err != nil {
		t.Error(err)
	}
}

func TestBrownoutOfMinutesOnWrites(t *testing.T) {
	m := newMemory()
	var c clock
	s := remote.Wrap(m, remote.Options{Policy: c.policy(20*time.Second, 5*time.Minute)})
	start := c.now
	m.before = func(op string, _ int) error {
		if c.now.Sub(start) < 4*time.Minute {
			return errPassing
		}
		return nil
	}
	if sent, err := s.Put(t.Context(), storetest.Upload([]byte("late"))); err != nil || !sent {
		t.Error(sent, err)
	}
}

func TestRetryKnowsItsOwnDocument(t *testing.T) {
	m := newMemory()
	desc := storetest.Describe([]byte("{}"))
	m.blobs[desc.Digest] = []byte("{}")
	var c clock
	s := remote.Retry(m, c.policy(time.Minute, time.Minute))
	m.before = failFirst("PutManifest", 1, stored{errors.New("connection reset after the document was stored")})
	doc := storetest.Document("mine", desc)
	if v, err := s.PutManifest(t.Context(), "tag", doc, remote.Absent); err != nil || v != remote.Version(digest.FromBytes(doc)) || m.count("PutManifest") != 2 {
		t.Errorf("version %q, %d tries, %v", v, m.count("PutManifest"), err)
	}
	// Somebody else's stays a conflict.
	m.counts["PutManifest"] = 0
	m.before = failFirst("PutManifest", 1, errPassing)
	if _, err := s.PutManifest(t.Context(), "tag", storetest.Document("other", desc), remote.Absent); !errors.Is(err, remote.ErrConflict) {
		t.Error(err)
	}
}

// TestPutDoesNotRepeatABadSource: what cannot be read will not be read by trying again, and says nothing about the store.
func TestPutDoesNotRepeatABadSource(t *testing.T) {
	m := newMemory()
	var c clock
	s := remote.Retry(careless{m}, c.policy(time.Minute, time.Minute))
	broken := errors.New("input/output error")
	up := storetest.Upload([]byte("abc"))
	up.Open = func(context.Context) (io.ReadCloser, error) {
		return io.NopCloser(io.MultiReader(strings.NewReader("a"), &once{broken})), nil
	}
	if _, err := s.Put(t.Context(), up); err == nil || errors.Is(err, remote.ErrDown) || m.count("Put") != 1 {
		t.Errorf("%d tries, %v", m.count("Put"), err)
	}
	up.Open = func(context.Context) (io.ReadCloser, error) { return nil, broken }
	if _, err := s.Put(t.Context(), up); err == nil || m.count("Put") != 2 {
		t.Errorf("%d tries, %v", m.count("Put"), err)
	}
	if len(c.waits) != 0 {
		t.Error(c.waits)
	}
}

// careless loses what went wrong with a source.
type careless struct{ *memory }

func (c careless) Put(ctx context.Context, up remote.Upload) (bool, error) {
	c.called(ctx, "Put")
	rc, err := up.Open(ctx)
	if err == nil {
		_, err = io.ReadAll(rc)
	}
	if err != nil {
		return false, errors.New("the upload failed somehow")
	}
	return true, nil
}

type once struct{ err error }

func (o *once) Read([]byte) (int, error) { return 0, o.err }

// TestSilenceEnds: a store that never answers costs the patience, in real time.
func TestSilenceEnds(t *testing.T) {
	s := remote.Retry(&silent{newMemory()}, remote.Policy{Reads: 50 * time.Millisecond, Writes: 50 * time.Millisecond})
	start := time.Now()
	_, err := s.Has(t.Context(), ocispecs.Descriptor{})
	if !errors.Is(err, remote.ErrDown) || fault.Of(err) != fault.Registry || !strings.Contains(err.Error(), "no answer within 50ms") {
		t.Error(err)
	}
	if d := time.Since(start); d > 10*time.Second {
		t.Error(d)
	}
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(10*time.Millisecond, cancel)
	s = remote.Retry(&silent{newMemory()}, remote.Policy{Reads: time.Hour})
	if _, err := s.Has(ctx, ocispecs.Descriptor{}); !errors.Is(err, context.Canceled) || errors.Is(err, remote.ErrDown) {
		t.Error(err)
	}
}

type silent struct{ *memory }

func (s *silent) Has(ctx context.Context, _ ocispecs.Descriptor) (bool, error) {
	<-ctx.Done()
	return false, ctx.Err()
}

package remote

import (
	"bytes"
	"context"
	"errors"
	"io"
	"sync/atomic"
	"time"

	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"larder/internal/fault"
)

// smallBlob is the size in bytes up to which a blob is fetched whole before any of it is given, so that damage on the way is
// mended by fetching it again.
const smallBlob = 1 << 20

// Policy says how long passing failures are borne.
type Policy struct {
	// Reads and Writes are for how long one operation goes on trying, counted from its first failure: 20 seconds and 3 minutes where
	// they are 0. A request for something small that has no answer in that time counts as failed.
	Reads, Writes time.Duration
	// Sleep waits, or until ctx ends; Now tells the time. Nil is the real clock: tests have their own.
	Sleep func(ctx context.Context, d time.Duration)
	Now   func() time.Time
}

// Retry repeats what failed for a passing reason: all but what says that it is as it is (not there, denied, a conflict, not
// supported, marked ErrFinal), up to the policy's patience, waiting longer each time or as long as the error's RetryAfter says.
//
// It stands above the tries of the implementations, which bear what is over in a few seconds (the registry client makes five
// within about three): its own pauses begin at half a second and reach 15, so a brownout of three minutes is some 20 rounds.
//
// A download that breaks off goes on where it stopped, by a range or by reading it again. The bytes are not compared here, except
// those of small blobs; Verify above it does that.
//
// An operation whose patience is used up makes the store count as down, unless others of its kind went well meanwhile: from then
// on, reads (or writes) fail at once with the same reason, so that an outage costs its patience once. Once reads are down, writes
// get one try. Such errors wrap ErrDown.
func Retry(s Store, p Policy) Store {
	if p.Reads == 0 {
		p.Reads = 20 * time.Second
	}
	if p.Writes == 0 {
		p.Writes = 3 * time.Minute
	}
	if p.Now == nil {
		p.Now = time.Now
	}
	if p.Sleep == nil {
		p.Sleep = sleep
	}
	return &retrying{Store: s, policy: p, reads: side{patience: p.Reads}, writes: side{patience: p.Writes}}
}

type retrying struct {
	Store
	policy        Policy
	reads, writes side
}

func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// do runs an operation until it succeeds or there is no patience left.
func (r *retrying) do(ctx context.Context, s *side, op func(ctx context.Context) error) error {
	e := r.begin(s)
	for {
		if err := s.why(); err != nil {
			return err
		}
		err := op(ctx)
		if err == nil {
			s.well(r.policy.Now())
			return nil
		}
		if err := e.wait(ctx, err); err != nil {
			return err
		}
	}
}

// quick is do for a request whose answer is small: none within the patience is a failure that is not waited for again.
func (r *retrying) quick(ctx context.Context, s *side, op func(ctx context.Context) error) error {
	return r.do(ctx, s, func(outer context.Context) error {
		ctx, cancel := context.WithTimeoutCause(outer, s.patience, errSilent)
		defer cancel()
		err := op(ctx)
		if err != nil && outer.Err() == nil && ctx.Err() != nil {
			err = fault.New(fault.Registry, &silence{store: r.Name(), patience: s.patience})
		}
		return err
	})
}

func (r *retrying) Manifest(ctx context.Context, name string) (doc Document, err error) {
	err = r.quick(ctx, &r.reads, func(ctx context.Context) (err error) {
		doc, err = r.Store.Manifest(ctx, name)
		return err
	})
	return doc, err
}

func (r *retrying) Names(ctx context.Context, prefix string) (names []string, err error) {
	err = r.do(ctx, &r.reads, func(ctx context.Context) (err error) {
		names, err = r.Store.Names(ctx, prefix)
		return err
	})
	return names, err
}

func (r *retrying) Has(ctx context.Context, desc ocispecs.Descriptor) (ok bool, err error) {
	err = r.quick(ctx, &r.reads, func(ctx context.Context) (err error) {
		ok, err = r.Store.Has(ctx, desc)
		return err
	})
	return ok, err
}

// PutManifest tells a conflict with somebody else's document from one with its own, that an earlier try stored although no answer
// came.
func (r *retrying) PutManifest(ctx context.Context, name string, b []byte, old Version) (v Version, err error) {
	tries := 0
	err = r.quick(ctx, &r.writes, func(ctx context.Context) (err error) {
		tries++
		v, err = r.Store.PutManifest(ctx, name, b, old)
		if tries > 1 && (errors.Is(err, ErrConflict) || errors.Is(err, ErrImmutable)) {
			if doc, merr := r.Store.Manifest(ctx, name); merr == nil && bytes.Equal(doc.Bytes, b) {
				v, err = doc.Version, nil
			}
		}
		return err
	})
	return v, err
}

func (r *retrying) DeleteManifest(ctx context.Context, name string) error {
	return r.quick(ctx, &r.writes, func(ctx context.Context) error { return r.Store.DeleteManifest(ctx, name) })
}

func (r *retrying) Delete(ctx context.Context, d digest.Digest) error {
	return r.quick(ctx, &r.writes, func(ctx context.Context) error { return r.Store.Delete(ctx, d) })
}

// Put does not repeat where it was the upload's own bytes that could not be read.
func (r *retrying) Put(ctx context.Context, up Upload) (sent bool, err error) {
	open := up.Open
	err = r.do(ctx, &r.writes, func(ctx context.Context) error {
		var failed atomic.Bool
		up.Open = func(ctx context.Context) (io.ReadCloser, error) {
			rc, err := open(ctx)
			if err != nil {
				failed.Store(true)
				return nil, err
			}
			return &watched{ReadCloser: rc, failed: &failed}, nil
		}
		sent, err = r.Store.Put(ctx, up)
		if err != nil && failed.Load() {
			err = Mark(err, ErrFinal)
		}
		return err
	})
	return sent, err
}

// watched notes an error of reading, unless it comes from being closed under its reader: that is how a transport ends an upload
// whose connection broke. The store may read in a goroutine of its own.
type watched struct {
	io.ReadCloser
	failed *atomic.Bool
	closed atomic.Bool
}

func (w *watched) Read(p []byte) (int, error) {
	n, err := w.ReadCloser.Read(p)
	if err != nil && err != io.EOF && !w.closed.Load() {
		w.failed.Store(true)
	}
	return n, err
}

func (w *watched) Close() error {
	w.closed.Store(true)
	return w.ReadCloser.Close()
}

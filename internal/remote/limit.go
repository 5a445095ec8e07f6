package remote

import (
	"context"
	"io"
	"sync"

	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

// Limit lets at most so many reads and so many writes of a store go on at once; the others wait for their turn or the end of their
// ctx. A read lasts until its reader is closed: who keeps one open while he opens the next may wait for himself. A Put may read from
// the same store.
func Limit(s Store, reads, writes int) Store {
	return &limiting{Store: s, reads: make(turns, max(reads, 1)), writes: make(turns, max(writes, 1))}
}

type limiting struct {
	Store
	reads, writes turns
}

type turns chan struct{}

func (t turns) take(ctx context.Context) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	select {
	case t <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (t turns) give() { <-t }

func (l *limiting) Manifest(ctx context.Context, name string) (Document, error) {
	if err := l.reads.take(ctx); err != nil {
		return Document{}, err
	}
	defer l.reads.give()
	return l.Store.Manifest(ctx, name)
}

func (l *limiting) Names(ctx context.Context, prefix string) ([]string, error) {
	if err := l.reads.take(ctx); err != nil {
		return nil, err
	}
	defer l.reads.give()
	return l.Store.Names(ctx, prefix)
}

func (l *limiting) Has(ctx context.Context, desc ocispecs.Descriptor) (bool, error) {
	if err := l.reads.take(ctx); err != nil {
		return false, err
	}
	defer l.reads.give()
	return l.Store.Has(ctx, desc)
}

func (l *limiting) Open(ctx context.Context, desc ocispecs.Descriptor) (io.ReadCloser, error) {
	return l.reader(ctx, func() (io.ReadCloser, error) { return l.Store.Open(ctx, desc) })
}

func (l *limiting) OpenRange(ctx context.Context, desc ocispecs.Descriptor, off, n int64) (io.ReadCloser, error) {
	return l.reader(ctx, func() (io.ReadCloser, error) { return l.Store.OpenRange(ctx, desc, off, n) })
}

func (l *limiting) reader(ctx context.Context, open func() (io.ReadCloser, error)) (io.ReadCloser, error) {
	if err := l.reads.take(ctx); err != nil {
		return nil, err
	}
	rc, err := open()
	if err != nil {
		l.reads.give()
		return nil, err
	}
	return &turn{ReadCloser: rc, give: sync.OnceFunc(l.reads.give)}, nil
}

type turn struct {
	io.ReadCloser
	give func()
}

func (t *turn) Close() error {
	defer t.give()
	return t.ReadCloser.Close()
}

func (l *limiting) PutManifest(ctx context.Context, name string, b []byte, old Version) (Version, error) {
	if err := l.writes.take(ctx); err != nil {
		return "", err
	}
	defer l.writes.give()
	return l.Store.PutManifest(ctx, name, b, old)
}

func (l *limiting) Put(ctx context.Context, up Upload) (bool, error) {
	if err := l.writes.take(ctx); err != nil {
		return false, err
	}
	defer l.writes.give()
	return l.Store.Put(ctx, up)
}

func (l *limiting) DeleteManifest(ctx context.Context, name string) error {
	if err := l.writes.take(ctx); err != nil {
		return err
	}
	defer l.writes.give()
	return l.Store.DeleteManifest(ctx, name)
}

func (l *limiting) Delete(ctx context.Context, d digest.Digest) error {
	if err := l.writes.take(ctx); err != nil {
		return err
	}
	defer l.writes.give()
	return l.Store.Delete(ctx, d)
}
